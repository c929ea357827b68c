//! Seeds that failed once. Each is run for ever after, with the story of what it found.

use nonforker::sim::Scenario;

const FAILED_ONCE: &[(&str, u64, &str)] = &[
    ("echo", 1_005_722, "a slow client with nothing to read kept the simulated network awake"),
    (
        "callbacks",
        125_009,
        "who was accepted as the server ended was kept by the simulated network",
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
