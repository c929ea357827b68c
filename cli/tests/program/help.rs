//! Help names every flag, says its default, and shows how to use it.

use std::{io::Read, process::Stdio, thread, time::Duration};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{Process, command, run};

/// The flags, which are part of the contract, and their defaults.
const FLAGS: [(&str, &str); 46] = [
    ("--listen", "127.0.0.1:1685"),
    ("--unix-mode", "0600"),
    ("--handler", "echo"),
    ("--codec", "lines"),
    ("--last-line", "take"),
    ("--max-frame", "64KiB"),
    ("--max-connections", "the descriptor limit less 32"),
    ("--max-connections-per-ip", "no such limit"),
    ("--allow", "all"),
    ("--deny", "none"),
    ("--max-connections-per-net", "no such limit"),
    ("--net-prefix", "24,64"),
    ("--accept-rate", "no such limit"),
    ("--refuse-with", ""),
    ("--max-age", "off"),
    ("--drain-spread", "off"),
    ("--high-watermark", "64KiB"),
    ("--low-watermark", "a quarter of it"),
    ("--output-cap", "1MiB"),
    ("--memory-budget", "a quarter of the memory"),
    ("--backlog", "1024"),
    ("--read-per-turn", "64KiB"),
    ("--frames-per-turn", "1024"),
    ("--remote-max", "10000"),
    ("--tickets-max", "10000"),
    ("--answer-timeout", "60s"),
    ("--slow-handler", "100ms"),
    ("--busy-poll", "off"),
    ("--idle-timeout", "off"),
    ("--frame-timeout", "30s"),
    ("--write-timeout", "30s"),
    ("--keepalive", "60s"),
    ("--keepalive-interval", "10s"),
    ("--keepalive-count", "6"),
    ("--tcp-user-timeout", "off"),
    ("--drain-timeout", "10s"),
    ("--linger-timeout", "5s"),
    ("--log", "info"),
    ("--log-format", "text"),
    ("--quiet", ""),
    ("--config", ""),
    ("--driver", "auto"),
    ("--shards", "1"),
    ("--pin", ""),
    ("--help", ""),
    ("-q", ""),
];

#[test]
fn help_names_every_flag_and_its_default() {
    for line in ["--help", "serve --help", "help serve", "-h", "serve -h"] {
        let output = run(&mut command(line));
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{line}");
        // Help is wrapped.
        let help = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for (flag, default) in FLAGS {
            let at = [format!("{flag} "), format!("{flag},")].map(|flag| help.find(&flag));
            let at = at.into_iter().flatten().min();
            let at = at.unwrap_or_else(|| panic!("{line} does not name {flag}"));
            let default =
                if default.is_empty() { flag.into() } else { format!("[default: {default}]") };
            assert!(help[at..].contains(&default), "{line}: {flag} has no {default}");
        }
    }
}

#[test]
fn long_help_has_examples_and_explains_every_choice() {
    let help = run(&mut command("--help")).stdout;
    for part in [
        "Examples:",
        "nc 127.0.0.1 1685",
        "max-frame = \"1MiB\"",
        "Exit status",
        "SIGTERM",
        "- reverse:",
        "- discard:",
        "strict-crlf:",
        "delimited:STRING:",
        "- json:",
    ] {
        assert!(help.contains(part), "no {part:?} in the help");
    }
}

#[test]
fn the_version_is_reported() {
    let output = run(&mut command("--version"));
    assert_eq!(output.stdout, format!("nonforker {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_that_nobody_reads_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command("--help");
    let mut process = Process::spawn(command.stdout(writer).stderr(Stdio::null()));
    assert_eq!(process.status(), 0);
}

#[test]
fn help_is_printed_to_its_end_also_to_a_pipe_that_does_not_block() {
    for line in ["--help", "bench --help", "sim --list"] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        // One page, and the rest when it is read: help is longer.
        #[cfg(target_os = "linux")]
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let mut command = command(line);
        let mut process = Process::spawn(command.stdout(writer).stderr(Stdio::null()));
        drop(command);
        // Longer than the program waits for a reader of anything else.
        thread::sleep(Duration::from_millis(1500));
        let mut help = String::new();
        reader.read_to_string(&mut help).unwrap();
        assert_eq!(process.status(), 0);
        assert_eq!(help, run(&mut crate::support::command(line)).stdout, "{line}");
    }
}

#[test]
fn help_that_cannot_be_printed_is_said() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let mut command = command("--help");
    let mut process = Process::spawn(command.stdout(full).stderr(Stdio::piped()));
    assert_eq!(process.status(), 1);
    let mut said = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("nonforker: cannot print: "), "{said}");
}
