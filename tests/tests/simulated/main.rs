//! The engine on a simulated network: what it promises, under every fault, for many seeds.
//!
//! The scenarios are those of the program, `nonforker sim`, which sweeps millions of seeds of them.
//! What holds for the engine after every turn is checked by the simulation itself.

mod access;
mod across;
mod anybody;
mod away;
mod callbacks;
mod codecs;
mod crew;
mod cut_off;
mod drain;
mod ends;
mod finish;
mod handler_timers;
mod held_back;
mod hogs;
mod impaired;
mod limits;
mod memory;
mod offloading;
mod open_tickets;
mod others;
mod outgoing;
mod posting;
mod proxy;
mod published;
mod relaying;
mod replay;
mod scarce_workers;
mod scarcity;
#[path = "../../../cli/src/scenarios/mod.rs"]
#[expect(dead_code, reason = "the program prints what they are about")]
mod scenarios;
mod services;
mod settings;
mod settle;
mod shards;
mod stopping;
mod tagged;
mod tagged_always;
mod targets;
mod tickets;
mod time;
#[cfg(feature = "_rustls")]
mod tls;
#[cfg(feature = "_rustls")]
mod tls_out;
mod topics;
mod turns;
mod waiting;
mod warnings;
mod workers;

use self::scenarios::Scenario;

/// A fixed set. `NONFORKER_SEEDS` sets another number, `nonforker sim --seeds A..B` runs others.
const SEEDS: u64 = 1000;

#[expect(clippy::panic, reason = "this is how a test fails")]
fn sweep(scenario: Scenario) {
    let seeds = std::env::var("NONFORKER_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS) {
        if let Err(failure) = scenario.run_one(seed) {
            let name = scenario.name();
            let failure = scenario.minimise(failure);
            panic!("{failure}\nreplay: nonforker sim --scenario {name} --seeds {seed}");
        }
    }
}

#[test]
fn the_scenarios_hold_for_a_fixed_set_of_seeds() {
    std::thread::scope(|scope| {
        let sweeps = Scenario::ALL.map(|scenario| {
            let name = scenario.name().to_owned();
            let sweep = move || sweep(scenario);
            std::thread::Builder::new().name(name).spawn_scoped(scope, sweep).expect("a thread")
        });
        for sweep in sweeps {
            sweep.join().expect("the scenario holds");
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for scenario in Scenario::ALL {
        for seed in 0..30 {
            let hash = || scenario.run_one(seed).expect("the scenario holds").hash;
            assert_eq!(hash(), hash(), "{} {seed}", scenario.name());
        }
    }
}
