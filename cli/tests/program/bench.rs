//! `nonforker bench` against a server that is right: what it reports, and what it refuses.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use nix::sys::signal::Signal::SIGINT;
use serde_json::Value;

use crate::support::{
    Output, PROGRAM, Process, Scratch, Server, collect, command, is_there, run, text, via,
};

/// A run against this address: a short one, unless the flags say how long.
pub(crate) fn bench(address: &str, flags: &str) -> Output {
    let duration = if flags.contains("-d ") { "" } else { "-d 300ms --warm-up 50ms" };
    run(&mut command(&format!("bench {address} {duration} {flags}")))
}

/// The report of a run that has one, and its exit status.
pub(crate) fn report(address: &str, flags: &str) -> (Value, i32) {
    let output = bench(address, &format!("--json - {flags}"));
    let json = serde_json::from_str(&output.stdout);
    let json = json.unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
    (json, output.status)
}

/// A number of a report, by the path to it.
pub(crate) fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number at {path} in {report:#}"))
}

fn assert_clean(report: &Value) {
    for kind in ["connect", "closed", "wrong", "timeout"] {
        assert_eq!(number(report, &format!("/errors/{kind}")), 0.0, "{report:#}");
    }
    assert_eq!(report["errors"]["first"], Value::Null);
}

/// Each reply has a latency; so has what was in flight in the end.
pub(crate) fn assert_each_has_a_latency(report: &Value, in_flight: f64) {
    let messages = number(report, "/messages");
    let count = number(report, "/latency_us/count");
    assert!((messages..=messages + in_flight).contains(&count), "{report:#}");
}

#[test]
fn the_report_is_complete_and_agrees_with_itself() {
    let server = Server::start("");
    let pid = server.process.0.id();
    let (report, status) = report(&server.addresses[0], &format!("-c 8 -p 4 -s 100 --pid {pid}"));
    assert_eq!(status, 0);
    assert_clean(&report);
    for (key, value) in [("format", 1.0), ("connections", 8.0), ("in_flight", 4.0), ("size", 100.0)]
    {
        assert_eq!(number(&report, &format!("/{key}")), value);
    }
    assert_eq!((&report["mode"], &report["codec"]), (&"echo".into(), &"lines".into()));
    assert_eq!((&report["verified"], &report["interrupted"]), (&true.into(), &false.into()));
    assert_eq!(number(&report, "/connections_open"), 8.0);
    let messages = number(&report, "/messages");
    let rate = number(&report, "/messages_per_second");
    assert!(messages > 0.0 && number(&report, "/seconds") >= 0.3, "{report:#}");
    assert!((rate * number(&report, "/seconds") / messages - 1.0).abs() < 1e-6, "{report:#}");
    assert!((number(&report, "/megabytes_per_second") / rate - 1e-4).abs() < 1e-9, "{report:#}");
    assert_each_has_a_latency(&report, 32.0);
    let at = ["min", "p50", "p90", "p99", "p99_9", "max"];
    let at = at.map(|name| number(&report, &format!("/latency_us/{name}")));
    assert!(at[0] > 0.0 && at.is_sorted(), "{report:#}");
    for key in ["target_rate", "target_reached", "flooding", "slow", "idle"] {
        assert!(report.as_object().unwrap().contains_key(key), "{key}: {report:#}");
        assert_eq!(report[key], Value::Null);
    }
    if cfg!(target_os = "linux") {
        assert_eq!(number(&report, "/server/pid"), f64::from(pid));
        let cost = number(&report, "/server/cpu_us_per_message");
        let sum = number(&report, "/server/cpu_seconds");
        assert!(cost > 0.0 && (cost * messages / 1e6 / sum - 1.0).abs() < 1e-6, "{report:#}");
        assert!(number(&report, "/server/rss_end") > 100_000.0, "{report:#}");
        assert!(number(&report, "/client/cpu_us_per_message") > 0.0, "{report:#}");
    }
}

/// The keys of an object, and of those in it.
fn keys(value: &Value) -> Vec<&String> {
    let fields = value.as_object().into_iter().flatten();
    fields.flat_map(|(key, value)| std::iter::once(key).chain(keys(value))).collect()
}

