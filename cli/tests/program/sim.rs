//! `nonforker sim` runs what it is asked to, and says what came of it.

use std::fs;

use nix::unistd::Uid;

use crate::support::{PROGRAM, Scratch, command, is_there, run, via};

#[test]
fn a_sweep_says_what_it_did() {
    let output = run(&mut command("sim --seeds 5..25 --jobs 2"));
    assert_eq!((output.status, output.stderr.as_str()), (0, ""));
    assert!(output.stdout.contains("20 seeds of "), "{}", output.stdout);
    assert!(output.stdout.contains("all as it has to be"), "{}", output.stdout);
}

#[test]
fn the_list_names_scenarios_that_can_be_run() {
    let list = run(&mut command("sim --list")).stdout;
    assert!(list.lines().count() >= 6, "{list}");
    for line in list.lines() {
        let name = line.split_whitespace().next().expect("a line begins with a name");
        let output = run(&mut command(&format!("sim --scenario {name} --seeds 7")));
        assert_eq!(output.status, 0, "{}", output.stdout);
        assert!(output.stdout.contains("1 seeds of 1 scenarios"), "{}", output.stdout);
    }
}

#[test]
fn what_cannot_be_simulated_is_one_clear_line() {
    for (line, part) in [
        ("sim --scenario nonsense", "there is no scenario \"nonsense\"; there are echo, "),
        ("sim --seeds 9..3", "the range is empty"),
        ("sim --seeds many", "write a range such as"),
        ("sim --jobs 0", "--jobs"),
        ("sim --jobs 4097", "--jobs: bad number \"4097\": at most 4096"),
        ("sim --jobs 18446744073709551616", "--jobs: bad number \"18446744073709551616\": at most"),
        ("sim --jobs many", "--jobs: bad number \"many\": write a whole number of at least 1"),
        (
            "sim --seeds 18446744073709551615",
            "--seeds: bad seeds \"18446744073709551615\": the last",
        ),
        ("sim --seeds 0..18446744073709551616", "they end at 18446744073709551615"),
    ] {
        let output = run(&mut command(line));
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{line}");
        assert!(output.stderr.contains(part), "{line}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{line}: {}", output.stderr);
    }
}

#[test]
fn the_last_seeds_there_are_come_to_an_end_on_as_many_threads_as_there_are_seeds() {
    for (seeds, count) in [
        ("18446744073709551610..18446744073709551615", "5 seeds of 1 "),
        ("18446744073709551614", "1 seeds of 1 "),
    ] {
        let line = format!("sim --scenario echo --seeds {seeds} --jobs 4096");
        let output = run(&mut command(&line));
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{seeds}");
        assert!(output.stdout.contains(count), "{}", output.stdout);
    }
}

#[test]
fn a_sweep_without_threads_says_why() {
    if !is_there("prlimit") || !is_there("setpriv") {
        return;
    }
    // Another user may not be allowed to read where it was built.
    let scratch = Scratch::new();
    let program = scratch.path("nonforker");
    fs::copy(PROGRAM, &program).unwrap();
    let mut wrapper = vec!["prlimit", "--nproc=1"];
    if Uid::effective().is_root() {
        // The limit does not hold for root.
        wrapper.extend(["setpriv", "--reuid", "65534", "--clear-groups"]);
    }
    let output = run(&mut via(&wrapper, &program, "sim --seeds 0..4 --jobs 2"));
    assert_eq!((output.status, output.stdout.as_str()), (1, ""), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("cannot start thread 1 of 2: "), "{}", output.stderr);
}
