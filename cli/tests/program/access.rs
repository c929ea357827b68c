//! Who may come in, by flags and by a file that is read again.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Scratch, Server, command, until};

/// What a client gets that says hello, whether or not it is let in.
fn hello(server: &Server) -> Vec<u8> {
    let mut stream = server.connect();
    // One that is not let in may be gone already.
    let _ = stream.write_all(b"hello\n");
    let _ = stream.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

#[test]
fn flags_say_who_may_come_in_and_for_how_long() {
    for shards in [1, 2] {
        for (flags, expected) in [
            ("--allow 127.0.0.0/8", "hello\n"),
            ("--allow 192.0.2.0/24", ""),
            ("--deny ::1 --deny 127.0.0.1", ""),
            ("--allow 127.0.0.1 --deny 127.0.0.0/8 --refuse-with busy", ""),
        ] {
            let server = Server::start(&format!("--shards {shards} {flags}"));
            assert_eq!(String::from_utf8_lossy(&hello(&server)), expected, "{flags}");
            if expected.is_empty() {
                server.await_log("its network may not connect: refused");
            }
            server.end();
        }
        let server = Server::start(&format!(
            "--shards {shards} --max-connections-per-net 1 --net-prefix 8,64 --refuse-with busy\\r\\n"
        ));
        let mut first = server.connect();
        first.write_all(b"hello\n").unwrap();
        let mut reply = [0; 6];
        first.read_exact(&mut reply).unwrap();
        assert_eq!(hello(&server), b"busy\r\n");
        drop(first);
        until("there is room again", || hello(&server) == b"hello\n");
        server.end();

        let server = Server::start(&format!("--shards {shards} --accept-rate 2/s"));
        let answered = (0..5).filter(|_| hello(&server) == b"hello\n").count();
        assert!((2..=3).contains(&answered), "{answered}");
        server.end();

        let server = Server::start(&format!("--shards {shards} --max-age 300ms"));
        let (began, mut client) = (Instant::now(), server.connect());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(300));
        server.end();

        let server = Server::start(&format!("--shards {shards} --drain-spread 400ms"));
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write_all(b"hello\n").unwrap();
            client.read_exact(&mut reply).unwrap();
        }
        let began = Instant::now();
        server.end();
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    }
}

#[test]
fn sighup_reads_the_lists_again_and_a_broken_file_changes_nothing() {
    let scratch = Scratch::new();
    let file = scratch.write("settings.toml", "listen = \"127.0.0.1:0\"\n");
    let server = Server::from(&mut command(&format!("--config {}", file.display())), 1);
    let is_in = |server: &Server| hello(server) == b"hello\n";
    assert!(is_in(&server));
    let hup = |text: &str| {
        fs::write(&file, text).unwrap();
        server.process.signal(Signal::SIGHUP);
    };
    hup("listen = \"127.0.0.1:0\"\ndeny = [\"127.0.0.0/8\"]\n");
    until("the list holds", || !is_in(&server));
    server.await_log("who may connect is read again");
    for (broken, what) in [
        ("deny = \"localhost\"\n", "deny: bad network"),
        ("deny = [\n", "settings.toml: line 1"),
        ("denied = \"::1\"\n", "unknown key"),
    ] {
        hup(broken);
        server.await_log(what);
        assert!(!is_in(&server), "the old list holds");
    }
    assert_eq!(server.log().matches("SIGHUP: nothing changes: ").count(), 3);
    fs::remove_file(&file).unwrap();
    server.process.signal(Signal::SIGHUP);
    server.await_log("cannot read it");
    assert!(!is_in(&server));
    hup("allow = [\"127.0.0.1\", \"::1\"]\n");
    until("it is let in again", || is_in(&server));
    server.end();

    // What a flag says stays.
    let file = scratch.write("flags.toml", "deny = \"192.0.2.1\"\n");
    let line = format!("--listen 127.0.0.1:0 --deny ::1 --config {}", file.display());
    let server = Server::from(&mut command(&line), 1);
    fs::write(&file, "deny = \"127.0.0.0/8\"\n").unwrap();
    server.process.signal(Signal::SIGHUP);
    server.await_log("who may connect is read again");
    assert!(is_in(&server));
    server.end();
}
