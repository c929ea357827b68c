//! No client slows another: whoever asks gets an answer soon, whatever the others do.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nonforker::{Server, codec::Lines};

use crate::{
    client::Client,
    harness::{ANY, Running, on_every_driver, wait_until},
};

/// What a ping may take at most while others flood. It takes well under a millisecond: what
/// this shows is that nobody waits for the end of a flood.
const DELAY_MAX: Duration = Duration::from_secs(1);

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| conn.send(line))
}

/// Floods the server with `flood` from several clients that read all that comes back, and pings
/// it meanwhile. Returns the longest delay.
fn ping_beside(server: &Running, flood: &[u8]) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut reader = server.connect();
            let sender = reader.twin();
            scope.spawn(|| {
                let sender = sender;
                while !over.load(Relaxed) {
                    sender.send(flood);
                }
                sender.half_close();
            });
            scope.spawn(move || while reader.exactly_or_end(1 << 20) {});
        }
        wait_until("they are at it", || server.stats().received_bytes > 4 << 20);
        let mut ping = server.connect();
        let mut longest = Duration::ZERO;
        for number in 0..200 {
            let began = Instant::now();
            let line = format!("ping {number}");
            assert_eq!(ping.ask(&line), line);
            longest = longest.max(began.elapsed());
        }
        let received = server.stats().received_bytes;
        wait_until("the flood still comes", || server.stats().received_bytes > received);
        over.store(true, Relaxed);
        longest
    })
}

#[test]
fn a_ping_is_answered_beside_floods_of_long_lines() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let longest = ping_beside(&server, &[[b'x'; 8191].as_slice(), b"\n"].concat().repeat(64));
        assert!(longest < DELAY_MAX, "a ping took {longest:?}");
    });
}

#[test]
fn a_ping_is_answered_beside_floods_of_empty_lines() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let longest = ping_beside(&server, &[b'\n'; 256 * 1024]);
        assert!(longest < DELAY_MAX, "a ping took {longest:?}");
    });
}

#[test]
fn newcomers_and_timers_are_served_beside_a_flood() {
    on_every_driver(|case| {
        let (probe, _told) = crate::probe::Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut reader = server.connect();
            let sender = reader.twin();
            scope.spawn(|| {
                let sender = sender;
                while !over.load(Relaxed) {
                    sender.send(b"more\n".repeat(20_000));
                }
                sender.half_close();
            });
            scope.spawn(move || while reader.exactly_or_end(1 << 20) {});
            wait_until("it is at it", || server.stats().received_bytes > 4 << 20);
            let began = Instant::now();
            for _ in 0..20 {
                let mut client: Client = server.connect();
                assert_eq!(client.ask("timer 5"), "ok");
                assert_eq!(client.line(), "timer");
            }
            assert!(began.elapsed() < 20 * DELAY_MAX, "{:?}", began.elapsed());
            over.store(true, Relaxed);
        });
    });
}

#[test]
fn a_turn_is_short_however_much_one_client_has_sent() {
    on_every_driver(|case| {
        // The handler takes a while for each line; a turn is one line per client here.
        let server = case.start(|server| {
            let limits = nonforker::Limits::new().frames_per_turn(1);
            server.limits(limits).serve(ANY, Lines::new(), |conn, line| {
                thread::sleep(Duration::from_millis(2));
                conn.send(line);
            })
        });
        let mut busy = server.connect();
        busy.send("x\n".repeat(1000));
        server.has_received(2000);
        let mut ping = server.connect();
        assert_eq!(ping.ask("and I?"), "and I?");
        let frames = server.stats().frames;
        assert!(frames < 900, "{frames} lines of another were handled first");
        assert_eq!(busy.exactly(2000), b"x\n".repeat(1000));
    });
}

/// The kernel may leave a flag of its ring set when it has nothing to report: the driver took it for
/// work to come, and did not see that sends were done.
#[test]
fn long_lines_of_several_clients_at_once_are_all_answered() {
    const LINES: usize = 4000;
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut line = vec![b'x'; 60 * 1024];
        line[60 * 1024 - 1] = b'\n';
        thread::scope(|scope| {
            for _ in 0..3 {
                let (mut client, line) = (server.connect(), &line);
                scope.spawn(move || {
                    // Three are under way all the time.
                    (0..2).for_each(|_| client.send(line));
                    for _ in 0..LINES {
                        client.send(line);
                        client.exactly(line.len());
                    }
                    client.exactly(2 * line.len());
                });
            }
        });
    });
}
