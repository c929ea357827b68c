//! What cannot be is said in one line, with an exit status: 2 if the wish is wrong, else 1.

use std::{fs, net::TcpListener, path::Path};

use nix::unistd::Uid;

use crate::support::{Output, PROGRAM, command, is_there, run, via};

/// Asserts that it ended with one line for people.
pub(crate) fn assert_complains(output: &Output, status: i32, parts: &[&str]) {
    let Output { status: actual, stdout, stderr } = output;
    assert_eq!(stdout, "", "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("nonforker: "), "{stderr}");
    assert!(!stderr.contains("panic"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr:?}");
    }
    assert_eq!(*actual, status, "{stderr}");
}

#[test]
fn a_wrong_wish_is_one_line_that_says_what_to_write() {
    for (flags, part, hint) in [
        ("--bogus", "--bogus", "--help"),
        ("--max-fram 1", "--max-fram", "similar argument exists: '--max-frame'"),
        ("srve", "srve", "'serve'"),
        ("serve more", "more", "--help"),
        ("--config", "--config <FILE>", "value is required"),
        ("--listen", "--listen <ADDR>", "value is required"),
        ("--listen localhost:1", "localhost:1", "write 127.0.0.1:1685"),
        ("--listen 127.0.0.1", "--listen: bad address", "the port is missing"),
        ("--listen 127.0.0.1:0 --listen unix:", "--listen: bad address", "unix:/run"),
        ("--listen [::ffff:127.0.0.1]:1", "--listen: bad address", "write 127.0.0.1:1"),
        ("--listen [fe80::1]:1", "--listen: bad address", "the interface is missing"),
        ("--listen [fe80::1%eth0]:1", "--listen: bad address", "number of an interface"),
        ("--listen [ff02::1]:1", "--listen: bad address", "multicast"),
        ("--listen unix:@", "--listen: bad address", "the name is empty"),
        ("--listen 127.0.0.1:1 --listen 127.0.0.1:1", "--listen: 127.0.0.1:1", "given twice"),
        ("--listen unix:/a/b --listen unix:/a//b", "--listen: unix:/a", "given twice"),
        ("serve --listen [::1]:1 --listen [0::1]:1", "--listen: [::1]:1", "given twice"),
        ("--proxy-protocol", "--proxy-from <NET>", "--help"),
        ("--proxy-from 10.0.0.0/8", "--proxy-protocol", "--help"),
        (
            "--proxy-protocol --proxy-from 10.1.0.0/8",
            "--proxy-from: bad network",
            "write 10.0.0.0/8",
        ),
        ("--unix-mode 0999", "--unix-mode: bad permissions \"0999\"", "octal"),
        ("--handler ecko", "--handler: bad value \"ecko\": there are echo,", "did you mean echo?"),
        ("--codec json", "--codec: bad codec \"json\"", "strict-crlf"),
        ("--codec delimited:", "--codec: bad codec", "empty"),
        (r"--codec delimited:\q", r"\q", r"\xHH"),
        ("--last-line keep", "--last-line: bad value \"keep\"", "there are drop, take"),
        ("--last-line take --codec raw", "--last-line: ", "codecs lines and crlf only"),
        ("--last-line drop --codec strict-crlf", "--last-line: ", "codecs lines and crlf only"),
        ("--last-line take --codec delimited:;", "--last-line: ", "codecs lines and crlf only"),
        ("--max-frame 12X", "--max-frame: bad size \"12X\"", "64KiB"),
        ("--max-frame 0", "--max-frame: bad size", "at least 1"),
        ("--memory-budget lots", "--memory-budget: bad size \"lots\"", "64KiB"),
        ("--high-watermark 1Q", "--high-watermark: bad size", "64KiB"),
        ("--low-watermark 1MiB", "--low-watermark: a low watermark of 1MiB", "above the high"),
        ("--output-cap=-1", "--output-cap: bad size", "64KiB"),
        ("--max-connections 0", "--max-connections: bad number", "at least 1"),
        ("--max-connections-per-ip x", "--max-connections-per-ip: bad number", "at least 1"),
        ("--backlog 70000", "--backlog: bad number", "65535"),
        ("--idle-timeout 0s", "--idle-timeout: bad duration", "off"),
        ("--frame-timeout 30", "--frame-timeout: bad duration \"30\"", "30s"),
        ("--write-timeout never", "--write-timeout: bad duration", "or off"),
        ("--drain-timeout soon", "--drain-timeout: bad duration", "or off"),
        ("--linger-timeout off", "--linger-timeout: bad duration", "30s"),
        ("--idle-timeout -5s", "--idle-timeout: bad duration \"-5s\"", "30s"),
        ("serve --max-connections -1", "--max-connections: bad number \"-1\"", "at least 1"),
        ("--max-frame -1KiB", "--max-frame: bad size \"-1KiB\"", "64KiB"),
        ("--quiet --driver -3", "--driver: bad value \"-3\"", "auto, poll, uring"),
        ("--quiet -3", "unexpected value '-3'", "--quiet"),
        ("--idle-timeout 5s -5s", "-5", "--help"),
        ("bench 127.0.0.1:1 -c -5", "--connections: bad number \"-5\"", "whole number"),
        ("sim --jobs -2", "--jobs: bad number \"-2\"", "at least 1"),
        ("--driver", "--driver", "auto, poll, uring"),
        ("--log loud", "--log: bad value \"loud\"", "trace"),
        ("--log-format xml", "--log-format: bad value \"xml\"", "json"),
        ("--driver uring3", "--driver: bad value \"uring3\": there are auto, poll", "uring?"),
        ("--quiet=3", "--quiet", "--help"),
        ("--config /nowhere/x.toml", "/nowhere/x.toml: cannot read it", "No such file"),
    ] {
        assert_complains(&run(&mut command(flags)), 2, &[part, hint]);
    }
}

#[test]
fn a_wrong_wish_in_bytes_that_are_no_text_is_one_line_too() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"--listen=unix:/tmp/\xff\x1b[2J");
    let output = run(command("").arg(bytes));
    assert_complains(&output, 2, &[]);
    assert!(!output.stderr.contains('\x1b'));
}

#[test]
fn a_port_in_use_is_said() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let output = run(&mut command(&format!("--listen {address}")));
    assert_complains(&output, 1, &["cannot listen on", &address, "in use", "os error"]);
}

#[test]
fn an_address_that_is_not_ours_is_said() {
    let output = run(&mut command("--listen 192.0.2.1:1"));
    assert_complains(&output, 1, &["192.0.2.1:1", "no such address"]);
    let output = run(&mut command("--listen unix:/nowhere/x.sock"));
    assert_complains(&output, 1, &["unix:/nowhere/x.sock", "directory does not exist"]);
}

#[test]
fn a_privileged_port_is_said() {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start: u16 = start.ok().and_then(|port| port.trim().parse().ok()).unwrap_or(1024);
    if start <= 1 {
        eprintln!("skipped: no port is privileged here");
        return;
    }
    let flags = "--listen 127.0.0.1:1";
    let output = if !Uid::effective().is_root() {
        run(&mut command(flags))
    } else if is_there("setpriv") {
        let drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        run(&mut via(&drop, Path::new(PROGRAM), flags))
    } else {
        return;
    };
    assert_complains(&output, 1, &["127.0.0.1:1", "privilege", "Permission denied"]);
}
