//! A client that does not read costs bounded memory, and the others nothing.

use std::{fs, sync::mpsc::Receiver, thread, time::Duration};

use nonforker::{Limits, Server, codec::Lines};

use crate::{
    client::hear,
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    probe::Probe,
};

/// What a connection may hold: a frame, the high watermark, a reply and a read, with buffers up
/// to twice as large as what is in them.
const HELD_MAX: u64 = 2 * (64 + 64 + 64 + 64) * 1024;

fn start(case: &Case) -> (Running, Receiver<String>) {
    let (probe, told) = Probe::new();
    let build = |server: Server| server.serve_with(ANY, Lines::new(), probe);
    (case.start(build), told)
}

/// Resident bytes of this process.
fn resident() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn a_client_that_never_reads_does_not_slow_32_others() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        let mut greedy = server.connect();
        let lines = b"and I never read what comes back\n".repeat(2000);
        let sent = greedy.stuff(&lines);
        assert!(sent < 64 << 20, "{sent} bytes were taken from one who never reads");
        server.settles();
        let held = server.stats().buffered_bytes;
        assert!(held <= HELD_MAX, "{held} bytes are buffered for one connection");
        server.is_idle();
        thread::scope(|scope| {
            for number in 0..32 {
                let mut client = server.connect();
                scope.spawn(move || {
                    for request in 0..200 {
                        let line = format!("{number} {request}");
                        assert_eq!(client.ask(&line), line);
                    }
                });
            }
        });
        assert!(server.stats().buffered_bytes <= HELD_MAX);
        // And it may still change its mind: every whole line it sent comes back.
        greedy.half_close();
        let echoed = greedy.rest();
        let whole = sent - sent % 33;
        assert!(
            echoed.len() >= whole
                && echoed[..whole] == lines.repeat(sent / lines.len() + 1)[..whole]
        );
    });
}

#[test]
fn sixty_four_clients_that_never_read_hold_bounded_memory() {
    on_every_driver(|case| {
        const CLIENTS: u64 = 64;
        let (server, _told) = start(case);
        let before = resident();
        let clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        let lines = b"0123456789abcdef\n".repeat(4000);
        thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| client.stuff(&lines));
            }
        });
        server.settles();
        let held = server.stats().buffered_bytes;
        assert!(held <= CLIENTS * HELD_MAX, "{held} bytes for {CLIENTS} connections");
        if let (Some(before), Some(after)) = (before, resident()) {
            let grown = after.saturating_sub(before) as u64;
            assert!(grown <= 2 * CLIENTS * HELD_MAX, "the process has grown by {grown} bytes");
        }
        server.is_idle();
        assert_eq!(server.connect().ask("me, please"), "me, please");
    });
}

#[test]
fn a_reply_larger_than_every_mark_is_sent_and_the_next_request_waits() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut client = server.connect();
        client.send("big 8000000\nsmall\n");
        wait_until("the first request is handled", || server.stats().frames > 0);
        server.settles();
        assert_eq!(server.stats().frames, 1, "the second request waits");
        server.is_idle();
        assert_eq!(client.line().len(), 8_000_000);
        assert_eq!(client.line(), "small");
        hear(&told, "relieved 0");
    });
}

#[test]
fn what_was_held_goes_on_by_itself_when_the_client_reads() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        // No new byte comes from the client once it reads, only room for output.
        let mut client = server.connect();
        let stream = "big 50000\n".repeat(400);
        client.send(&stream);
        server.settles();
        assert!(server.stats().frames < 400, "held at {}", server.stats().frames);
        for _ in 0..400 {
            assert_eq!(client.line().len(), 50_000);
        }
    });
}

#[test]
fn small_marks_hold_too() {
    on_every_driver(|case| {
        let (probe, _told) = Probe::new();
        let server = case.start(|server| {
            let limits = Limits::new().high_watermark(1).low_watermark(0).read_per_turn(7);
            server.limits(limits.frames_per_turn(1)).serve_with(ANY, Lines::new(), probe)
        });
        let stream: String = (0..2000).map(|number| format!("request {number}\n")).collect();
        let mut client = server.connect();
        assert!(client.exchange(stream.as_bytes()) == stream.as_bytes());
    });
}

#[test]
fn a_client_that_reads_slowly_gets_everything_in_order() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        let mut client = server.connect();
        let stream: String = (0..60_000).map(|number| format!("{number:>40}\n")).collect();
        let twin = client.twin();
        thread::scope(|scope| {
            scope.spawn(|| {
                twin.send(&stream);
                twin.half_close();
            });
            let mut at = 0;
            while at < stream.len() {
                let part = client.exactly(100_000.min(stream.len() - at));
                assert!(part == stream.as_bytes()[at..at + part.len()], "at {at}");
                at += part.len();
                thread::sleep(Duration::from_millis(3));
            }
            assert_eq!(client.rest(), b"");
        });
    });
}

#[test]
fn a_client_that_is_held_and_resets_is_noticed() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let client = server.connect();
        client.send("big 8000000\n");
        server.settles();
        client.reset();
        wait_until("it is noticed", || {
            told.try_iter().any(|what| what.starts_with("closed 0: connection broken"))
        });
    });
}
