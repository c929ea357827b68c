//! Workers that the script plays: where they are, and how a server that has them is run.

use std::time::Duration;

use nonforker::{
    Server, Workers,
    codec::Lines,
    sim::{Faults, Listener, Net, Simulation},
};

pub(crate) const WORKER: &str = "10.9.9.9:7";
pub(crate) type Settings = Workers<Lines, Lines>;

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Runs a script that plays the workers of a server.
pub(crate) fn run_on(
    server: impl Fn() -> Server + 'static,
    simulation: impl FnOnce(Simulation) -> Simulation,
    script: impl Fn(&Net, &Listener),
) {
    simulation(Simulation::new(server)).run(|net| {
        let listener = net.listen(WORKER);
        script(net, &listener);
    });
}

pub(crate) fn quiet(simulation: Simulation) -> Simulation {
    simulation.faults(|_| Faults::none()).seeds(0..20)
}
