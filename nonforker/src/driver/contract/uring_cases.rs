//! Cases of the io_uring driver alone: what can go wrong between it and the kernel.
//!
//! Each one makes sure that it did go wrong, by the driver's own count.

use std::time::Duration;

use super::{
    Client, Heard, READ_MAX,
    bench::{Bench, PATIENCE, QUIET},
    kernel::{SocketDriver, Sockets},
    receiving::bytes,
    sending::hear,
};
use crate::driver::{Driver, Next, Op, uring::UringDriver};

type On<D> = Bench<Sockets<D>>;
/// How often a wait may come back empty before that counts as spinning.
const EMPTY_MAX: usize = 10;

/// Has many peers send at once, and waits until all of it has arrived, each in its order.
fn flood_from_many<D: SocketDriver<Driver = UringDriver>>(bench: &mut On<D>, count: usize) {
    let mut pairs = bench.open_many(count);
    for &(_, token) in &pairs {
        bench.receive(token, true);
    }
    bench.settle();
    let all = bytes(3 * READ_MAX);
    let mut waits = 0;
    for piece in all.chunks(READ_MAX) {
        for (client, _) in &mut pairs {
            assert_eq!(client.send(piece), piece.len());
        }
        bench.wait(QUIET);
    }
    let is_complete =
        |bench: &On<D>| pairs.iter().all(|&(_, token)| bench.of(token).received.len() == all.len());
    let mut empty = 0;
    while !is_complete(bench) {
        waits += 1;
        empty += usize::from(bench.wait_wanting(PATIENCE, Next::Return) == 0);
        assert!(empty <= EMPTY_MAX, "it spins: {empty} of {waits} waits brought nothing");
    }
    for (_, token) in pairs {
        assert!(bench.of(token).received == all, "each byte once and in order");
    }
    bench.settle();
}

pub(super) fn without_a_buffer_nobody_spins_and_nothing_is_lost<
    D: SocketDriver<Driver = UringDriver>,
>(
    bench: &mut On<D>,
) {
    flood_from_many(bench, 40);
    assert!(bench.driver.tally().hungry > 0, "{:?}", bench.driver.tally());
}

pub(super) fn completions_that_do_not_fit_are_not_lost<D: SocketDriver<Driver = UringDriver>>(
    bench: &mut On<D>,
) {
    let pairs = bench.open_many(50);
    let (clients, tokens): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    for &token in &tokens {
        bench.receive(token, true);
    }
    bench.settle();
    // Each receive ends with a completion, and none of them needs a buffer.
    clients.into_iter().for_each(Client::close);
    bench.promptly("the ends", |bench| tokens.iter().all(|&token| bench.of(token).ended));
    assert!(bench.driver.tally().overflowed > 0, "{:?}", bench.driver.tally());
    bench.settle();
}

pub(super) fn a_batch_that_does_not_fit_is_handed_over_in_parts<
    D: SocketDriver<Driver = UringDriver>,
>(
    bench: &mut On<D>,
) {
    let mut pairs = bench.open_many(30);
    for &(_, token) in &pairs {
        bench.receive(token, true);
        bench.send_unawaited(token, b"one of many");
    }
    bench.wait(QUIET);
    assert!(bench.driver.tally().full > 0, "{:?}", bench.driver.tally());
    for (client, token) in &mut pairs {
        assert!(!bench.of(*token).is_sending(), "the kernel has taken it");
        assert_eq!(client.receive(), Heard::Bytes(b"one of many".to_vec()));
        assert_eq!(client.send(b"and back"), 8);
    }
    bench.promptly("the answers", |bench| {
        pairs.iter().all(|&(_, token)| bench.of(token).received == b"and back")
    });
}

pub(super) fn a_short_send_comes_back_with_its_rest<D: SocketDriver<Driver = UringDriver>>(
    bench: &mut On<D>,
) {
    let (mut client, token) = bench.open();
    let all = bytes(8 << 20);
    let mut heard = Vec::new();
    bench.send(token, &all);
    bench.until("a part", |bench| !bench.of(token).is_sending());
    assert!(bench.of(token).rest.is_some(), "so much does not go in one piece");
    assert!(bench.driver.tally().bounced > 0, "{:?}", bench.driver.tally());
    bench.until("all of it", |bench| {
        hear(&mut client, &mut heard);
        bench.send_rest(token);
        heard.len() == all.len()
    });
    assert!(heard == all, "each byte once and in order");
    // What follows goes in one piece again, and without a completion.
    let before = bench.driver.tally().bounced;
    bench.settle();
    bench.send_unawaited(token, b"small");
    bench.wait(QUIET);
    assert!(!bench.of(token).is_sending());
    assert_eq!(bench.driver.tally().bounced, before);
}

