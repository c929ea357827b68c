//! Cases: how connections end, from this side and from the other.

use super::{
    Client, Heard, READ_MAX, Rig, Transport,
    bench::{Bench, QUIET},
    receiving::bytes,
    sending::hear,
};
use crate::driver::{Driver, Op};

pub(super) fn what_was_sent_before_a_close_arrives<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let goodbye = bytes(3 * READ_MAX);
    bench.send(token, &goodbye);
    bench.until("the batch", |bench| !bench.of(token).is_sending());
    bench.close(token, false);
    bench.promptly("the last word", |bench| bench.of(token).closed);
    assert_eq!(bench.of(token).unsent, None);
    let mut heard = Vec::new();
    bench.until("the end, at the peer", |_| hear(&mut client, &mut heard));
    assert!(heard == goodbye, "{} bytes before the end", heard.len());

    // In one go: it is sent or comes back, as a whole.
    let (mut client, token) = bench.open();
    bench.send(token, b"bye");
    bench.close(token, false);
    bench.promptly("the last word", |bench| bench.of(token).closed);
    let mut heard = Vec::new();
    bench.until("the end, at the peer", |_| hear(&mut client, &mut heard));
    assert_eq!(heard.len(), bench.of(token).sent);
    assert_eq!(heard.len() + bench.of(token).unsent.unwrap_or(0), 3);
}

pub(super) fn a_close_gives_back_what_was_in_flight<R: Rig>(bench: &mut Bench<R>) {
    for reset in [false, true] {
        let (mut client, token) = bench.open();
        bench.receive(token, true);
        bench.clog(token);
        bench.send_from(&mut client, b"too late");
        bench.close(token, reset);
        bench.promptly("the last word", |bench| bench.of(token).closed);
        assert!(bench.of(token).unsent.is_some_and(|unsent| unsent > 0), "with a reset: {reset}");
        drop(client);
        // The bench sees to it that nothing follows.
        bench.settle();
    }
}

pub(super) fn a_close_with_a_reset_is_seen_as_one<R: Rig>(bench: &mut Bench<R>) {
    if bench.transport == Transport::Unix {
        // There is no such thing.
        return;
    }
    let (mut client, token) = bench.open();
    bench.send(token, b"lost, perhaps");
    bench.until("the batch", |bench| !bench.of(token).is_sending());
    bench.close(token, true);
    let mut heard = Heard::Nothing;
    bench.until("the end, at the peer", |_| {
        heard = client.receive();
        matches!(heard, Heard::End | Heard::Reset)
    });
    assert_eq!(heard, Heard::Reset);
}

pub(super) fn a_close_discards_what_was_ready<R: Rig>(bench: &mut Bench<R>) {
    let mut pairs = bench.open_many(10);
    for (client, token) in &mut pairs {
        bench.receive(*token, true);
        bench.send_from(client, &bytes(3 * READ_MAX));
    }
    // All have had one turn and have more: the driver has them on its mind.
    bench.wait(QUIET);
    for &(_, token) in &pairs {
        bench.close(token, false);
    }
    bench
        .promptly("the last words", |bench| pairs.iter().all(|&(_, token)| bench.of(token).closed));
    bench.settle();
}

pub(super) fn a_reset_while_receiving_is_reported_once<R: Rig>(bench: &mut Bench<R>) {
    if bench.transport == Transport::Unix {
        return;
    }
    for size in [0, 1, 3 * READ_MAX] {
        let (mut client, token) = bench.open();
        bench.receive(token, true);
        bench.settle();
        bench.send_from(&mut client, &bytes(size));
        client.reset();
        bench.until("the reset", |bench| bench.of(token).failed);
        let track = bench.of(token);
        assert!(!track.ended, "a reset is not an end");
        assert!(bytes(size).starts_with(&track.received), "what came before it, if anything");
        // This was on its way when we heard of it. It makes an edge, and that is no news.
        bench.driver.submit(Op::ShutdownWrite { token });
        bench.settle();
        bench.close(token, false);
        bench.until("the last word", |bench| bench.of(token).closed);
    }
}

