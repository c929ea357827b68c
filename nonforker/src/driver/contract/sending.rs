//! Cases: batches that leave, and come back.

use super::{
    Client, Heard, READ_MAX, Rig,
    bench::{Bench, QUIET},
    receiving::bytes,
};
use crate::driver::{Driver, Op};

/// Takes in what has arrived at a peer. Returns whether the stream has ended.
pub(super) fn hear(client: &mut impl Client, heard: &mut Vec<u8>) -> bool {
    loop {
        match client.receive() {
            Heard::Nothing => return false,
            Heard::Bytes(bytes) => heard.extend_from_slice(&bytes),
            Heard::End => return true,
            Heard::Reset => panic!("the connection broke"),
        }
    }
}

pub(super) fn a_buffer_comes_back_when_it_is_sent<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let mut heard = Vec::new();
    let mut expected = Vec::new();
    for size in [1, 10, READ_MAX, 10 * READ_MAX] {
        bench.send(token, &bytes(size));
        expected.extend_from_slice(&bytes(size));
        bench.until("the batch", |bench| !bench.of(token).is_sending());
        assert!(bench.of(token).rest.is_none(), "a small batch is sent in one go: {size} bytes");
        assert_eq!(bench.of(token).sent, expected.len());
        bench.until("the bytes", |_| {
            hear(&mut client, &mut heard);
            heard.len() == expected.len()
        });
        bench.settle();
    }
    assert!(heard == expected);
}

pub(super) fn a_peer_that_reads_late_gets_everything_exactly<R: Rig>(bench: &mut Bench<R>) {
    const SIZE: usize = 12 << 20;
    let (mut client, token) = bench.open();
    let all = bytes(SIZE);
    bench.send(token, &all);
    bench.settle();
    while bench.send_rest(token) {
        bench.settle();
    }
    let stuck = bench.of(token).sent;
    assert!(
        bench.of(token).is_sending() && stuck < SIZE,
        "a peer that does not read takes {stuck}"
    );
    assert!(stuck > 0, "the kernel takes some");

    let mut heard = Vec::new();
    let mut parts = 0;
    bench.until("everything to be sent", |bench| {
        hear(&mut client, &mut heard);
        parts += usize::from(bench.send_rest(token));
        bench.of(token).sent == SIZE
    });
    assert!(parts > 0, "the rest came back and was sent again");
    bench.until("everything to arrive", |_| {
        hear(&mut client, &mut heard);
        heard.len() >= SIZE
    });
    assert!(heard == all, "each byte once and in order");
    bench.settle();
}

pub(super) fn connections_send_and_receive_at_the_same_time<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    bench.clog(token);
    bench.receive(token, true);
    bench.send_from(&mut client, &bytes(3 * READ_MAX));
    bench.until("what the clogged one sends", |bench| {
        bench.of(token).received.len() == 3 * READ_MAX
    });
    assert!(bench.of(token).received == bytes(3 * READ_MAX));
    assert!(bench.of(token).is_sending(), "it is clogged still");

    let (mut other, beside) = bench.open();
    bench.send(beside, b"unaffected");
    bench.until("the other's bytes", |_| other.receive() == Heard::Bytes(b"unaffected".to_vec()));

    let mut heard = Vec::new();
    bench.until("the clog to dissolve", |bench| {
        hear(&mut client, &mut heard);
        bench.send_rest(token);
        !bench.of(token).is_sending()
    });
}

pub(super) fn sending_to_a_peer_that_has_gone_fails<R: Rig>(bench: &mut Bench<R>) {
    for receiving in [false, true] {
        for close_is_orderly in [false, true] {
            let (client, token) = bench.open();
            bench.receive(token, receiving);
            if close_is_orderly {
                client.close();
            } else {
                client.reset();
            }
            // The first one may still leave, only to be answered with a reset.
            for _ in 0..3 {
                if !bench.of(token).failed && !bench.of(token).send_failed {
                    bench.send(token, b"anybody there?");
                }
                bench.settle();
            }
            let track = bench.of(token);
            assert!(track.failed || track.send_failed, "receiving {receiving}, {close_is_orderly}");
            assert!(!track.is_sending(), "the batch came back");
            bench.close(token, false);
            bench.until("the last word", |bench| bench.of(token).closed);
        }
    }
}

pub(super) fn a_reset_gives_back_what_was_in_flight<R: Rig>(bench: &mut Bench<R>) {
    for receiving in [false, true] {
        let (client, token) = bench.open();
        bench.receive(token, receiving);
        bench.clog(token);
        client.reset();
        bench.until("bad news", |bench| bench.of(token).failed || bench.of(token).send_failed);
        bench.settle();
        bench.close(token, false);
        bench.until("the last word", |bench| bench.of(token).closed);
        // The bench has seen to it that it came back once.
        assert!(!bench.of(token).is_sending());
        bench.settle();
    }
}

pub(super) fn after_shutting_down_we_still_receive<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let goodbye = bytes(5 * READ_MAX);
    bench.send(token, &goodbye);
    bench.until("the batch", |bench| !bench.of(token).is_sending());
    bench.driver.submit(Op::ShutdownWrite { token });
    let mut heard = Vec::new();
    bench.until("the end, at the peer", |_| hear(&mut client, &mut heard));
    assert!(heard == goodbye, "{} bytes before the end", heard.len());

    bench.receive(token, true);
    bench.send_from(&mut client, b"one more thing");
    bench.until("one more thing", |bench| bench.of(token).received == b"one more thing");
    client.shutdown_write();
    bench.until("the end", |bench| bench.of(token).ended);
    assert!(!bench.of(token).failed, "both have finished in order");
    bench.settle();
}

pub(super) fn what_is_not_awaited_is_reported_when_a_wait_ends<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    bench.settle();
    let mut heard = Vec::new();
    for round in 1..=5 {
        bench.send_unawaited(token, b"reply");
        bench.wait(QUIET);
        assert!(!bench.of(token).is_sending(), "one wait is enough");
        assert_eq!(bench.of(token).sent, 5 * round);
        bench.until("the reply", |_| {
            hear(&mut client, &mut heard);
            heard.len() == 5 * round
        });
    }
    // What does not go in one piece is told of like any other.
    let flood = bytes(4 << 20);
    bench.send_unawaited(token, &flood);
    bench.until("a part of it", |bench| !bench.of(token).is_sending());
    heard.clear();
    bench.until("all of it", |bench| {
        hear(&mut client, &mut heard);
        bench.send_rest(token);
        heard.len() == flood.len()
    });
    assert!(heard == flood);
    // A close awaits it.
    bench.settle();
    bench.send_unawaited(token, b"bye");
    bench.close(token, false);
    bench.promptly("the last word", |bench| bench.of(token).closed);
}
