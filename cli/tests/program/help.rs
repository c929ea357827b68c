//! Help names every flag, says its default, and shows how to use it.

use std::process::Stdio;

use crate::support::{Process, command, run};

/// The flags, which are part of the contract, and their defaults.
const FLAGS: [(&str, &str); 28] = [
    ("--listen", "127.0.0.1:1685"),
    ("--unix-mode", "0600"),
    ("--handler", "echo"),
    ("--codec", "lines"),
    ("--max-frame", "64KiB"),
    ("--max-connections", "the descriptor limit less 32"),
    ("--max-connections-per-ip", "no such limit"),
    ("--high-watermark", "64KiB"),
    ("--low-watermark", "16KiB"),
    ("--output-cap", "1MiB"),
    ("--memory-budget", "a quarter of the memory"),
    ("--backlog", "1024"),
    ("--read-per-turn", "64KiB"),
    ("--frames-per-turn", "1024"),
    ("--slow-handler", "100ms"),
    ("--busy-poll", "off"),
    ("--idle-timeout", "off"),
    ("--frame-timeout", "30s"),
    ("--write-timeout", "30s"),
    ("--drain-timeout", "10s"),
    ("--linger-timeout", "5s"),
    ("--log", "info"),
    ("--log-format", "text"),
    ("--quiet", ""),
    ("--config", ""),
    ("--driver", "auto"),
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
fn the_version_is_told() {
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
