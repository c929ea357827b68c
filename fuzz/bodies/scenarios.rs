//! Any seed of any scenario: coverage chooses the seeds.

#[path = "../../cli/src/scenarios/mod.rs"]
#[expect(dead_code, reason = "the program prints what they are, and looks for fewer faults")]
mod all;

use self::all::Scenario;

/// Which scenario, and the seed.
pub type Input = (u8, u64);

/// Runs that seed of that scenario.
pub fn run(input: Input) {
    let scenario = Scenario::ALL[usize::from(input.0) % Scenario::ALL.len()];
    if let Err(failure) = scenario.run_one(input.1) {
        panic!("{} {failure}", scenario.name());
    }
}
