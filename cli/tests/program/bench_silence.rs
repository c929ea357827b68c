//! `nonforker bench` and servers that fall silent, for good or for a while: what is never answered is
//! an error, and what is only slow is none.

use std::{
    io::Read,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal::{self, SIGCONT, SIGINT, SIGSTOP};
use serde_json::Value;

use crate::{
    bench::{bench, number, report},
    bench_faults::{echo, server},
    support::{Process, Server, collect, command, text, until},
};

/// A server that echoes so many bytes on each connection that `hangs`, and then nothing more.
fn hanging(bytes: usize, hangs: impl Fn(usize) -> bool + Clone + Send + 'static) -> String {
    server(move |nth, stream| {
        let hangs = hangs(nth);
        echo(stream, |before, _| {
            if hangs && before >= bytes {
                thread::sleep(Duration::from_secs(3600));
            }
            true
        });
    })
}

/// A server that pauses before each piece.
fn slow(pause: Duration) -> String {
    server(move |_, stream| {
        echo(stream, |_, _| {
            thread::sleep(pause);
            true
        });
    })
}

fn assert_nothing_failed((report, status): &(Value, i32), what: &str) {
    assert_eq!(*status, 0, "{what}: {report:#}");
    assert_eq!(report["errors"]["first"], Value::Null, "{what}: {report:#}");
    assert_eq!(number(report, "/unanswered"), 0.0, "{what}: {report:#}");
}

#[test]
fn a_server_that_hangs_within_the_run_fails_it() {
    let address = hanging(1000, |_| true);
    for flags in ["", "-p 9", "--rate 300", "--no-verify", "--rate 300 --no-verify", "--spin"] {
        let flags = format!("-c 3 --warm-up 0s -d 300ms {flags}");
        let (report, status) = report(&address, &flags);
        assert_eq!(status, 1, "{flags}: {report:#}");
        assert!(number(&report, "/messages") > 0.0, "{flags}: {report:#}");
        assert_eq!(number(&report, "/errors/timeout"), 3.0, "{flags}: {report:#}");
        assert_eq!(number(&report, "/connections_open"), 0.0, "{flags}: {report:#}");
        assert!(number(&report, "/unanswered") >= 3.0, "{flags}: {report:#}");
        let first = report["errors"]["first"].as_str().unwrap();
        assert!(first.contains("no reply in time: a request is unanswered for"), "{first}");
        assert!(first.contains("; the slowest reply took "), "{first}");
        assert!(number(&report, "/latency_us/max") >= 1e6, "its age counts: {report:#}");
        let output = bench(&address, &flags);
        assert_eq!(output.status, 1, "{flags}");
        assert!(output.stdout.contains("3 without a reply in time"), "{}", output.stdout);
        assert!(output.stdout.contains("requests had no reply in the end"), "{}", output.stdout);
        assert!(output.stderr.contains("3 connections failed; the first: "), "{}", output.stderr);
    }
}

#[test]
fn a_server_that_hangs_before_the_window_has_not_one_reply_to_report() {
    let address = hanging(1000, |_| true);
    let output = bench(&address, "-c 3 --warm-up 500ms -d 100ms");
    assert_eq!((output.status, output.stdout.as_str()), (1, ""));
    assert!(output.stderr.contains("no reply in time"), "{}", output.stderr);
}

#[test]
fn one_connection_that_hangs_is_enough() {
    for flags in ["", "-p 5", "--rate 300"] {
        let address = hanging(1000, |nth| nth == 2);
        let flags = format!("-c 4 --warm-up 0s -d 300ms {flags}");
        let (report, status) = report(&address, &flags);
        assert_eq!(status, 1, "{flags}: {report:#}");
        assert_eq!(number(&report, "/errors/timeout"), 1.0, "{flags}: {report:#}");
        assert_eq!(number(&report, "/connections_open"), 3.0, "{flags}: {report:#}");
        let first = report["errors"]["first"].as_str().unwrap();
        assert!(first.starts_with("connection 2: "), "{first}");
    }
}

#[test]
fn flooding_connections_have_to_be_answered_too() {
    let address = hanging(100_000, |nth| nth == 1);
    let (report, status) = report(&address, "-c 1 --flooding 1 --warm-up 0s -d 300ms");
    assert_eq!(status, 1, "{report:#}");
    assert_eq!(number(&report, "/errors/timeout"), 1.0, "{report:#}");
    let address = hanging(100_000, |_| true);
    let alone = bench(&address, "-c 0 --flooding 2 --warm-up 0s -d 300ms");
    assert_eq!(alone.status, 1, "{}", alone.stdout);
}

#[test]
fn requests_late_by_their_own_age_fail_though_others_are_answered() {
    // A reply every 50 ms; each request waits for the 20 before it.
    let address = server(|_, stream| {
        let mut pieces = stream.try_clone().unwrap();
        let mut line = [0; 64];
        while pieces.read_exact(&mut line).is_ok() {
            thread::sleep(Duration::from_millis(50));
            if std::io::Write::write_all(&mut &stream, &line).is_err() {
                return;
            }
        }
    });
    let (slow, status) = report(&address, "-c 1 -p 20 --timeout 400ms --warm-up 0s -d 2s");
    assert_eq!((status, number(&slow, "/errors/timeout")), (1, 1.0), "{slow:#}");
    let flags = "-c 1 -p 20 --warm-up 0s -d 1500ms";
    assert_nothing_failed(&report(&address, flags), flags);
}

#[test]
fn a_server_that_is_slow_but_steady_is_not_faulty() {
    for (pause, flags) in [
        (250, "-c 3 -d 600ms"),
        (250, "-c 3 -p 5 -d 600ms"),
        (250, "-c 3 --rate 12 -d 600ms"),
        (700, "-c 2 --rate 2 -d 1600ms"),
        (1200, "-c 2 -d 1300ms"),
    ] {
        let address = slow(Duration::from_millis(pause));
        let outcome = report(&address, &format!("{flags} --warm-up 0s"));
        assert_nothing_failed(&outcome, flags);
        // Latencies have three digits.
        let least = number(&outcome.0, "/latency_us/min");
        assert!(least >= pause as f64 * 990.0, "{flags}: {least}");
    }
}

#[test]
fn what_is_answered_after_the_end_counts_with_its_latency() {
    let address = slow(Duration::from_millis(600));
    let flags = "-c 2 --warm-up 0s -d 100ms";
    let outcome = report(&address, flags);
    assert_nothing_failed(&outcome, flags);
    assert_eq!(number(&outcome.0, "/messages"), 0.0, "none came in the window");
    assert_eq!(number(&outcome.0, "/latency_us/count"), 2.0, "{:#}", outcome.0);
    assert!(number(&outcome.0, "/latency_us/min") >= 590_000.0, "{:#}", outcome.0);
}

/// A run with its report on standard output.
fn start(address: &str, flags: &str) -> Process {
    let mut command = command(&format!("bench {address} --json - {flags}"));
    Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// The report of a run, and its exit status.
fn end(mut process: Process) -> (Value, i32) {
    let Child { stdout, stderr, .. } = &mut process.0;
    let (stdout, stderr) = (collect(stdout.take().unwrap()), collect(stderr.take().unwrap()));
    let status = process.status();
    until("the report is there", || serde_json::from_str::<Value>(&text(&stdout)).is_ok());
    let report = serde_json::from_str(&text(&stdout)).unwrap();
    // What is on its way through the pipe comes a little after the end.
    until("why it failed is there", || status == 0 || text(&stderr).ends_with('\n'));
    assert!(status == 0 || text(&stderr).lines().count() == 1, "{}", text(&stderr));
    (report, status)
}

fn wait(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

#[test]
fn a_server_that_is_stopped_for_good_fails_the_run() {
    for flags in ["-c 8", "-c 8 -p 4", "-c 8 --rate 2000"] {
        let server = Server::start("");
        let run = start(&server.addresses[0], &format!("{flags} --warm-up 0s -d 1s"));
        wait(500);
        server.process.signal(SIGSTOP);
        let (report, status) = end(run);
        assert_eq!(status, 1, "{flags}: {report:#}");
        assert!(number(&report, "/messages") > 0.0, "{flags}: {report:#}");
        assert_eq!(number(&report, "/errors/timeout"), 8.0, "{flags}: {report:#}");
        assert!(number(&report, "/latency_us/max") >= 1e6, "{flags}: {report:#}");
    }
}

#[test]
fn a_server_that_is_stopped_for_a_while_is_charged_for_it_and_no_more() {
    for flags in ["-c 8", "-c 8 -p 4", "-c 8 --rate 2000"] {
        let server = Server::start("");
        let run = start(&server.addresses[0], &format!("{flags} --warm-up 0s -d 1500ms"));
        wait(500);
        server.process.signal(SIGSTOP);
        wait(400);
        server.process.signal(SIGCONT);
        let outcome = end(run);
        assert_nothing_failed(&outcome, flags);
        assert!(number(&outcome.0, "/latency_us/max") >= 350_000.0, "{flags}: {:#}", outcome.0);
    }
}

#[test]
fn a_load_that_is_stopped_itself_does_not_blame_the_server() {
    let server = Server::start("");
    for flags in ["-c 100", "-c 8 --rate 500", "-c 600"] {
        // Only the age of what was asked before the stop could be above the timeout.
        let flags = format!("{flags} --timeout 2s --warm-up 0s -d 4s");
        let run = start(&server.addresses[0], &flags);
        wait(300);
        run.signal(SIGSTOP);
        wait(2500);
        run.signal(SIGCONT);
        let (report, status) = end(run);
        assert_eq!(status, 0, "{flags}: {report:#}");
        assert_eq!(report["errors"]["first"], Value::Null, "{flags}: {report:#}");
    }
}

#[test]
fn an_interrupted_run_says_that_the_server_hangs() {
    let address = hanging(1000, |_| true);
    let signals: &[(&str, Signal)] = &[("-c 3", SIGINT), ("-c 3 --rate 300", SIGINT)];
    for &(flags, signal) in signals {
        let run = start(&address, &format!("{flags} --timeout 1h --warm-up 0s -d 1h"));
        wait(500);
        run.signal(signal);
        let (report, status) = end(run);
        assert_eq!((status, &report["interrupted"]), (1, &Value::Bool(true)), "{report:#}");
        assert_eq!(number(&report, "/errors/timeout"), 3.0, "{report:#}");
    }
}

#[test]
fn a_rate_at_which_nothing_is_due_is_no_failure() {
    let server = Server::start("");
    let output = bench(&server.addresses[0], "--rate 0.1 -d 500ms --warm-up 50ms");
    assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{}", output.stdout);
    let note = "no request was due: at 0.1 a second there is one every 10.00 s";
    assert!(output.stdout.contains(note), "{}", output.stdout);
    // The first is due at once.
    let (report, status) = report(&server.addresses[0], "--rate 0.1 -d 500ms --warm-up 0s");
    assert_eq!((status, number(&report, "/messages")), (0, 1.0), "{report:#}");
}

#[test]
fn a_rate_that_nobody_can_keep_ends_in_time() {
    let server = Server::start("");
    for rate in ["1e9", "1_000_000_000"] {
        let (report, _) = report(&server.addresses[0], &format!("-c 2 --rate {rate}"));
        assert!(number(&report, "/seconds") < 3.0, "{report:#}");
        assert_eq!(report["target_reached"], Value::Bool(false));
        assert!(number(&report, "/latency_us/count") > 1e8, "{report:#}");
    }
}