#[test]
fn every_field_is_documented() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench.md");
    let docs = fs::read_to_string(docs).unwrap();
    let server = Server::start("");
    let pid = server.process.0.id();
    for flags in ["--flooding 1 --trickling 1", "--mode idle -c 1"] {
        let pid = if cfg!(target_os = "linux") { format!("--pid {pid}") } else { String::new() };
        let (report, _) = report(&server.addresses[0], &format!("{flags} {pid}"));
        for key in keys(&report) {
            assert!(docs.contains(&format!("`{key}`")), "{key}");
        }
    }
}

#[test]
fn every_codec_and_size_comes_back_as_it_was() {
    for (codec, sizes) in [
        ("lines", ["2", "65", "60KiB"]),
        ("crlf", ["3", "64", "10000"]),
        ("strict-crlf", ["3", "64", "10000"]),
        ("delimited:abc", ["4", "64", "10000"]),
        ("raw", ["1", "64", "3MiB"]),
    ] {
        let server = Server::start(&format!("--codec {codec}"));
        for size in sizes {
            let flags = format!("--codec {codec} -s {size} -c 3 -p 3");
            let (report, status) = report(&server.addresses[0], &flags);
            assert_clean(&report);
            assert_eq!(status, 0, "{flags}");
            assert!(number(&report, "/messages") > 0.0, "{flags}: {report:#}");
        }
    }
}

#[test]
fn a_unix_socket_is_as_good() {
    let scratch = Scratch::new();
    let address = format!("unix:{}", scratch.path("x.sock").display());
    let _server = Server::from(&mut command(&format!("--listen {address}")), 1);
    let (report, status) = report(&address, "-c 4 -p 128");
    assert_clean(&report);
    assert!(status == 0 && number(&report, "/messages") > 0.0, "{report:#}");
}

#[test]
fn answers_that_are_no_echo_are_counted_if_asked_to() {
    for handler in ["upper", "length"] {
        let server = Server::start(&format!("--handler {handler}"));
        let output = bench(&server.addresses[0], "");
        assert_eq!((output.status, output.stdout.as_str()), (1, ""));
        // A length may begin like the line of one connection or another.
        assert!(output.stderr.contains("wrong reply: byte "), "{}", output.stderr);
        let (report, status) = report(&server.addresses[0], "--no-verify -p 3");
        assert_clean(&report);
        assert!(status == 0 && number(&report, "/messages") > 0.0, "{report:#}");
        assert_eq!(report["verified"], Value::Bool(false));
    }
}

#[test]
fn people_get_a_few_lines_and_files_get_the_rest() {
    let scratch = Scratch::new();
    let (json, plot) = (scratch.path("report.json"), scratch.path("plot.svg"));
    let server = Server::start("");
    let flags = format!("--json {} --plot {}", json.display(), plot.display());
    let output = bench(&server.addresses[0], &flags);
    assert_eq!((output.status, output.stderr.as_str()), (0, ""), "no progress bar in a pipe");
    for part in ["64 connections", "msgs/s", "MB/s", "p50 ", "p99.9 ", "max ", "errors      none"] {
        assert!(output.stdout.contains(part), "no {part}: {}", output.stdout);
    }
    assert!(!output.stdout.contains('█'), "no histogram in a pipe: {}", output.stdout);
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(number(&report, "/messages") > 0.0);
    let plot = fs::read_to_string(plot).unwrap();
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"), "{plot}");
}

#[test]
fn a_terminal_gets_a_histogram() {
    if !is_there("script") {
        return;
    }
    let server = Server::start("");
    let line = format!("{PROGRAM} bench {} -d 300ms --warm-up 50ms", server.addresses[0]);
    let output = run(std::process::Command::new("script").args(["-qec", &line, "/dev/null"]));
    assert!(output.stdout.contains("msgs/s"), "{}", output.stdout);
    assert!(output.stdout.contains("  ≤ "), "{}", output.stdout);
}

