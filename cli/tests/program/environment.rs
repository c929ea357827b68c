//! Environments that are poorer than a shell: closed descriptors, nobody's rights, few descriptors.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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
fn a_terminal_shows_how_to_try_it() {
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

#[test]
fn the_limit_of_the_own_cgroup_decides_the_memory_budget() {
    let log = Server::start("--memory-budget 64MiB").end();
    assert!(log.contains("the memory budget is 67108864 bytes: as set\n"), "{log}");

    let Some(file) = limit_of_own_cgroup() else {
        eprintln!("skipped: this process is in no cgroup whose memory can be limited");
        return;
    };
    let can_mount = Command::new("unshare").args(["--mount", "true"]).output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no unshare, or it may not make a mount namespace");
        return;
    }
    // The program sees this file in place of the kernel's. The cgroup itself stays as it is.
    let scratch = Scratch::new();
    let limit = scratch.write("limit", "268435456\n");
    let script =
        format!(r#"mount --bind '{}' '{}' && exec "$0" "$@""#, limit.display(), file.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script];
    let log = Server::from(&mut via(&wrapper, Path::new(PROGRAM), "--listen 127.0.0.1:0"), 1).end();
    let said: Vec<_> = log.lines().filter(|line| line.contains("memory budget")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains(" 67108864 bytes: a quarter of the limit of the cgroup"), "{log}");
}

/// The file with the limit of the cgroup that this process is in, where it is on most systems.
fn limit_of_own_cgroup() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "memory" => Some(format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes")),
            "" => Some(format!("/sys/fs/cgroup{group}/memory.max")),
            _ => None,
        }
    });
    files.map(PathBuf::from).find(|file| file.is_file())
}
