//! Cases: bytes, ends and urgent bytes that arrive.

use std::iter;

use super::{
    Client, READ_MAX, Rig,
    bench::{Bench, QUIET},
};
use crate::{driver::Next, sim::Rng};

/// `count` bytes of which no stretch looks like another.
pub(super) fn bytes(count: usize) -> Vec<u8> {
    let rng = Rng::new(0);
    iter::repeat_with(|| rng.next().to_le_bytes()).flatten().take(count).collect()
}

pub(super) fn bytes_arrive_in_order_however_they_are_cut<R: Rig>(bench: &mut Bench<R>) {
    let all = bytes(20 * READ_MAX);
    for piece in [1, 7, READ_MAX - 1, READ_MAX, READ_MAX + 1, 3 * READ_MAX] {
        let (mut client, token) = bench.open();
        bench.receive(token, true);
        let stream = &all[..(20 * piece).min(all.len())];
        for (number, piece) in stream.chunks(piece).enumerate() {
            bench.send_from(&mut client, piece);
            // Some pieces come alone, others together.
            if number % 3 == 0 {
                bench.wait(QUIET);
            }
        }
        bench.until("all bytes", |bench| bench.of(token).received.len() >= stream.len());
        assert!(bench.of(token).received == stream, "in pieces of {piece}");
        bench.settle();
    }
}

pub(super) fn whoever_has_more_comes_again_without_an_edge<R: Rig>(bench: &mut Bench<R>) {
    for (size, turns) in [(READ_MAX, 1), (READ_MAX + 1, 2), (5 * READ_MAX, 5)] {
        let (mut client, token) = bench.open();
        bench.send_from(&mut client, &bytes(size));
        bench.settle();
        bench.receive(token, true);
        let mut waits = 0;
        bench.promptly("the rest", |bench| {
            waits += 1;
            bench.of(token).received.len() == size
        });
        // The first look was before the first wait.
        assert_eq!(waits - 1, turns, "for {size} bytes");
        bench.settle();
    }
}

pub(super) fn two_floods_take_turns<R: Rig>(bench: &mut Bench<R>) {
    let size = 40 * READ_MAX;
    let mut pairs = bench.open_many(2);
    for (client, token) in &mut pairs {
        bench.send_from(client, &bytes(size));
        bench.receive(*token, true);
    }
    let tokens = [pairs[0].1, pairs[1].1];
    bench.promptly("the floods", |bench| {
        let [one, other] = tokens.map(|token| bench.of(token).received.len());
        assert!(one.abs_diff(other) <= READ_MAX, "{one} and {other} bytes: one is ahead");
        one == size && other == size
    });
}

/// With a sink that has enough after each report, so that it shows who comes first.
pub(super) fn whoever_floods_comes_after_whoever_has_just_sent<R: Rig>(bench: &mut Bench<R>) {
    let (mut flooding, flood) = bench.open_without_urgent();
    let (mut asking, other) = bench.open_without_urgent();
    for token in [flood, other] {
        bench.receive(token, true);
    }
    bench.settle();
    let size = 12 * READ_MAX;
    bench.send_from(&mut flooding, &bytes(size));
    bench.until("the flood", |bench| !bench.of(flood).received.is_empty());
    for word in 1..=4 {
        // What was fetched before comes first.
        bench.wait_wanting(QUIET, Next::Enough);
        let before = bench.of(flood).received.len();
        bench.send_from(&mut asking, b"!");
        for _ in 0..3 {
            bench.wait_wanting(QUIET, Next::Enough);
            if bench.of(other).received.len() == word {
                break;
            }
        }
        assert_eq!(bench.of(other).received.len(), word, "it waits for the flood");
        let after = bench.of(flood).received.len();
        assert_eq!(after - before, 0, "bytes of the flood came first");
    }
    bench.promptly("the flood", |bench| bench.of(flood).received.len() == size);
}

pub(super) fn what_was_sent_before_adoption_arrives<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    let mut client = bench.rig.connect(&address).expect("somebody listens");
    bench.send_from(&mut client, b"early");
    client.shutdown_write();
    bench.accept(listener, true);
    let token = bench.adopt();
    bench.settle();
    bench.receive(token, true);
    bench.promptly("what came early", |bench| bench.of(token).ended);
    assert_eq!(bench.of(token).received, b"early");
}

pub(super) fn nothing_is_lost_while_receiving_is_off<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let mut expected = Vec::new();
    for word in ["before", "once", "twice"] {
        bench.send_from(&mut client, word.as_bytes());
        // The bench sees to it that one piece comes now at most.
        bench.settle();
        bench.receive(token, true);
        expected.extend_from_slice(word.as_bytes());
        bench.promptly("what came meanwhile", |bench| bench.of(token).received == expected);
        bench.receive(token, false);
        bench.settle();
    }
    // Off and on again, without a wait between.
    let last = bytes(3 * READ_MAX);
    bench.send_from(&mut client, &last);
    bench.receive(token, true);
    bench.receive(token, false);
    bench.settle();
    bench.receive(token, true);
    bench.receive(token, false);
    bench.receive(token, true);
    expected.extend_from_slice(&last);
    bench.promptly("the last word", |bench| bench.of(token).received == expected);
}

pub(super) fn receiving_stops_in_the_middle_of_a_flood<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let flood = bytes(10 * READ_MAX);
    bench.send_from(&mut client, &flood);
    while bench.of(token).received.len() < flood.len() {
        let before = bench.of(token).received.len();
        bench.receive(token, true);
        bench.promptly("more", |bench| bench.of(token).received.len() > before);
        bench.receive(token, false);
        bench.settle();
    }
    assert!(bench.of(token).received == flood);
}

