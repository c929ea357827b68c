//! Signals: the first drains, the second ends, the others do no harm.

use std::{
    io::{Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal::{self, SIGINT, SIGTERM};

use crate::support::{PROGRAM, Server, is_there, via};

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
    }
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off() {
    let server = Server::start("--drain-timeout 100ms");
    let mut stream = server.connect();
    stream.set_write_timeout(Some(STUCK)).unwrap();
    let line = [b"x".repeat(60_000).as_slice(), b"\n"].concat();
    while stream.write_all(&line).is_ok() {}
    assert!(server.end().contains("the drain took too long"));
}

#[test]
fn other_signals_do_no_harm() {
    use Signal::{SIGCHLD, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGWINCH};
    let server = Server::start("");
    let mut stream = server.connect();
    for signal in [SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD, SIGPIPE] {
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
    assert!(server.end().contains("SIGHUP: nothing to do"));
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
        let mut command = via(&perl, Path::new(PROGRAM), "--listen 127.0.0.1:0");
        let mut server = Server::from(&mut command, 1);
        server.process.signal(Signal::SIGHUP);
        server.assert_answers();
        server.process.signal(signal);
        assert_eq!(server.status(), 0, "{signal}");
    }
}
