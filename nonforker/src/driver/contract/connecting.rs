//! Cases about connections that the driver makes.

use std::time::Duration;

use super::{Client, Heard, Rig, Target, bench::Bench};
use crate::address::{Address, Peer};

/// What a driver says of the peer of a connection to `address`.
fn peer_at(address: &Address) -> Peer {
    match *address {
        Address::Tcp(address) => Peer::Tcp(address),
        _ => Peer::Unix,
    }
}

fn hear<R: Rig>(bench: &mut Bench<R>, client: &mut R::Client) -> Heard {
    let mut heard = Heard::Nothing;
    bench.until("the peer to hear something", |_| {
        heard = client.receive();
        heard != Heard::Nothing
    });
    heard
}

pub(super) fn a_connection_that_was_made_works_as_one_that_was_accepted<R: Rig>(
    bench: &mut Bench<R>,
) {
    let mut target = bench.rig.target(false).expect("each transport has one");
    bench.connect(7, target.address());
    bench.until("a connection to be made", |bench| !bench.log.connected.is_empty());
    assert_eq!(bench.log.connected[0].attempt, 7);
    assert_eq!(bench.log.connected[0].peer, peer_at(&target.address()));
    let token = bench.adopt_made();
    let mut client = bench.accept_at(&mut target);
    bench.receive(token, true);
    bench.send(token, b"a request");
    assert_eq!(hear(bench, &mut client), Heard::Bytes(b"a request".to_vec()));
    bench.send_from(&mut client, b"a reply");
    bench.until("the reply", |bench| bench.of(token).received == b"a reply");
    client.shutdown_write();
    bench.until("the end", |bench| bench.of(token).ended);
    bench.close(token, false);
    bench.until("the last word", |bench| bench.of(token).closed);
    assert_eq!(hear(bench, &mut client), Heard::End);
}

pub(super) fn an_attempt_that_nobody_takes_fails<R: Rig>(bench: &mut Bench<R>) {
    for attempt in [1, u32::MAX] {
        let nowhere = bench.rig.nowhere();
        bench.connect(attempt, nowhere);
        bench.promptly("an attempt that fails", |bench| bench.log.attempts.is_empty());
        let (of, error) = bench.log.connect_failures.pop().expect("it failed");
        assert_eq!(of, attempt, "{error}");
    }
    assert!(bench.log.connected.is_empty());
    bench.settle();
}

pub(super) fn an_attempt_that_is_under_way_is_slept_on<R: Rig>(bench: &mut Bench<R>) {
    let Some(mut target) = bench.rig.target(true) else { return };
    bench.connect(1, target.address());
    bench.settle();
    let nap = Duration::from_millis(30);
    assert!(bench.time_wait(nap) >= nap / 2, "it sleeps meanwhile");
    assert!(bench.log.attempts.contains(&1), "there is no answer yet");
    target.let_in();
    let token = bench.adopt_made();
    let mut client = bench.accept_at(&mut target);
    bench.receive(token, true);
    bench.send_from(&mut client, b"late");
    bench.until("its bytes", |bench| bench.of(token).received == b"late");
}

pub(super) fn an_abandoned_attempt_is_not_heard_of<R: Rig>(bench: &mut Bench<R>) {
    let Some(mut target) = bench.rig.target(true) else { return };
    bench.connect(1, target.address());
    bench.wait(Duration::from_millis(10));
    bench.abandon(1);
    target.let_in();
    // That nothing is reported about it, the log sees to.
    bench.settle();
    // Its number may be used again.
    bench.connect(1, target.address());
    let _token = bench.adopt_made();
}

pub(super) fn an_attempt_that_is_abandoned_at_once_is_not_heard_of<R: Rig>(bench: &mut Bench<R>) {
    let mut target = bench.rig.target(false).expect("each transport has one");
    let nowhere = bench.rig.nowhere();
    for (attempt, address) in [(1, target.address()), (2, nowhere)] {
        bench.connect(attempt, address);
        bench.abandon(attempt);
    }
    bench.settle();
    // If it reached the target, it is closed there.
    if let Some(mut client) = target.accept() {
        assert!(matches!(hear(bench, &mut client), Heard::End | Heard::Reset));
    }
}

pub(super) fn a_connection_that_was_made_and_is_dropped_is_closed<R: Rig>(bench: &mut Bench<R>) {
    let mut target = bench.rig.target(false).expect("each transport has one");
    bench.connect(1, target.address());
    bench.until("a connection to be made", |bench| !bench.log.connected.is_empty());
    let mut client = bench.accept_at(&mut target);
    bench.log.connected.clear();
    assert_eq!(hear(bench, &mut client), Heard::End);
    bench.settle();
}

pub(super) fn many_attempts_end_each_by_itself<R: Rig>(bench: &mut Bench<R>) {
    let mut target = bench.rig.target(false).expect("each transport has one");
    for attempt in 0..40 {
        let address = if attempt % 2 == 0 { target.address() } else { bench.rig.nowhere() };
        bench.connect(attempt, address);
    }
    bench.until("every attempt to end", |bench| bench.log.attempts.is_empty());
    let mut failed: Vec<_> = bench.log.connect_failures.iter().map(|&(of, _)| of).collect();
    failed.sort_unstable();
    assert_eq!(failed, (0..40).filter(|of| of % 2 == 1).collect::<Vec<_>>());
    for _ in 0..20 {
        let token = bench.adopt_made();
        let mut client = bench.accept_at(&mut target);
        bench.send(token, b"x");
        bench.until("the byte", |bench| bench.of(token).sent == 1);
        // Which of them was made first, no driver promises.
        client.shutdown_write();
    }
}
