//! What `nonforker bench` refuses before it loads anything, and how it says so.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    bench::{bench, number},
    bench_faults::{echo, server},
    support::{Output, PROGRAM, Scratch, Server, command, is_there, run},
};

fn assert_refuses(output: &Output, status: i32, parts: &[&str]) {
    let Output { status: actual, stdout, stderr } = output;
    assert_eq!((*actual, stdout.as_str()), (status, ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[test]
fn every_number_has_a_bound_that_is_named() {
    let huge = "99999999999999999999999999";
    for (flag, values, bound) in [
        ("--connections", &["1000001", huge][..], "at most 1000000, since"),
        ("--in-flight", &["1000001", huge], "at most 1000000, since"),
        ("--exchange", &["1000001", huge], "at most 1000000, since"),
        ("--never-reading", &["1000001", huge], "at most 1000000, since"),
        ("--trickling", &["1000001", huge], "at most 1000000, since"),
        ("--flooding", &["1000001", huge], "at most 1000000, since"),
        ("--flood-in-flight", &["1000001", huge], "at most 1000000, since"),
        ("--size", &["268435457", "257MiB", "16EiB", "1TiB"], "at most 256 MiB, since"),
        ("--duration", &["2592001s", "100years", "99999999999999999999s"], "at most 30days"),
        ("--warm-up", &["2592001s", "100years", "99999999999999999999s"], "at most 30days"),
        ("--timeout", &["3601s", "2h", "99999999999999999999s"], "at most 1h"),
        ("--trickle-interval", &["3601s", "2h", "99999999999999999999s"], "at most 1h"),
        ("--rate", &["1000000001", "1e300", "0.0009", "0", "inf"], "from 0.001 to 1000000000"),
        ("--in-flight", &["0", "x", "1.5"], "at least 1"),
        ("--flood-in-flight", &["0", "x"], "at least 1"),
        ("--connections", &["x", "1.5", ""], "at least 0 and at most 1000000"),
    ] {
        for value in values {
            let output = run(command("bench 127.0.0.1:1").arg(format!("{flag}={value}")));
            assert_refuses(&output, 2, &[&format!("nonforker: {flag}: bad "), value, bound]);
        }
    }
}

#[test]
fn what_is_too_much_together_is_named_with_its_sum() {
    for (flags, parts) in [
        ("-p 1000000 -s 300", &["--in-flight 1000000 times --size 300: 300000000 bytes"][..]),
        ("-p 1000000 -s 300 --codec resp", &["--in-flight 1000000", "at most 256 MiB"]),
        ("-s 256MiB --codec resp", &["--in-flight 1 times --size 268435456", "at most 256 MiB"]),
        (
            "--flooding 1 --flood-in-flight 900000 -s 300",
            &["--flood-in-flight 900000 times --size 300: 270000000 bytes", "at most 256 MiB"],
        ),
        ("--rate 1e9 -s 1MiB", &["--rate 1000000000 times --size 1048576", "at most 1 TB"]),
        ("--json x --plot x", &["--json and --plot"]),
    ] {
        assert_refuses(&run(&mut command(&format!("bench 127.0.0.1:1 {flags}"))), 2, parts);
    }
}

#[test]
fn the_bounds_themselves_are_taken() {
    // Refused for what comes after the flags: nobody listens.
    for flags in [
        "-p 1000000 -s 64 --warm-up 30d -d 30d --timeout 1h --trickle-interval 1h",
        "--rate 0.001",
        "--rate 1e9",
        "--mode idle --exchange 1000000",
        "--codec raw -s 64MiB -p 4",
    ] {
        let output = run(&mut command(&format!("bench 127.0.0.1:1 {flags}")));
        assert_refuses(&output, 1, &["cannot connect to 127.0.0.1:1: "]);
    }
}

/// A shell in name spaces of its own, where it may do anything; None if there are none.
fn in_a_world_of_its_own(kind: &str, script: &str) -> Option<Output> {
    let is_possible = is_there("unshare")
        && Command::new("unshare").args([kind, "true"]).status().is_ok_and(|it| it.success());
    if !is_possible {
        eprintln!("skipped: there are no name spaces");
        return None;
    }
    Some(run(Command::new("unshare").args([kind, "sh", "-ec", script])))
}

#[test]
fn a_connection_to_itself_is_no_server() {
    // The kernel has one port to choose from: the one where nobody listens.
    let script = format!(
        "ip link set lo up
         echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range
         exec {PROGRAM} bench 127.0.0.1:40000 -d 300ms --warm-up 0s"
    );
    if !is_there("ip") {
        return;
    }
    let Some(output) = in_a_world_of_its_own("-rn", &script) else { return };
    assert_refuses(
        &output,
        1,
        &["cannot connect to 127.0.0.1:40000: the connection is to itself", "no server listens"],
    );
}

#[test]
fn without_proc_that_is_what_is_said() {
    let pid = std::process::id();
    let script = format!(
        "mount -t tmpfs none /proc
         exec {PROGRAM} bench 127.0.0.1:1 --pid {pid}"
    );
    let Some(output) = in_a_world_of_its_own("-rm", &script) else { return };
    let what = format!("--pid: cannot read what process {pid} uses: /proc is missing");
    assert_refuses(&output, 1, &[&what]);
}

#[test]
fn a_file_that_cannot_be_written_is_found_before_the_load() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    for (flag, path) in [
        ("--json", Path::new("/nowhere/report.json")),
        ("--plot", Path::new("/nowhere/plot.svg")),
        ("--json", &folder),
        ("--plot", &folder),
    ] {
        // Were it not found first, it would be that nobody listens.
        let output = bench("127.0.0.1:1", &format!("{flag} {}", path.display()));
        let what = format!("{flag}: cannot write {}: ", path.display());
        assert_refuses(&output, 1, &[&what]);
    }
}

#[test]
fn people_get_their_lines_whatever_becomes_of_the_files() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let scratch = Scratch::new();
    let (json, plot) = (scratch.path("report.json"), scratch.path("plot.svg"));
    let (json, plot) = (json.to_str().unwrap(), plot.to_str().unwrap());
    let server = Server::start("");
    for (flags, what, other) in [
        (format!("--json /dev/full --plot {plot}"), "--json: cannot write /dev/full: ", plot),
        (format!("--plot /dev/full --json {json}"), "--plot: cannot write /dev/full: ", json),
    ] {
        let output = bench(&server.addresses[0], &flags);
        assert_eq!(output.status, 1, "{}", output.stderr);
        assert!(output.stdout.contains("errors      none"), "{flags}: {}", output.stdout);
        assert!(output.stderr.contains(what), "{flags}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{flags}: {}", output.stderr);
        assert!(!fs::read_to_string(other).unwrap().is_empty(), "the other one is written");
    }
    // Standard output is all that there is, and is full.
    let script = format!(
        "exec {PROGRAM} bench {} -d 200ms --warm-up 0s --json - > /dev/full",
        server.addresses[0]
    );
    let output = run(Command::new("sh").args(["-c", &script]));
    assert_eq!(output.status, 1, "{}", output.stderr);
    for part in ["msgs/s", "errors      none", "--json: cannot write -: No space left"] {
        assert!(output.stderr.contains(part), "no {part}: {}", output.stderr);
    }
}

#[test]
fn faults_and_files_are_reported_together() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let address = server(|_, stream| echo(stream, |before, _| before < 1000));
    let output = bench(&address, "-c 3 --warm-up 0s -d 30s --json /dev/full");
    assert_eq!(output.status, 1);
    assert!(output.stdout.contains("3 closed"), "{}", output.stdout);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    for part in ["3 connections failed; the first: ", "; --json: cannot write /dev/full: "] {
        assert!(output.stderr.contains(part), "no {part}: {}", output.stderr);
    }
}

#[test]
fn a_report_of_before_does_not_outlive_a_run_without_one() {
    let scratch = Scratch::new();
    let json = scratch.write("report.json", "{}");
    let output = bench("127.0.0.1:1", &format!("--json {}", json.display()));
    assert_refuses(&output, 1, &["cannot connect to"]);
    assert_eq!(fs::read_to_string(&json).unwrap(), "", "it is not taken for one of this run");
    let server = Server::start("");
    assert_eq!(bench(&server.addresses[0], &format!("--json {}", json.display())).status, 0);
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert!(number(&report, "/messages") > 0.0, "{report:#}");
}
