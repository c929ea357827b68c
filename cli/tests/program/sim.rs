//! `nonforker sim` runs what it is asked to, and says what came of it.

use crate::support::{command, run};

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
    ] {
        let output = run(&mut command(line));
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{line}");
        assert!(output.stderr.contains(part), "{line}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{line}: {}", output.stderr);
    }
}
