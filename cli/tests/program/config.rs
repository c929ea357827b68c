//! The configuration file: the flags as keys, and flags win.

use std::{io::Read, process::Stdio};

use nix::sys::signal::Signal;

use crate::support::{Process, Scratch, Server, assert_echoes, command, connect_unix, run};

fn with_file(scratch: &Scratch, text: &str, flags: &str) -> String {
    let path = scratch.write("nonforker.toml", text);
    format!("{flags} --config {}", path.display())
}

#[test]
fn every_setting_can_come_from_the_file() {
    let scratch = Scratch::new();
    let text = r#"
        # Everything there is.
        listen = ["127.0.0.1:0", "127.0.0.1:0"]
        unix-mode = "0660"
        handler = "upper"
        codec = 'delimited:\x3b'
        max-frame = 8
        max-connections = 100
        max-connections-per-ip = 50
        high-watermark = "32KiB"
        low-watermark = "8KiB"
        output-cap = "1MiB"
        memory-budget = "64MiB"
        backlog = 128
        idle-timeout = "1h"
        frame-timeout = "10s"
        write-timeout = "off"
        drain-timeout = "off"
        keepalive = "90s"
        keepalive-interval = "5s"
        keepalive-count = 3
        tcp-user-timeout = "off"
        linger-timeout = "1s"
        log = "debug"
        log-format = "json"
        quiet = false
        driver = "poll"
    "#;
    for program in ["", "serve"] {
        let server = Server::from(&mut command(&with_file(&scratch, text, program)), 2);
        assert_eq!(server.ask(b"ab;c;123456789;d;"), b"AB;C;", "{program}");
        server.await_log("frame too long: more than 8 bytes");
        let log = server.end();
        assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let scratch = Scratch::new();
    let text = "listen = ['127.0.0.1:0', '[::1]:0']\nhandler = 'upper'\nlog = 'debug'";
    let flags = "serve --listen 127.0.0.1:0 --handler length --log warn";
    let mut command = command(&with_file(&scratch, text, flags));
    let server = Server::from(&mut command, 1);
    assert!(server.addresses[0].starts_with("127.0.0.1:"), "{:?}", server.addresses);
    assert_eq!(server.ask(b"abc\n"), b"3\n");
    assert_eq!(server.end(), "", "less is logged than the file says");
}

#[test]
fn a_switch_can_be_on_in_the_file() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let text = format!("quiet = true\nlisten = 'unix:{}'", path.display());
    let mut command = command(&with_file(&scratch, &text, ""));
    let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_echoes(connect_unix(&path));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.status(), 0);
    let mut said = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_bad_file_is_one_line_with_its_name_and_the_key() {
    let scratch = Scratch::new();
    for (text, parts) in [
        ("max-fram = 1", ["unknown key \"max-fram\"", "there is max-frame"]),
        ("colour = 1", ["unknown key \"colour\"", "--help"]),
        ("config = 'x'", ["config", "goes on the command line"]),
        ("help = true", ["help", "goes on the command line"]),
        ("'' = true", ["unknown key \"\"", "--help"]),
        ("'listen x' = true", ["unknown key \"listen x\"", "there is listen"]),
        ("max-frame = '12X'", ["max-frame: bad size \"12X\"", "64KiB"]),
        ("max-frame = 0", ["max-frame: bad size", "at least 1"]),
        ("max-frame = -1", ["max-frame: bad size", "64KiB"]),
        ("max-frame = [1, 2]", ["max-frame", "it takes one value, not a list"]),
        ("max-frame = true", ["max-frame: bad size \"true\"", "64KiB"]),
        ("idle-timeout = 30", ["idle-timeout: bad duration \"30\"", "or off"]),
        ("idle-timeout = '-5s'", ["idle-timeout: bad duration \"-5s\"", "or off"]),
        ("handler = 'ecko'", ["handler: bad value \"ecko\"", "echo, discard"]),
        ("driver = 'kqueue'", ["driver: bad value \"kqueue\"", "there are auto, poll, uring"]),
        ("driver = 3", ["driver: bad value \"3\"", "there are auto, poll, uring"]),
        ("driver = ''", ["driver: bad value \"\"", "there are auto, poll, uring"]),
        ("listen = 'localhost:1'", ["listen: bad address", "names are not resolved"]),
        ("last-line = 'take'\ncodec = 'raw'", ["last-line: ", "codecs lines and crlf only"]),
        ("listen = []", ["listen", "the list is empty"]),
        ("listen = ['127.0.0.1:0', 'x']", ["listen: bad address", "\"x\""]),
        ("quiet = 'loud'", ["quiet", "write true or false"]),
        ("[limits]\nmax-frame = 1", ["limits", "write a text in quotes"]),
        ("[serve]\nmax-frame = 1", ["serve: this is a table, as [serve]", "no tables"]),
        ("max.frame = 1", ["max: this is a table", "a dot does in max.frame"]),
        ("max-frame = { size = 1 }", ["max-frame: this is a table", "write a text in quotes"]),
        ("[[listen]]\nx = 1", ["listen: this is a table", "no tables"]),
        ("max-frame = 1.5", ["max-frame: 1.5 is a fraction", "write a text in quotes"]),
        ("max-frame = inf", ["max-frame: inf is a fraction", "write a text in quotes"]),
        ("idle-timeout = 10:00:00", ["idle-timeout: 10:00:00 is a date or a time", "\"30s\""]),
        ("idle-timeout = 2026-11-27", ["idle-timeout: 2026-11-27 is a date", "\"30s\""]),
        ("listen = [['127.0.0.1:0']]", ["listen: this is a list within a list", "or a list"]),
        ("listen = ['127.0.0.1:0', 1.5]", ["listen: 1.5 is a fraction", "write a text"]),
        ("max-frame = 9223372036854775808", ["max-frame: too large a number", "line 1"]),
        ("\nmax-frame = 99999999999999999999", ["max-frame: too large a number", "line 2"]),
        (
            "max-frame = 0xffffffffffffffffffffffffffffffffffffff",
            ["max-frame: too large", "line 1"],
        ),
        ("max-frame = 1e999", ["max-frame: too large a number", "line 1"]),
        ("listen = ['127.0.0.1:1', '127.0.0.1:1']", ["listen: 127.0.0.1:1 is given twice", ""]),
        ("listen = ['unix:/tmp/x', 'unix:/tmp/./x']", ["listen: unix:/tmp", "is given twice"]),
        ("log = 'info'\nmax-frame 1", ["line 2", ""]),
        ("log = 'info'\nlog = 'warn'", ["line 2", "duplicate"]),
        ("low-watermark = '1GiB'", ["low watermark", "above"]),
    ] {
        let flags = if text.starts_with("listen") { "" } else { "--listen 127.0.0.1:0" };
        let output = run(&mut command(&with_file(&scratch, text, flags)));
        let stderr = &output.stderr;
        assert_eq!(output.status, 2, "{text}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{text}: {stderr}");
        if !text.starts_with("low") {
            assert!(stderr.contains("nonforker.toml: "), "{text}: {stderr}");
        }
        for part in parts {
            assert!(stderr.contains(part), "{text}: no {part:?} in {stderr}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_said() {
    for (path, part) in [
        ("/nowhere", "No such file"),
        ("/tmp", "cannot read it"),
        ("/dev/zero", "too long"),
        ("/proc/self/exe", "cannot read it"),
    ] {
        let output = run(&mut command(&format!("--config {path}")));
        assert_eq!(output.status, 2);
        assert!(output.stderr.starts_with(&format!("nonforker: {path}: ")), "{}", output.stderr);
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
}
