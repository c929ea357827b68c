//! Environments that are poorer than a shell: closed descriptors, nobody's rights, few descriptors.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use nix::{sys::signal::Signal::SIGTERM, unistd::Uid};

use crate::support::{
    PROGRAM, Process, Scratch, Server, assert_echoes, command, connect_unix, is_there, via,
};

#[test]
fn descriptors_0_to_2_may_be_closed() {
    for closed in ["<&- >&- 2>&-", "<&-", ">&-", "2>&-", "<&- 2>&-"] {
        let scratch = Scratch::new();
        let path = scratch.path("x.sock");
        let script = format!(r#"exec "$0" "$@" {closed}"#);
        let flags = format!("--log trace --listen unix:{}", path.display());
        let mut command = via(&["sh", "-c", &script], Path::new(PROGRAM), &flags);
        let mut process = Process::spawn(&mut command);
        for _ in 0..5 {
            assert_echoes(connect_unix(&path));
        }
        process.signal(SIGTERM);
        assert_eq!(process.status(), 0, "{closed}");
    }
}

#[test]
fn neither_folder_nor_locale_nor_anything_of_the_environment_matters() {
    let mut command = command("--listen 127.0.0.1:0");
    // Nobody can write there, not even root.
    command.current_dir("/proc").env_clear();
    Server::from(&mut command, 1).assert_answers();

    command.envs([("LC_ALL", "xx_YY.UTF-99"), ("TZ", "Nowhere/Else"), ("HOME", "/nowhere")]);
    command.envs([("RUST_LOG", "%%%"), ("TERM", ""), ("COLUMNS", "0"), ("NO_COLOR", "1")]);
    let server = Server::from(&mut command, 1);
    server.assert_answers();
    assert!(server.end().contains("ended"));
}

#[test]
fn nobody_can_run_it() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become nobody; it is not root that runs the other tests");
        return;
    }
    if !is_there("setpriv") {
        return;
    }
    let scratch = Scratch::new();
    fs::set_permissions(scratch.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let program = scratch.path("nonforker");
    fs::copy(PROGRAM, &program).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = via(&nobody, &program, "--listen 127.0.0.1:0");
    let server = Server::from(command.current_dir("/"), 1);
    server.assert_answers();
    assert_eq!(server.end().matches("WARN").count(), 0);
}

#[test]
fn few_descriptors_are_few_connections_and_no_trouble() {
    if !is_there("prlimit") {
        return;
    }
    let prlimit = ["prlimit", "--nofile=64"];
    let mut command = via(&prlimit, Path::new(PROGRAM), "--listen 127.0.0.1:0");
    let server = Server::from(&mut command, 1);
    let mut streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"hello\n").unwrap();
    }
    server.await_log("full");
    // Whoever waits is served when another goes.
    for mut stream in streams {
        let mut reply = [0; 6];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"hello\n");
    }
    server.assert_answers();
}

#[test]
fn a_handful_of_descriptors_is_said_once_at_the_start() {
    if !is_there("prlimit") {
        return;
    }
    for (limit, flags, part) in [
        ("--nofile=40", "", Some("descriptors for 8 connections only")),
        ("--nofile=40", "--max-connections 20", Some("8 connections of 20 only")),
        ("--nofile=40", "--max-connections 8", None),
        ("--nofile=40:200", "", None),
    ] {
        let flags = format!("--listen 127.0.0.1:0 --listen 127.0.0.1:0 {flags}");
        let mut command = via(&["prlimit", limit], Path::new(PROGRAM), &flags);
        let server = Server::from(&mut command, 2);
        server.assert_answers();
        let log = server.end();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(lines.len(), usize::from(part.is_some()), "{limit} {flags}: {log}");
        for part in
            part.into_iter().flat_map(|part| [part, "ulimit -n", "limit of descriptors is 40"])
        {
            assert!(lines[0].contains(part), "{limit} {flags}: no {part:?} in {log}");
        }
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    if !is_there("prlimit") {
        return;
    }
    let prlimit = ["prlimit", "--nofile=40:128"];
    let mut command = via(&prlimit, Path::new(PROGRAM), "--listen 127.0.0.1:0");
    let server = Server::from(&mut command, 1);
    // 128 less 32 can be here at once, 40 less 32 could not.
    let mut streams: Vec<_> = (0..90).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"hello\n").unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.process.0.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().filter(|&word| word == "128").count(), 2, "{files}");
}

#[test]
fn a_terminal_is_told_how_to_try_it() {
    if !is_there("script") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let typescript = scratch.path("typescript");
    let run = format!("exec {PROGRAM} --listen unix:{}", path.display());
    let mut command = Command::new("script");
    command.args(["-q", "-f", "-c", &run]).arg(&typescript).env_remove("NO_COLOR");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut process = Process::spawn(&mut command);
    assert_echoes(connect_unix(&path));
    let text = || fs::read_to_string(&typescript).unwrap_or_default();
    crate::support::until("it is told", || text().contains("end it: Ctrl-C"));
    let hint = format!("try it: nc -U {}", path.display());
    assert!(text().contains(&hint), "{}", text());
    // What Ctrl-C sends to a terminal.
    process.0.stdin.take().unwrap().write_all(b"\x03").unwrap();
    crate::support::until("it ends", || !path.exists());
    crate::support::until("the log is in colour", || text().contains("\x1b[32m INFO"));
}
