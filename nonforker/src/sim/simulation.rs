//! Many runs: one for each seed.

use std::{
    any::Any,
    cell::RefCell,
    env, fmt,
    io::{self, Write},
    mem,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    thread,
    time::Duration,
};

use super::net::Net;
use crate::{
    Server, Stats,
    driver::sim::{faults::Faults, rng::Rng, torture::Torture, trace::Trace, world::World},
    shards::SHARDS_MAX,
};

/// Runs a script against a server, once for each seed.
///
/// See the [module](super) for an example.
pub struct Simulation {
    server: Box<dyn Fn(&Rng) -> Server>,
    shards: usize,
    seeds: Range<u64>,
    faults: Box<dyn Fn(&Rng) -> Faults>,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Simulation {
    /// A simulation of the server that `server` builds, anew for each seed: 100 seeds, with
    /// faults that lose nothing.
    #[must_use]
    pub fn new(server: impl Fn() -> Server + 'static) -> Self {
        Self::varied(move |_| server())
    }

    /// As [`new`](Self::new), with a server that differs from seed to seed: in its limits, say.
    #[must_use]
    pub fn varied(server: impl Fn(&Rng) -> Server + 'static) -> Self {
        let (server, faults) = (Box::new(server), Box::new(Faults::lossless));
        Self { server, shards: 1, seeds: 0..100, faults }
    }

    /// Simulates a server with so many [shards](crate::Shards): from 1 to 256. Default: 1.
    ///
    /// They live in one network and have their turns one after the other, in an order that depends on
    /// the seed. A handler that [works](super::work) keeps its own shard busy, and not the others.
    ///
    /// # Panics
    ///
    /// If there are to be no shards, or more than 256.
    ///
    /// # Examples
    ///
    /// ```
    /// # use nonforker::{Server, codec::Lines, sim::Simulation};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// Simulation::new(server).shards(3).seeds(0..10).run(|net| {
    ///     let clients: Vec<_> = (0..9).map(|_| net.connect()).collect();
    ///     for client in &clients {
    ///         client.send("hello\n");
    ///         client.expect("hello\n");
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards), "there are from 1 to {SHARDS_MAX} shards");
        self.shards = shards;
        self
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
    pub fn faults(mut self, faults: impl Fn(&Rng) -> Faults + 'static) -> Self {
        self.faults = Box::new(faults);
        self
    }

    /// Runs the script once for each seed, and returns the hash of everything that happened: the
    /// same on every machine.
    ///
    /// The first seed runs three times, and has to run alike: what happens may depend on nothing
    /// but the seed, or no failure could be repeated. What breaks that is usually the order of a
    /// `HashMap` that a handler goes through, for each has another; a `BTreeMap` has one. Else it is
    /// a clock of the system ([`Conn::now`](crate::Conn::now) is simulated), a thread, an address in
    /// memory, or what one run leaves outside to the next.
    ///
    /// # Panics
    ///
    /// If the script does, if the engine is found unsound, if in the end a connection stays open or
    /// memory is not given back, or if the first seed does not run alike. The seed and the last
    /// events are printed first.
    pub fn run(self, script: impl Fn(&Net)) -> u64 {
        let chosen = env::var("NONFORKER_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
        let seeds = chosen.map_or_else(|| self.seeds.clone(), |seed| seed..seed.saturating_add(1));
        let first = seeds.start;
        seeds.fold(0, |hash: u64, seed| {
            let ran = match seed == first {
                true => self.run_alike(seed, &script),
                false => self.run_one(seed, &script),
            };
            match ran {
                Ok(run) => hash.rotate_left(7) ^ run.hash,
                Err(failure) => failure.raise(),
            }
        })
    }

    /// Runs a seed three times, and compares.
    fn run_alike(&self, seed: u64, script: impl Fn(&Net)) -> Result<Run, Failure> {
        let faults = self.faults_of(seed);
        let run = || self.run_world(seed, faults, Torture::default(), Trace::to_compare(), &script);
        let first = run()?;
        for _ in 1..ALIKE {
            let again = run().map_err(Failure::unlike)?;
            if first.run != again.run {
                let what = match first.trace.first_difference(&again.trace) {
                    Some([one, other]) => format!("{UNLIKE}\n  first: {one}\n  again: {other}"),
                    None => format!("{UNLIKE} a long time after the start"),
                };
                let trace = again.trace.to_string();
                return Err(Failure { seed, faults, trace, payload: Box::new(what) });
            }
        }
        Ok(first.run)
    }

    /// Runs the script with one seed, and says what became of it. For tools: a test calls
    /// [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`Failure`] where `run` would panic. The panic hook has been called.
    pub fn run_one(&self, seed: u64, script: impl Fn(&Net)) -> Result<Run, Failure> {
        self.run_with(seed, self.faults_of(seed), script)
    }

    /// As [`run_one`](Self::run_one), with faults other than those the seed draws.
    ///
    /// # Errors
    ///
    /// [`Failure`] where `run` would panic. The panic hook has been called.
    pub fn run_with(
        &self,
        seed: u64,
        faults: Faults,
        script: impl Fn(&Net),
    ) -> Result<Run, Failure> {
        let torture = Torture::default();
        self.run_world(seed, faults, torture, Trace::new(), script).map(|ended| ended.run)
    }

    /// Fails one operation of the script's first seed after the other: each accept, read, write
    /// and registration, once and then for ever from there on. curl calls this torture. Returns
    /// how many operations there were.
    ///
    /// The script has to accept that connections break, and nothing else.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// # use nonforker::{Server, codec::Lines, sim::Simulation};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// let operations = Simulation::new(server).torture(|net| {
    ///     let client = net.connect();
    ///     client.send("one\ntwo\n");
    ///     client.half_close();
    ///     assert!(b"one\ntwo\n".starts_with(&client.receive_to_end().0));
    /// });
    /// assert!(operations >= 4, "to accept, to adopt, to read, to write");
    /// ```
    pub fn torture(self, script: impl Fn(&Net)) -> u64 {
        let run = |victim, for_ever| {
            let torture = Torture { count: 0, victim, for_ever };
            let (seed, faults) = (self.seeds.start, Faults::none());
            match self.run_world(seed, faults, torture, Trace::new(), &script) {
                Ok(ended) => ended.torture.count,
                Err(failure) => failure.raise(),
            }
        };
        let operations = run(None, false);
        for victim in 1..=operations {
            run(Some(victim), false);
            run(Some(victim), true);
        }
        operations
    }

    fn run_world(
        &self,
        seed: u64,
        faults: Faults,
        torture: Torture,
        trace: Trace,
        script: impl Fn(&Net),
    ) -> Result<Ended, Failure> {
        #[cfg(feature = "_rustls")]
        super::tls::begin(seed);
        let world = Rc::new(RefCell::new(World::new(seed)));
        world.borrow_mut().trace = trace;
        world.borrow_mut().faults = faults;
        world.borrow_mut().torture = torture;
        let mut tortured = torture;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let make = |_| (self.server)(&Rng::new(seed ^ SERVER_SALT));
            let servers = (0..self.shards).map(make).collect();
            let net = Net::new(servers, Rc::clone(&world), seed);
            script(&net);
            tortured = world.borrow().torture;
            net.finish();
            net.stats()
        }));
        let trace = mem::replace(&mut world.borrow_mut().trace, Trace::new());
        match ran {
            Ok(stats) => {
                let run = Run { hash: trace.hash(), stats, time: world.borrow().now };
                Ok(Ended { run, torture: tortured, trace })
            }
            Err(payload) => Err(Failure { seed, faults, trace: trace.to_string(), payload }),
        }
    }

    /// The faults that a seed draws.
    #[must_use]
    pub fn faults_of(&self, seed: u64) -> Faults {
        (self.faults)(&Rng::new(seed ^ FAULTS_SALT))
    }

    /// Finds the fewest faults with which the seed of `failure` still fails.
    #[must_use]
    pub fn minimise(&self, failure: Failure, script: impl Fn(&Net)) -> Failure {
        let mut smallest = failure;
        for fault in 0..Faults::COUNT {
            let faults = smallest.faults.without(fault);
            if faults != smallest.faults
                && let Err(failure) = self.run_with(smallest.seed, faults, &script)
            {
                smallest = failure;
            }
        }
        smallest
    }
}

