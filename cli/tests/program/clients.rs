//! Clients that people use.

use std::process::Command;

use crate::support::{Scratch, Server, is_there, run_with};

#[test]
fn netcat_gets_its_lines_back() {
    if !is_there("nc") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let listen = format!("--listen 127.0.0.1:0 --listen unix:{} --codec crlf", path.display());
    let server = Server::from(&mut crate::support::command(&listen), 2);
    let (ip, port) = server.addresses[0].rsplit_once(':').expect("it has a port");
    // -N: shut down after the end of the input, as a pipe in a shell does with most netcats.
    let output = run_with(Command::new("nc").args(["-N", ip, port]), b"one\ntwo\n");
    assert_eq!(output.stdout, "one\r\ntwo\r\n", "{}", output.stderr);
    let output = run_with(Command::new("nc").args(["-N", "-U"]).arg(&path), b"one\ntwo\n");
    assert_eq!(output.stdout, "one\r\ntwo\r\n", "{}", output.stderr);
    // The first thing that people try: printf x | nc -N 127.0.0.1 1685.
    let output = run_with(Command::new("nc").args(["-N", ip, port]), b"x");
    assert_eq!(output.stdout, "x\r\n", "{}", output.stderr);
}

#[test]
fn socat_gets_everything_back_after_it_has_finished_sending() {
    if !is_there("socat") {
        return;
    }
    let server = Server::start("--handler upper");
    let lines: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    let mut socat = Command::new("socat");
    socat.args(["-t30", "-", &format!("TCP:{}", server.addresses[0])]);
    let output = run_with(&mut socat, lines.as_bytes());
    assert!(output.stdout == lines.to_uppercase(), "{} bytes of replies", output.stdout.len());
}
