//! Many runs: one for each seed.

use std::{
    any::Any,
    cell::RefCell,
    env,
    io::Write,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use super::net::Net;
use crate::{
    Server,
    driver::sim::{faults::Faults, rng::Rng, world::World},
};

/// Runs a script against a server, once for each seed.
///
/// See the [module](super) for an example.
pub struct Simulation<S> {
    server: S,
    seeds: Range<u64>,
    faults: Box<dyn Fn(&mut Rng) -> Faults>,
}

impl<S> std::fmt::Debug for Simulation<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl<S: Fn() -> Server> Simulation<S> {
    /// A simulation of the server that `server` builds, anew for each seed: 100 seeds, with
    /// faults that lose nothing.
    #[must_use]
    pub fn new(server: S) -> Self {
        Self { server, seeds: 0..100, faults: Box::new(Faults::lossless) }
    }

    /// Which seeds to run. Default: 0 to 99.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// What goes wrong, drawn for each seed. Default: [`Faults::lossless`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use nonforker::{Server, codec::Lines, sim::{Faults, Simulation}};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// Simulation::new(server).seeds(0..10).faults(Faults::swarm).run(|net| {
    ///     let client = net.connect();
    ///     client.send("x\n");
    ///     // The connection may break, but nothing else may come back.
    ///     client.half_close();
    ///     assert!(b"x\n".starts_with(&client.receive_to_end().0));
    /// });
    /// ```
    #[must_use]
    pub fn faults(mut self, faults: impl Fn(&mut Rng) -> Faults + 'static) -> Self {
        self.faults = Box::new(faults);
        self
    }

    /// Runs the script once for each seed, and returns the hash of everything that happened: the
    /// same on every machine.
    ///
    /// # Panics
    ///
    /// If the script does, if the engine is found unsound, or if in the end a connection stays
    /// open or memory is not given back. The seed and the last events are printed first.
    pub fn run(self, script: impl Fn(&Net)) -> u64 {
        let chosen = env::var("NONFORKER_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
        let seeds = chosen.map_or(self.seeds.clone(), |seed| seed..seed + 1);
        seeds.fold(0, |hash: u64, seed| {
            let ran = self.run_seed(seed, &script);
            hash.rotate_left(7) ^ ran.unwrap_or_else(|failure| failure.raise())
        })
    }

    /// Runs the script with one seed. Returns the hash of everything that happened.
    pub(crate) fn run_seed(&self, seed: u64, script: impl Fn(&Net)) -> Result<u64, Failure> {
        let world = Rc::new(RefCell::new(World::new(seed)));
        let faults = (self.faults)(&mut Rng::new(seed.wrapping_mul(0x9e37_79b9)));
        world.borrow_mut().faults = faults;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let net = Net::new((self.server)(), Rc::clone(&world), seed);
            script(&net);
            net.finish();
        }));
        let world = world.borrow();
        match ran {
            Ok(()) => Ok(world.trace.hash()),
            Err(payload) => Err(Failure { seed, faults, trace: world.trace.to_string(), payload }),
        }
    }
}

/// A seed that failed.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) trace: String,
    payload: Box<dyn Any + Send>,
}

impl Failure {
    /// What the script, or a check, said.
    pub(crate) fn message(&self) -> &str {
        let text = self.payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| self.payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
    }

    /// Tells how it came to that, and goes on panicking.
    fn raise(self) -> ! {
        let test = std::thread::current().name().unwrap_or("the_test").to_owned();
        let _ = writeln!(
            std::io::stderr().lock(),
            "\nthe last events of seed {}:\n{}\n{}\nfaults: {:?}\nreplay: NONFORKER_SEED={} cargo test {test}",
            self.seed,
            self.trace,
            self.message(),
            self.faults,
            self.seed,
        );
        resume_unwind(self.payload)
    }
}