#[test]
fn an_interrupted_run_reports_what_there_was() {
    let server = Server::start("");
    let mut command = command(&format!("bench {} -d 1h --warm-up 0s", server.addresses[0]));
    let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let stdout = collect(process.0.stdout.take().unwrap());
    thread::sleep(Duration::from_millis(500));
    process.signal(SIGINT);
    assert_eq!(process.status(), 0);
    crate::support::until("the report is there", || text(&stdout).contains("errors"));
    let stdout = text(&stdout);
    assert!(stdout.contains(", interrupted\n"), "{stdout}");
    assert!(!stdout.contains("  0 msgs/s"), "{stdout}");
}

#[test]
fn what_cannot_be_is_one_line() {
    for (flags, status, part) in [
        ("", 2, "<ADDR>"),
        ("localhost:1", 2, "names are not resolved"),
        ("127.0.0.1:1 -c x", 2, "--connections: bad number"),
        ("127.0.0.1:1 -c 0", 2, "nothing to do"),
        ("127.0.0.1:1 -p 0", 2, "--in-flight: bad number"),
        ("127.0.0.1:1 -s 0", 2, "--size: bad size"),
        ("127.0.0.1:1 -s 1", 2, "--size: a request has at least 2 bytes"),
        ("127.0.0.1:1 -d 0s", 2, "--duration: bad duration"),
        ("127.0.0.1:1 --rate=-1", 2, "--rate"),
        ("127.0.0.1:1 --rate nan", 2, "--rate: bad rate"),
        ("127.0.0.1:1 --rate 9 -p 2", 2, "--rate: then --in-flight"),
        ("127.0.0.1:1 --rate 9 --mode idle", 2, "--rate: this is for --mode echo"),
        ("127.0.0.1:1 --trickling 1 --mode idle", 2, "--mode echo"),
        ("127.0.0.1:1 --exchange 1", 2, "--exchange: this is for --mode idle"),
        ("127.0.0.1:1 -s 1GiB", 2, "at most 256 MiB"),
        ("127.0.0.1:1 --codec nonsense", 2, "raw, resp"),
        ("127.0.0.1:1 --codec resp --mode broadcast", 2, "--codec resp: "),
        ("127.0.0.1:1 --codec resp -s 300 -p 1000000", 2, "at most 256 MiB"),
        ("127.0.0.1:1 --mode nonsense", 2, "broadcast"),
        ("127.0.0.1:1 --pid 4294967295", 1, "there is no process 4294967295"),
        ("127.0.0.1:1", 1, "cannot connect to 127.0.0.1:1: "),
        ("unix:/nowhere/x.sock", 1, "cannot connect to unix:/nowhere/x.sock: "),
        ("127.0.0.1:1 -c 1000000 --flooding 1000000", 1, "descriptors"),
    ] {
        let output = run(&mut command(&format!("bench {flags}")));
        assert_eq!((output.status, output.stdout.as_str()), (status, ""), "{flags}");
        assert!(output.stderr.contains(part), "{flags}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{flags}: {}", output.stderr);
    }
}

#[test]
fn too_few_descriptors_are_said_before_anything_is_opened() {
    if !is_there("prlimit") {
        return;
    }
    let prlimit = ["prlimit", "--nofile=64:64"];
    let output = run(&mut via(&prlimit, Path::new(PROGRAM), "bench 127.0.0.1:1 -c 60"));
    assert_eq!(output.status, 1);
    assert!(output.stderr.contains("more descriptors than this process may have: 64"));
}

#[test]
fn help_explains_every_flag() {
    let help = run(&mut command("bench --help")).stdout;
    for part in [
        "--connections",
        "--in-flight",
        "--size",
        "--duration",
        "--warm-up",
        "--rate",
        "--codec",
        "resp",
        "--no-verify",
        "--timeout",
        "--spin",
        "--mode",
        "--exchange",
        "--never-reading",
        "--trickling",
        "--trickle-interval",
        "--flooding",
        "--flood-in-flight",
        "--pid",
        "--json",
        "--plot",
        "Examples:",
        "taskset",
        "Exit status",
    ] {
        assert!(help.contains(part), "no {part}");
    }
}
