//! `nonforker bench --codec resp` against servers of Redis commands: ours, Redis' own if it is
//! installed, and some that are wrong.

use std::{
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use nonforker::{
    Handle,
    codec::{Resp, resp::Reply},
};
use serde_json::Value;

use crate::{
    bench::{bench, number, report},
    support::{Process, Scratch, connect_unix, is_there},
};

/// The longest string that our server echoes.
const MAX: usize = 1_000_000;

/// Runs a server on a thread that answers the string of each ECHO as `answer` changes it, given how
/// many there were before.
fn server(mut answer: impl FnMut(usize, &mut Vec<u8>) + Send + 'static) -> (String, Handle) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut count = 0;
        let resp = Resp::with_max(1024 * 1024);
        let server = nonforker::Server::new()
            .serve("127.0.0.1:0", resp, move |conn, command| match command.len() {
                2 if command.is("ECHO") && command[1].len() <= MAX => {
                    let mut string = command[1].to_vec();
                    answer(count, &mut string);
                    count += 1;
                    conn.send(Reply::Bulk(&string));
                }
                _ => conn.send(Reply::Error("ERR that is not ECHO, or too long")),
            })
            .bind()
            .unwrap();
        sender.send((server.addresses()[0].to_string(), server.handle())).unwrap();
        server.run().unwrap();
    });
    receiver.recv().unwrap()
}

/// Loads a server that does everything right, in every way there is.
fn assert_right(address: &str) {
    for flags in [
        "-c 3",
        "-c 3 -p 100",
        "-s 1 -p 3",
        "-s 9",
        "-s 10 -p 7",
        "-s 100 -p 16",
        "-s 60KiB -c 3 -p 3",
        "-s 1000000 -c 2",
        "-c 2 --rate 500",
        "-c 2 --flooding 1 --flood-in-flight 300",
        "-c 2 --trickling 1 --trickle-interval 1ms --never-reading 1",
    ] {
        let (report, status) = report(address, &format!("--codec resp {flags}"));
        assert_eq!((status, &report["codec"]), (0, &"resp".into()), "{flags}: {report:#}");
        assert_eq!(report["errors"]["first"], Value::Null, "{flags}: {report:#}");
        assert!(number(&report, "/messages") > 0.0, "{flags}: {report:#}");
    }
    let (report, status) = report(address, "--codec resp --mode idle -c 20 --exchange 3 -s 1KiB");
    assert_eq!((status, number(&report, "/idle/exchanged")), (0, 3.0), "{report:#}");
}

#[test]
fn strings_of_every_size_are_echoed() {
    let (address, handle) = server(|_, _| {});
    assert_right(&address);
    handle.stop();
}

#[test]
fn redis_is_right() {
    if !is_there("redis-server") {
        return;
    }
    let scratch = Scratch::new();
    let socket = scratch.path("redis.sock");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
    command.arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
    let _redis = Process::spawn(&mut command);
    drop(connect_unix(&socket));
    assert_right(&format!("unix:{}", socket.display()));
}

#[test]
fn sizes_and_bytes_are_those_of_the_string() {
    let (address, handle) = server(|_, string| assert_eq!(string.len(), 100));
    let (report, _) = report(&address, "--codec resp -s 100");
    assert_eq!(number(&report, "/size"), 100.0);
    let (rate, megabytes) = ("/messages_per_second", "/megabytes_per_second");
    assert!((number(&report, megabytes) / number(&report, rate) - 1e-4).abs() < 1e-9, "{report:#}");
    handle.stop();
}

#[test]
fn a_wrong_reply_is_found_wherever_it_is_wrong() {
    type Spoil = fn(usize, &mut Vec<u8>);
    // A reply to 64 bytes has 71: `$64\r\n` in front of them, `\r\n` behind.
    let cases: [(&str, Spoil, &str); 5] = [
        ("the first byte", |nth, string| string[0] ^= u8::from(nth == 0), "byte 5 is "),
        ("the last byte", |nth, string| string[63] ^= u8::from(nth == 9), "byte 707 is "),
        ("too short", |nth, string| string.truncate(64 - nth / 5), "byte 357 is '3' and not '4'"),
        (
            "too long",
            |nth, string| string.resize(64 + nth / 5, b'x'),
            "byte 357 is '5' and not '4'",
        ),
        ("in another order", |nth, string| string.rotate_left(nth / 5), "byte 360 is "),
    ];
    for (name, spoil, part) in cases {
        for flags in ["", "-p 7", "--rate 100000"] {
            let (address, handle) = server(spoil);
            let output = bench(&address, &format!("--codec resp -c 1 -d 30s --warm-up 0s {flags}"));
            assert_eq!(output.status, 1, "{name}, {flags}");
            let part = format!("connection 0: wrong reply: {part}");
            assert!(output.stderr.contains(&part), "{name}, {flags}: {}", output.stderr);
            handle.stop();
        }
    }
}

#[test]
fn an_error_is_no_reply_and_answers_of_the_same_length_are_counted_if_asked_to() {
    let (address, handle) = server(|_, string| string.reverse());
    let output = bench(&address, "--codec resp");
    assert_eq!(output.status, 1, "{}", output.stdout);
    let (report, status) = report(&address, "--codec resp --no-verify -p 3");
    assert!(status == 0 && number(&report, "/messages") > 0.0, "{report:#}");
    let output = bench(&address, &format!("--codec resp -s {} -d 30s", MAX + 1));
    assert!(output.stderr.contains("byte 0 is '-' and not '$'"), "{}", output.stderr);
    handle.stop();
}