pub(super) fn a_receive_that_is_armed_brings_one_piece_after_receiving_is_off<
    D: SocketDriver<Driver = UringDriver>,
>(
    bench: &mut On<D>,
) {
    let (mut client, token) = bench.open();
    let mut expected = Vec::new();
    for round in 0..20 {
        bench.receive(token, true);
        bench.settle();
        bench.receive(token, false);
        // A piece that is not full, and one that is.
        let first = if round % 2 == 0 { 100 + round } else { READ_MAX };
        for size in [first, 2 * READ_MAX] {
            let piece = bytes(size);
            bench.send_from(&mut client, &piece);
            expected.extend_from_slice(&piece);
            bench.settle();
        }
        let waits = expected.len() - bench.of(token).received.len();
        assert_eq!(waits, 2 * READ_MAX, "the piece that was armed comes, and no more");
        bench.receive(token, true);
        bench.promptly("the rest", |bench| bench.of(token).received.len() == expected.len());
        assert!(bench.of(token).received == expected, "each byte once and in order");
    }
    assert_eq!(bench.driver.tally().late, 20, "{:?}", bench.driver.tally());
}

pub(super) fn a_send_that_a_close_overtakes_is_reported_exactly<
    D: SocketDriver<Driver = UringDriver>,
>(
    bench: &mut On<D>,
) {
    for round in 0..20 {
        let (mut client, token) = bench.open();
        bench.clog(token);
        let mut heard = Vec::new();
        // There is room while it is cancelled, so that it may succeed all the same.
        if round % 2 == 0 {
            hear(&mut client, &mut heard);
        }
        bench.close(token, false);
        bench.promptly("the last word", |bench| bench.of(token).closed);
        bench.until("the end, at the peer", |_| hear(&mut client, &mut heard));
        assert_eq!(heard.len(), bench.of(token).sent, "what is told is what was sent");
        assert!(!bench.of(token).is_sending(), "the batch came back");
    }
}

pub(super) fn a_driver_can_be_dropped_with_everything_in_flight<
    D: SocketDriver<Driver = UringDriver>,
>(
    bench: &mut On<D>,
) {
    let mut pairs = bench.open_many(50);
    for (index, (client, token)) in pairs.iter_mut().enumerate() {
        if index % 5 == 0 {
            bench.clog(*token);
        }
        bench.receive(*token, index % 3 > 0);
        assert_eq!(client.send(b"never read"), 10);
    }
    bench.wait(Duration::ZERO);
    let (listener, _) = bench.listen();
    bench.accept(listener, true);
    // These have not been handed over yet.
    for &(_, token) in &pairs {
        if !bench.of(token).is_sending() {
            bench.send_unawaited(token, b"on its way");
        }
    }
    bench.close(pairs[1].1, true);
    bench.driver.submit(Op::Receive { token: pairs[2].1, on: false });
    let clock = bench.driver.clock();
    let before = clock.time();
    bench.driver = D::make(super::OPTIONS).expect("there is one already");
    let took = clock.time() - before;
    assert!(took < PATIENCE / 2, "it took {took:?}");
    for (client, _) in &mut pairs {
        bench.until("the end, at the peer", |_| {
            matches!(client.receive(), Heard::End | Heard::Reset)
        });
    }
}

pub(super) fn a_flood_waits_in_the_kernel<D: SocketDriver<Driver = UringDriver>>(
    bench: &mut On<D>,
) {
    let (mut client, token) = bench.open();
    let all = bytes(100 * READ_MAX);
    let mut sent = 0;
    for round in 0.. {
        sent += client.send(&all[sent..]);
        bench.receive(token, round % 3 > 0);
        bench.wait(QUIET);
        let received = bench.of(token).received.len();
        let in_kernel = bench.driver.unread(token);
        assert_eq!(received + in_kernel, sent, "in round {round}");
        if received == all.len() {
            break;
        }
    }
    assert!(bench.of(token).received == all, "each byte once and in order");
}