/// How often the first seed runs: an order of a few keys may be the same by chance.
const ALIKE: u32 = 3;

/// What is said of a run that cannot be repeated.
const UNLIKE: &str = "the same seed did not run alike again: something depends on more than the \
    seed. Usually it is the order of a HashMap or HashSet, for each has another (a BTreeMap has \
    one); or a clock of the system, a thread, an address in memory, or what one run leaves \
    outside to the next. They parted here:";

/// A run that has come to its end.
struct Ended {
    run: Run,
    torture: Torture,
    trace: Trace,
}

/// What the server draws must not depend on what the network draws, and so on.
const SERVER_SALT: u64 = 0x5e7e_5e7e_5e7e_5e7e;
const FAULTS_SALT: u64 = 0xfa17_fa17_fa17_fa17;

/// A seed that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The hash of everything that happened.
    pub hash: u64,
    /// What the server counted.
    pub stats: Stats,
    /// How much virtual time passed.
    pub time: Duration,
}

/// A seed that failed.
pub struct Failure {
    seed: u64,
    faults: Faults,
    trace: String,
    payload: Box<dyn Any + Send>,
}

impl Failure {
    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// What went wrong on the network.
    #[must_use]
    pub const fn faults(&self) -> Faults {
        self.faults
    }

    /// What the script, or a check, said.
    #[must_use]
    pub fn message(&self) -> &str {
        let text = self.payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| self.payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
    }

    /// It failed where it did not fail before.
    fn unlike(self) -> Self {
        let what = format!("{UNLIKE}\n  first: no failure\n  again: {}", self.message());
        Self { payload: Box::new(what), ..self }
    }

    /// Tells how it came to that, and goes on panicking.
    fn raise(self) -> ! {
        let test = thread::current().name().unwrap_or("the_test").to_owned();
        let replay = format!("replay: NONFORKER_SEED={} cargo test {test}", self.seed);
        // If nobody can read it, the panic below is all there is.
        let _ = writeln!(io::stderr().lock(), "\n{self}\n{replay}");
        resume_unwind(self.payload)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the last events of seed {}:\n{}", self.seed, self.trace)?;
        writeln!(f, "seed {}: {}", self.seed, self.message())?;
        write!(f, "with {}", self.faults)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
