//! Seeds that failed once. Each is run for ever after, with the story of what it found.

#[path = "../../cli/src/scenarios/mod.rs"]
#[expect(dead_code, reason = "the program prints what they are about, and looks for fewer faults")]
mod scenarios;

use scenarios::Scenario;

const FAILED_ONCE: &[(&str, u64, &str)] = &[
    ("echo", 1_005_722, "a slow client with nothing to read kept the simulated network awake"),
    (
        "workers",
        23_635,
        "a worker that began again while a client lingered kept a server that had stopped",
    ),
];

#[test]
fn what_failed_once_does_not_fail_again() {
    for &(name, seed, story) in FAILED_ONCE {
        let scenario = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        let scenario = scenario.expect("the scenario exists");
        if let Err(failure) = scenario.run_one(seed) {
            panic!("{story}\n{failure}");
        }
    }
}
