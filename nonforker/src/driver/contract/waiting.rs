//! Cases: when a wait sleeps, and what ends it.

use std::time::Duration;

use super::{
    Rig,
    bench::{Bench, PATIENCE, QUIET},
};
use crate::driver::{Driver, Next};

pub(super) fn a_wait_lasts_as_long_as_it_should<R: Rig>(bench: &mut Bench<R>) {
    let (_client, token) = bench.open();
    bench.receive(token, true);
    bench.settle();
    let asked = Duration::from_millis(60);
    let slept = bench.time_wait(asked);
    assert!((asked..asked * 10).contains(&slept), "{slept:?} instead of {asked:?}");
    for _ in 0..10 {
        let slept = bench.time_wait(Duration::ZERO);
        assert!(slept < asked, "{slept:?} instead of no time");
    }
}

pub(super) fn a_wait_is_not_rounded_up_to_a_millisecond<R: Rig>(bench: &mut Bench<R>) {
    let (_client, token) = bench.open();
    bench.receive(token, true);
    bench.settle();
    for asked in [200, 2_500].map(Duration::from_micros) {
        // Other programs may make most of them longer.
        let slept = (0..50).map(|_| {
            let (clock, mut left) = (bench.driver.clock(), asked);
            let until = clock.time() + asked;
            while !left.is_zero() {
                bench.wait(left);
                left = until.saturating_sub(clock.time());
            }
            clock.time() - (until - asked)
        });
        let shortest = slept.min().expect("there are 50");
        let late = shortest.checked_sub(asked).expect("it was waited for");
        assert!(late < Duration::from_micros(400), "{asked:?} became {shortest:?}");
    }
}

pub(super) fn who_has_nothing_to_say_lets_it_sleep<R: Rig>(bench: &mut Bench<R>) {
    let pairs = bench.open_many(20);
    for &(_, token) in &pairs[..10] {
        bench.receive(token, true);
    }
    bench.settle();
    for &(_, token) in &pairs[..10] {
        bench.receive(token, false);
        bench.receive(token, true);
    }
    bench.settle();
}

pub(super) fn a_wake_up_before_the_wait_is_not_lost<R: Rig>(bench: &mut Bench<R>) {
    let waker = bench.driver.waker();
    for times in [1, 1, 5] {
        let before = bench.log.wakes;
        for _ in 0..times {
            waker.clone().wake();
        }
        bench.promptly("the wake-up", |bench| bench.log.wakes > before);
        bench.settle();
        assert!(bench.log.wakes - before <= times, "one at most for each");
    }
}

pub(super) fn a_sink_that_has_work_is_returned_to<R: Rig>(bench: &mut Bench<R>) {
    let (_client, token) = bench.open();
    bench.settle();
    bench.send(token, b"reply");
    let clock = bench.driver.clock();
    let before = clock.time();
    while bench.of(token).is_sending() {
        bench.wait_wanting(PATIENCE, Next::Return);
    }
    let slept = clock.time() - before;
    assert!(slept < PATIENCE / 2, "slept for {slept:?} though there was work");
    bench.wait(QUIET);
}

pub(super) fn a_sink_that_has_enough_gets_the_rest_next<R: Rig>(bench: &mut Bench<R>) {
    let mut pairs = bench.open_many(20);
    for (client, token) in &mut pairs {
        bench.receive(*token, true);
        bench.send_from(client, b"once");
    }
    let clock = bench.driver.clock();
    for _ in 0..100 {
        if pairs.iter().all(|&(_, token)| bench.of(token).received == b"once") {
            break;
        }
        let before = clock.time();
        bench.wait_wanting(PATIENCE, Next::Enough);
        assert!(clock.time() - before < PATIENCE / 2, "slept before the rest was delivered");
    }
    for (at, &(_, token)) in pairs.iter().enumerate() {
        assert_eq!(bench.of(token).received, b"once", "peer {at}");
    }
    bench.settle();
}

pub(super) fn an_awaited_send_is_not_slept_on<R: Rig>(bench: &mut Bench<R>) {
    let (_client, token) = bench.open();
    bench.settle();
    let clock = bench.driver.clock();
    let sleeps = (0..20).map(|_| {
        bench.send(token, b"reply");
        if !bench.of(token).is_sending() {
            return Duration::ZERO;
        }
        let before = clock.time();
        bench.wait_wanting(PATIENCE, Next::Return);
        assert!(!bench.of(token).is_sending(), "one wait is enough");
        clock.time() - before
    });
    let shortest = sleeps.min().expect("there are 20");
    assert!(shortest < QUIET / 2, "at least {shortest:?}");
}
