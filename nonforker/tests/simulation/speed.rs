//! How fast the simulator is, for `docs/simulation.md`. Not a check: what a machine takes is no
//! test of the code.
//!
//! ```sh
//! cargo test --release --package nonforker --test simulation speed -- --ignored --nocapture
//! ```

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nonforker::{
    Server,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

fn echo() -> Server {
    Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line))
}

/// The time that this process has had a processor: others that want it do not change it.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("the system counts it").into()
}

/// Runs a script with so many seeds, and prints how many of `what` it did in a second.
#[expect(clippy::print_stdout, reason = "it is run to be read")]
fn measure(what: &str, seeds: u64, per_seed: u64, script: impl Fn(&Net)) {
    let simulation = Simulation::new(echo).faults(|_| Faults::none());
    let began = busy();
    simulation.seeds(0..seeds).run(script);
    let rate = (seeds * per_seed) as f64 / (busy() - began).as_secs_f64();
    println!("{rate:.0} {what} per second");
}

/// Ten clients that each have so many lines in flight, so many times.
fn messages(in_flight: usize, rounds: usize) {
    let lines = "hello\n".repeat(in_flight);
    let what = format!("echoed lines, {in_flight} in flight");
    measure(&what, 1, (10 * in_flight * rounds) as u64, |net| {
        let clients: Vec<Client> = (0..10).map(|_| net.connect()).collect();
        for client in &clients {
            client.set_window(1 << 20);
        }
        for _ in 0..rounds {
            clients.iter().for_each(|client| client.send(&lines));
            clients.iter().for_each(|client| client.expect(&lines));
        }
    });
}

#[test]
#[ignore = "it measures, and checks nothing"]
fn how_much_is_simulated_in_a_second() {
    for _ in 0..3 {
        messages(16, 50_000);
        messages(1, 200_000);
        measure("seeds of three clients with two lines each", 100_000, 1, |net| {
            let clients: Vec<Client> = (0..3).map(|_| net.connect()).collect();
            for client in &clients {
                client.send("one\ntwo\n");
                client.half_close();
            }
            for client in &clients {
                client.expect("one\ntwo\n");
                client.expect_end();
            }
        });
    }
}