pub(super) fn a_reset_is_reported_though_nothing_is_asked_for<R: Rig>(bench: &mut Bench<R>) {
    if bench.transport == Transport::Unix {
        return;
    }
    for (size, finishes) in [(0, false), (READ_MAX, false), (0, true), (READ_MAX, true)] {
        let (mut client, token) = bench.open();
        bench.send_from(&mut client, &bytes(size));
        bench.settle();
        if finishes {
            client.shutdown_write();
            bench.settle();
        }
        client.reset();
        bench.until("the reset", |bench| bench.of(token).failed);
        bench.settle();
        bench.driver.submit(Op::ShutdownWrite { token });
        bench.settle();
    }
}

pub(super) fn a_reset_behind_the_end_is_reported<R: Rig>(bench: &mut Bench<R>) {
    if bench.transport == Transport::Unix {
        return;
    }
    for (waits, sleeps) in [(true, true), (true, false), (false, false)] {
        let (mut client, token) = bench.open();
        bench.receive(token, true);
        bench.send_from(&mut client, b"request");
        client.shutdown_write();
        if waits {
            bench.until("the end", |bench| bench.of(token).ended);
        }
        if sleeps {
            bench.settle();
        }
        client.reset();
        bench.until("the reset", |bench| bench.of(token).failed);
        bench.settle();
        assert!(bench.of(token).ended, "the end came first, waited for {waits}, slept {sleeps}");
        assert_eq!(bench.of(token).received, b"request");
    }
}

pub(super) fn a_slot_in_use_again_hears_nothing_of_its_former_owner<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    bench.accept(listener, true);
    let mut former = None;
    for number in 0..50_u8 {
        let mut client = bench.rig.connect(&address).expect("somebody listens");
        let token = bench.adopt();
        if let Some(former) = former {
            assert_ne!(token, former);
        }
        bench.receive(token, true);
        bench.settle();
        assert_eq!(bench.of(token).received, b"", "it has sent nothing yet");
        assert!(!bench.of(token).ended && !bench.of(token).failed);
        // Everything is about to be reported when it is closed.
        bench.send_from(&mut client, &[number; 10 * READ_MAX]);
        if number % 2 == 0 {
            bench.until("its bytes", |bench| !bench.of(token).received.is_empty());
        }
        client.reset();
        bench.close(token, false);
        bench.promptly("the last word", |bench| bench.of(token).closed);
        assert!(bench.of(token).received.iter().all(|&byte| byte == number));
        former = Some(token);
    }
}

pub(super) fn five_hundred_peers_leave_at_once<R: Rig>(bench: &mut Bench<R>) {
    let pairs = bench.open_many(500);
    let (mut clients, tokens): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    for (client, &token) in clients.iter_mut().zip(&tokens) {
        bench.receive(token, true);
        assert_eq!(client.send(b"bye"), 3);
    }
    clients.into_iter().for_each(Client::close);
    bench.promptly("the ends", |bench| tokens.iter().all(|&token| bench.of(token).ended));
    for token in tokens {
        assert_eq!(bench.of(token).received, b"bye");
        bench.close(token, false);
    }
    bench.settle();
}

pub(super) fn five_hundred_connections_close_at_once<R: Rig>(bench: &mut Bench<R>) {
    let mut pairs = bench.open_many(500);
    for &(_, token) in &pairs {
        bench.receive(token, true);
        bench.close(token, false);
    }
    bench
        .promptly("the last words", |bench| pairs.iter().all(|&(_, token)| bench.of(token).closed));
    bench.until("the ends, at the peers", |_| {
        pairs.iter_mut().all(|(client, _)| client.receive() == Heard::End)
    });
    bench.settle();
}
