//! Any seed of any scenario: coverage chooses the seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nonforker::sim::Scenario;

fuzz_target!(|input: (u8, u64)| {
    let scenario = Scenario::ALL[usize::from(input.0) % Scenario::ALL.len()];
    if let Err(failure) = scenario.run_one(input.1) {
        panic!("{} {failure}", scenario.name());
    }
});
