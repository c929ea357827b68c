//! How a connection ends: the last word is really read, and an abort is really a reset.

use std::{
    io::ErrorKind,
    thread,
    time::{Duration, Instant},
};

use nonforker::{Limits, Server, codec::Lines};

use crate::{
    client::hear,
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    probe::Probe,
};

const FRAME_MAX: usize = 1024;

fn start(case: &Case, limits: Limits) -> (Running, std::sync::mpsc::Receiver<String>) {
    let (probe, told) = Probe::new();
    let build = move |server: Server| {
        server.limits(limits).serve_with(ANY, Lines::with_max(FRAME_MAX), probe)
    };
    (case.start(build), told)
}

#[test]
fn the_last_word_is_read_although_the_client_goes_on_sending() {
    on_every_driver(|case| {
        for (last_line, last_word, reason) in [
            ("close\n".to_owned(), "bye", "closed by the handler"),
            ("fail\n".to_owned(), "sorry", "the handler failed: told to"),
            (
                "x".repeat(FRAME_MAX + 1),
                "rejected: frame too long: more than 1024 bytes",
                "frame too long: more than 1024 bytes",
            ),
        ] {
            let (server, told) = start(case, Limits::new());
            let mut client = server.connect();
            let twin = client.twin();
            thread::scope(|scope| {
                scope.spawn(move || {
                    twin.send(last_line);
                    // 10 MiB that nobody wants, and not a moment to read meanwhile.
                    twin.send(vec![b'x'; 10 * 1024 * 1024]);
                    twin.half_close();
                });
                wait_until("much has been sent", || server.stats().received_bytes > 1 << 20);
                let bytes = server.stats().buffered_bytes;
                assert!(bytes <= 256 * 1024, "{bytes} bytes are buffered for nothing");
                assert_eq!(client.rest_text(), format!("{last_word}\n"));
            });
            hear(&told, &format!("closed 0: {reason}"));
        }
    });
}

#[test]
fn a_client_that_is_closed_and_sends_for_ever_is_cut_off() {
    on_every_driver(|case| {
        let (server, _told) = start(case, Limits::new());
        let client = server.connect();
        client.send("close\n");
        let rubbish = vec![b'x'; 1 << 20];
        let sent = (0..200).take_while(|_| client.try_send(&rubbish).is_ok()).count();
        assert!(sent < 100, "{sent} MiB were taken from one who should have gone");
        server.holds(0);
    });
}

#[test]
fn a_client_that_is_closed_and_stays_silent_is_let_go() {
    on_every_driver(|case| {
        let limits = Limits::new().linger_timeout(Duration::from_millis(500));
        let (server, told) = start(case, limits);
        let mut client = server.connect();
        let began = Instant::now();
        assert_eq!(client.ask("close"), "bye");
        assert_eq!(client.rest_text(), "");
        hear(&told, "closed 0: closed by the handler");
        // It waits for us to close, a fifth of the timeout at most while we are silent.
        server.holds(0);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "held for {took:?}");
    });
}

#[test]
fn a_client_that_is_closed_and_trickles_is_let_go_after_the_timeout() {
    on_every_driver(|case| {
        let limits = Limits::new().linger_timeout(Duration::from_millis(500));
        let (server, _told) = start(case, limits);
        let mut client = server.connect();
        assert_eq!(client.ask("close"), "bye");
        wait_until("the server lets go", || {
            let _ = client.try_send(b".");
            server.stats().closed == 1
        });
    });
}

#[test]
fn an_abort_is_a_reset() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new());
        let mut other = server.connect();
        let mut client = server.connect();
        assert_eq!(other.ask("hello"), "hello");
        client.send("hello\nabort\nmore\n");
        client.is_reset();
        hear(&told, "closed 1: aborted by the handler");
        assert_eq!(other.ask("I live"), "I live");
    });
}

#[test]
fn a_reset_of_the_client_is_reported_once() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new());
        // In the middle of a request, after one, and in the middle of a reply.
        for stream in ["half a requ", "whole\n", "big 3000000\nbig 3000000\n"] {
            let client = server.connect();
            let before = server.stats().received_bytes;
            client.send(stream);
            wait_until("it is received", || {
                server.stats().received_bytes == before + stream.len() as u64
            });
            client.reset();
            server.holds(0);
            let closed: Vec<_> =
                told.try_iter().filter(|what| what.starts_with("closed")).collect();
            assert_eq!(closed.len(), 1, "{stream:?}: {closed:?}");
            assert!(closed[0].contains("connection broken"), "{stream:?}: {closed:?}");
        }
    });
}

#[test]
fn both_sides_may_close_at_once() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new());
        for round in 0..200 {
            let mut client = server.connect();
            client.send("close\n");
            match round % 4 {
                0 => drop(client),
                1 => client.reset(),
                2 => {
                    client.half_close();
                    assert_eq!(client.rest_text(), "bye\n");
                }
                _ => {
                    assert_eq!(client.line(), "bye");
                    client.half_close();
                }
            }
        }
        server.settles();
        server.holds(0);
        let told: Vec<_> = told.try_iter().collect();
        let count = |word: &str| told.iter().filter(|what| what.starts_with(word)).count() as u64;
        // Who was reset before it was accepted may not be counted.
        let accepted = server.stats().accepted;
        assert!(accepted >= 150, "{accepted} were accepted");
        assert_eq!((count("open"), count("closed")), (accepted, accepted));
    });
}

#[test]
fn an_oversize_line_is_refused_before_it_is_kept() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new().read_per_turn(4096));
        let client = server.connect();
        let mut most = 0;
        // A byte more than the limit comes in a read of its own.
        client.send(vec![b'x'; FRAME_MAX]);
        server.has_received(FRAME_MAX);
        most = server.stats().buffered_bytes.max(most);
        client.send("x");
        hear(&told, "closed 0: frame too long: more than 1024 bytes");
        for _ in 0..100 {
            match client.try_send(&[b'x'; 65536]) {
                Ok(()) => {}
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                ),
            }
            most = server.stats().buffered_bytes.max(most);
        }
        assert!(most <= 16 * 1024, "{most} bytes were buffered");
    });
}