pub(super) fn the_end_comes_once_and_behind_all_data<R: Rig>(bench: &mut Bench<R>) {
    for size in [0, 1, READ_MAX - 1, READ_MAX, READ_MAX + 1, 7 * READ_MAX] {
        for early in [true, false] {
            let (mut client, token) = bench.open();
            bench.receive(token, early);
            bench.settle();
            bench.send_from(&mut client, &bytes(size));
            client.shutdown_write();
            bench.receive(token, true);
            bench.until("the end", |bench| bench.of(token).ended);
            assert!(bench.of(token).received == bytes(size), "{size} bytes");
            bench.settle();
        }
    }
}

pub(super) fn an_end_while_receiving_is_off_is_not_lost<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    bench.receive(token, true);
    bench.send_from(&mut client, b"all there is");
    bench.until("the bytes", |bench| bench.of(token).received.len() == 12);
    bench.receive(token, false);
    bench.settle();
    client.shutdown_write();
    bench.settle();
    bench.receive(token, true);
    bench.promptly("the end", |bench| bench.of(token).ended);

    // It closes altogether, which is more than to finish.
    let (client, token) = bench.open();
    client.close();
    bench.settle();
    bench.receive(token, true);
    bench.promptly("the end", |bench| bench.of(token).ended);
}

pub(super) fn an_urgent_byte_comes_beside_the_stream<R: Rig>(bench: &mut Bench<R>) {
    if !R::URGENT || !bench.rig.has_urgent() {
        return;
    }
    for (before, behind) in [("", ""), ("before", ""), ("", "behind"), ("before", "behind")] {
        for waits in [true, false] {
            let (mut client, token) = bench.open();
            bench.receive(token, true);
            bench.settle();
            bench.send_from(&mut client, before.as_bytes());
            assert!(client.send_urgent(b'!'));
            if waits {
                bench.wait(QUIET);
            }
            bench.send_from(&mut client, behind.as_bytes());
            let stream = [before, behind].concat();
            bench.until("the stream", |bench| bench.of(token).received == stream.as_bytes());
            bench.until("the urgent byte", |bench| bench.of(token).urgent == b"!");
            bench.send_from(&mut client, b"later");
            let stream = [before, behind, "later"].concat();
            bench.until("the rest", |bench| bench.of(token).received == stream.as_bytes());
            bench.settle();
            client.shutdown_write();
            bench.until("the end", |bench| bench.of(token).ended);
            assert_eq!(bench.of(token).urgent, b"!", "it comes once");
        }
    }
}

pub(super) fn an_urgent_byte_arrives_while_receiving_is_off<R: Rig>(bench: &mut Bench<R>) {
    if !R::URGENT || !bench.rig.has_urgent() {
        return;
    }
    let (mut client, token) = bench.open();
    bench.send_from(&mut client, b"before");
    assert!(client.send_urgent(b'!'));
    bench.send_from(&mut client, b"behind");
    bench.until("the urgent byte", |bench| bench.of(token).urgent == b"!");
    bench.settle();
    bench.receive(token, true);
    bench.promptly("the stream", |bench| bench.of(token).received == b"beforebehind");
    bench.settle();
}

pub(super) fn a_storm_of_urgent_bytes_passes<R: Rig>(bench: &mut Bench<R>) {
    if !R::URGENT || !bench.rig.has_urgent() {
        return;
    }
    for receiving in [true, false] {
        let (mut client, token) = bench.open();
        bench.receive(token, receiving);
        bench.settle();
        let mut taken = 0;
        for number in 0..1000 {
            taken += usize::from(client.send_urgent(b'?'));
            if number % 10 == 0 {
                bench.wait(QUIET);
            }
        }
        // TCP keeps only the newest urgent byte, and loses it if a read meets it first. But no
        // byte comes twice, and in the end the driver sleeps.
        bench.settle();
        let count = bench.of(token).urgent.len();
        assert!((1..=taken).contains(&count), "{count} of {taken} urgent bytes");
        bench.receive(token, true);
        bench.settle();
        assert!(client.send_urgent(b'!'));
        bench.until("one more", |bench| bench.of(token).urgent.last() == Some(&b'!'));
        client.shutdown_write();
        bench.until("the end", |bench| bench.of(token).ended);
    }
}

pub(super) fn urgent_bytes_nobody_wants_leave_the_stream_alone<R: Rig>(bench: &mut Bench<R>) {
    if !bench.rig.has_urgent() {
        return;
    }
    for receiving in [true, false] {
        let (mut client, token) = bench.open_without_urgent();
        bench.receive(token, receiving);
        bench.settle();
        for round in 0..10 {
            bench.send_from(&mut client, b"before ");
            assert!(client.send_urgent(b'!'));
            if round % 2 == 0 {
                bench.settle();
            }
            bench.send_from(&mut client, b"behind ");
            bench.settle();
            bench.receive(token, true);
            let stream = b"before behind ".repeat(round + 1);
            bench.until("the stream", |bench| bench.of(token).received.len() >= stream.len());
            assert!(bench.of(token).received == stream, "without the urgent byte");
            bench.receive(token, receiving);
        }
        client.shutdown_write();
        bench.receive(token, true);
        bench.until("the end", |bench| bench.of(token).ended);
    }
}
