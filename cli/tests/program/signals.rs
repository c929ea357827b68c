//! Signals: the first drains, the second ends, the others do no harm.

use std::{
    io::{Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal::{self, SIGINT, SIGTERM};

use crate::support::{PROGRAM, Scratch, Server, command, connect_unix, is_there, via};

#[test]
fn a_drain_answers_what_has_arrived() {
    for signal in [SIGTERM, SIGINT] {
        let mut server = Server::start("");
        let lines: String = (0..5000).map(|line| format!("line {line}\n")).collect();
        let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for stream in &mut streams {
            stream.write_all(lines.as_bytes()).unwrap();
            stream.write_all(b"half a li").unwrap();
        }
        server.process.signal(signal);
        for mut stream in streams {
            let mut replies = String::new();
            stream.read_to_string(&mut replies).unwrap();
            assert_eq!(replies, lines, "{signal}");
        }
        assert_eq!(server.status(), 0, "{signal}");
        for part in [signal.as_str(), "draining", "ended", "requests=40000"] {
            assert!(server.log().contains(part), "no {part}: {}", server.log());
        }
    }
}

/// Whose write has taken so long is stuck, on a busy machine too.
const STUCK: Duration = Duration::from_secs(1);

/// A server that cannot drain: its client takes nothing, and it has all the time in the world.
fn undrainable() -> (Server, std::net::TcpStream) {
    let server = Server::start("--drain-timeout off --write-timeout off");
    let mut stream = server.connect();
    // Until the replies fill every buffer there is, and the requests too.
    stream.set_write_timeout(Some(STUCK)).unwrap();
    let line = [b"x".repeat(60_000).as_slice(), b"\n"].concat();
    while stream.write_all(&line).is_ok() {}
    (server, stream)
}

#[test]
fn a_second_signal_ends_it_now() {
    for second in [SIGTERM, SIGINT] {
        let (mut server, _stream) = undrainable();
        server.process.signal(SIGTERM);
        server.await_log("draining");
        thread::sleep(Duration::from_millis(300));
        assert!(server.process.0.try_wait().unwrap().is_none(), "it waits for its client");
        server.process.signal(second);
        assert_eq!(server.status(), 1);
        assert!(server.log().contains("ending at once"), "{}", server.log());
        assert!(server.log().contains(CUT_OFF_ONE), "{}", server.log());
    }
}

/// The line that says how many clients were cut off.
const CUT_OFF_ONE: &str =
    "nonforker: connections cut off with a request unhandled or bytes unsent: 1\n";

#[test]
fn a_drain_that_takes_too_long_cuts_off_and_says_how_many() {
    let scratch = Scratch::new();
    for (flags, lines) in [("", 2), ("--quiet", 1), ("--log off", 1)] {
        let path = scratch.path("x.sock");
        let flags_and_more =
            format!("--listen unix:{} --drain-timeout 100ms {flags}", path.display());
        // It does not say where it listens if it is to be quiet.
        let mut server = Server::from(&mut command(&flags_and_more), 0);
        let mut stream = connect_unix(&path);
        // Neither of them is cut off: one has been answered, the other has not asked.
        let (mut idle, mut half) = (connect_unix(&path), connect_unix(&path));
        idle.write_all(b"hello\n").unwrap();
        idle.read_exact(&mut [0; 6]).unwrap();
        half.write_all(b"half a requ").unwrap();
        stream.set_write_timeout(Some(STUCK)).unwrap();
        let line = [b"x".repeat(60_000).as_slice(), b"\n"].concat();
        while stream.write_all(&line).is_ok() {}
        server.process.signal(SIGTERM);
        assert_eq!(server.status(), 1);
        let log = server.log();
        assert!(log.ends_with(CUT_OFF_ONE), "{log}");
        let said = log.lines().filter(|line| line.contains("cut")).count();
        assert_eq!(said, lines, "{flags}: {log}");
        assert_eq!(log.contains("the drain took too long"), flags.is_empty(), "{log}");
    }
}

#[test]
fn signals_that_do_nothing_do_nothing_two_hundred_times_either() {
    use Signal::{SIGCHLD, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGWINCH, SIGXFSZ};
    let server = Server::start("");
    let mut stream = server.connect();
    for signal in [SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD, SIGPIPE, SIGXFSZ] {
        for _ in 0..200 {
            server.process.signal(signal);
        }
        stream.write_all(b"hello\n").unwrap();
        let mut reply = [0; 6];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"hello\n", "{signal}");
    }
    drop(stream);
    server.assert_answers();
    let log = server.end();
    assert!(log.contains("SIGHUP: nothing to do"), "{log}");
    assert!(!log.contains("SIGXFSZ"), "a full log would be written for ever: {log}");
}

#[test]
fn what_a_parent_blocked_or_ignored_is_obeyed() {
    if !is_there("perl") {
        return;
    }
    let set_up = "use POSIX; $SIG{INT} = $SIG{TERM} = 'IGNORE'; \
        POSIX::sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGINT, SIGTERM, SIGHUP)); exec @ARGV";
    for signal in [SIGTERM, SIGINT] {
        let perl = ["perl", "-e", set_up];
        let mut through_perl = via(&perl, Path::new(PROGRAM), "--listen 127.0.0.1:0");
        let mut server = Server::from(&mut through_perl, 1);
        server.process.signal(Signal::SIGHUP);
        server.assert_answers();
        server.process.signal(signal);
        assert_eq!(server.status(), 0, "{signal}");
    }
}
