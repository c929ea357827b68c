//! Standard error and output that are closed, full, gone or stuck: the server does not care.

use std::{
    fs::{File, OpenOptions},
    io::{PipeReader, Read, Write, pipe},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::sys::signal::Signal::SIGTERM;

use crate::support::{
    PROGRAM, Process, Scratch, Server, assert_echoes, collect, command, connect_unix, text, until,
    via,
};

/// More log lines than a pipe and the queue of the program hold together.
const CONNECTIONS: usize = 2500;

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has /dev/full")
}

/// The program, which may make no file larger than 4 KiB.
fn limited(flags: &str) -> Command {
    via(&["sh", "-c", "ulimit -f 8; exec \"$0\" \"$@\""], Path::new(PROGRAM), flags)
}

/// A file that is as large as any may be, and more.
fn at_its_limit(scratch: &Scratch) -> File {
    let path = scratch.write("large", &"x".repeat(1 << 16));
    OpenOptions::new().append(true).open(path).expect("it is ours")
}

/// Where output goes, and what has to be kept for that.
fn outputs(scratch: &Scratch) -> [(&'static str, Stdio, Option<PipeReader>); 4] {
    let (gone, to_nobody) = pipe().unwrap();
    drop(gone);
    let (kept, to_the_stuck) = pipe().unwrap();
    [
        ("full", full().into(), None),
        ("at its limit", at_its_limit(scratch).into(), None),
        ("gone", to_nobody.into(), None),
        ("stuck", to_the_stuck.into(), Some(kept)),
    ]
}

#[test]
fn a_server_whose_log_is_broken_serves_and_ends() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let flags = format!("--log trace --listen unix:{}", path.display());
    for (name, stderr, _kept) in outputs(&scratch) {
        let mut command = limited(&flags);
        let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(stderr));
        drop(command);
        connect_unix(&path);
        for _ in 0..CONNECTIONS {
            let mut stream = connect_unix(&path);
            stream.write_all(b"x\n").unwrap();
            let mut reply = [0; 2];
            stream.read_exact(&mut reply).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(&reply, b"x\n", "{name}");
        }
        assert_echoes(connect_unix(&path));
        process.signal(SIGTERM);
        assert_eq!(process.status(), 0, "{name}");
    }
}

#[test]
fn a_second_signal_ends_a_server_whose_log_is_stuck() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let (_kept, mut stderr) = pipe().unwrap();
    fill(&mut stderr);
    let flags = format!("--drain-timeout off --write-timeout off --listen unix:{}", path.display());
    let mut process =
        Process::spawn(command(&flags).stdout(Stdio::null()).stderr(stderr.try_clone().unwrap()));
    let mut stream = connect_unix(&path);
    stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let line = [b"x".repeat(60_000).as_slice(), b"\n"].concat();
    while stream.write_all(&line).is_ok() {}
    process.signal(SIGTERM);
    // It drains once it has stopped listening.
    until("it drains", || UnixStream::connect(&path).is_err());
    process.signal(SIGTERM);
    assert_eq!(process.status(), 1);
}

#[test]
fn lines_that_were_lost_are_counted() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let flags = format!("--log trace --listen unix:{}", path.display());
    let (reader, stderr) = pipe().unwrap();
    let mut command = command(&flags);
    let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(stderr));
    drop(command);
    connect_unix(&path);
    for _ in 0..CONNECTIONS {
        let mut stream = connect_unix(&path);
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let log = collect(reader);
    process.signal(SIGTERM);
    assert_eq!(process.status(), 0);
    until("the log is complete", || Arc::strong_count(&log) == 1);
    let log = text(&log);
    assert!(log.contains("log lines were lost"), "{}", log.len());
    assert!(log.lines().all(|line| line.contains("Z ")), "no line is cut in two");
}

#[test]
fn a_complaint_that_nobody_takes_is_no_failure() {
    let scratch = Scratch::new();
    for (name, mut stderr, _kept) in outputs(&scratch).into_iter().take(3) {
        let mut command = limited("--bogus");
        let mut process =
            Process::spawn(command.stderr(std::mem::replace(&mut stderr, Stdio::null())));
        assert_eq!(process.status(), 2, "{name}");
    }
    let (_kept, mut stderr) = pipe().unwrap();
    fill(&mut stderr);
    let mut process = Process::spawn(command("--bogus").stderr(stderr));
    assert_eq!(process.status(), 2, "stuck");
}

#[test]
fn a_server_that_cannot_say_where_it_listens_listens() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let flags = format!("--listen unix:{}", path.display());
    let (_kept, mut stuck) = pipe().unwrap();
    fill(&mut stuck);
    let mut cases: Vec<(&str, Stdio)> =
        outputs(&scratch).into_iter().take(3).map(|(name, stdio, _)| (name, stdio)).collect();
    cases.push(("stuck", stuck.into()));
    for (name, stdout) in cases {
        let mut process = Process::spawn(limited(&flags).stdout(stdout).stderr(Stdio::null()));
        assert_echoes(connect_unix(&path));
        process.signal(SIGTERM);
        assert_eq!(process.status(), 0, "{name}");
    }
}

#[test]
fn the_log_is_as_loud_and_as_readable_by_machines_as_asked() {
    for (flags, is_logged) in
        [("", [false, true]), ("--log debug", [true, true]), ("--log off", [false, false])]
    {
        let server = Server::start(flags);
        server.assert_answers();
        let log = server.end();
        let seen = [log.contains("accepted"), log.contains("draining")];
        assert_eq!(seen, is_logged, "{flags}: {log}");
    }
    let server = Server::start("--log-format json --log debug");
    server.assert_answers();
    let log = server.end();
    assert!(log.lines().count() > 3, "{log}");
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
    assert!(!log.contains('\x1b'), "no colours where there is no terminal");
}

/// Fills a pipe, so that the next byte waits for a reader.
fn fill(to: &mut std::io::PipeWriter) {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    let is_writable = |to: &std::io::PipeWriter| {
        poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], 0u8).unwrap() == 1
    };
    while is_writable(to) {
        to.write_all(&[0; 4096]).unwrap();
    }
}
