//! One run of a simulation: a server, its clients, and the time between them.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
    time::Duration,
};

use super::client::Client;
use crate::{
    Server, Stats,
    address::Address,
    driver::sim::{
        SimDriver, TURN,
        events::Event,
        faults::Faults,
        link::{End, Reading},
        rng::Rng,
        torture::Torture,
        world::World,
    },
    engine::{Engine, drain::Request, stats::Counters},
};

/// How long a script waits for something, in virtual time, before it says that it never comes.
pub(super) const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The most turns a script waits: a server that never rests would keep it for ever.
const TURNS_MAX: u64 = 20_000_000;

/// The simulated network of one seed. Connect clients to the server with it.
///
/// Time goes on only while something is waited for: a client [expects](Client::expect), or the
/// script [waits](Self::wait). What clients do at one moment happens at one moment.
#[derive(Clone)]
pub struct Net(Rc<Inner>);

/// The most turns in a row in which nothing happens and no time is slept away.
const SPINS_MAX: u32 = 10_000;

struct Inner {
    engine: RefCell<Engine<SimDriver>>,
    world: Rc<RefCell<World>>,
    addresses: Vec<Address>,
    request: std::sync::Arc<Request>,
    counters: std::sync::Arc<Counters>,
    rng: Rng,
    drain_at: Cell<Option<Duration>>,
    spins: Cell<u32>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Net {
    pub(super) fn new(server: Server, world: Rc<RefCell<World>>, seed: u64) -> Self {
        let (engine, addresses) =
            server.simulate(Rc::clone(&world)).expect("the simulated server can be started");
        let (request, _, counters) = engine.remote();
        Self(Rc::new(Inner {
            engine: RefCell::new(engine),
            world,
            addresses,
            request,
            counters,
            // What the script draws must not depend on what the network draws meanwhile.
            rng: Rng::new(seed ^ 0x5ce9_a710_5ce9_a710),
            drain_at: Cell::new(None),
            spins: Cell::new(0),
        }))
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    /// Connects a client to the server's first address.
    #[must_use]
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// Connects a client to the server's address number `index`, counted as they were given.
    ///
    /// # Panics
    ///
    /// If there is no such address.
    #[must_use]
    pub fn connect_to(&self, index: usize) -> Client {
        assert!(index < self.0.addresses.len(), "the server has no address number {index}");
        let mut world = self.world();
        // From a window of a few bytes to one that takes everything.
        let exponent = world.rng.between(2, 20);
        let window = (1 << exponent) + world.rng.between(0, 1 << exponent);
        let link = world.connect(index, window);
        drop(world);
        Client::new(self.clone(), link)
    }

    /// Lets `duration` of virtual time pass.
    pub fn wait(&self, duration: Duration) {
        let until = self.now().saturating_add(duration);
        self.world().schedule(until, Event::Alarm);
        while self.now() < until {
            self.turn();
        }
    }

    /// Lets everything happen that is under way, until the server only sleeps: at most for a
    /// day, since timers may go on for ever.
    pub fn settle(&self) {
        let until = self.now().saturating_add(PATIENCE);
        for _ in 0..TURNS_MAX {
            if self.world().asleep || self.now() >= until || !self.turn() {
                return;
            }
        }
    }

    /// Virtual time since the run began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.world.borrow().now
    }

    /// Numbers for the script that depend on the seed only.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.0.rng.clone()
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Asks the server to drain, as SIGTERM does.
    pub fn drain(&self) {
        self.0.request.drain();
        self.wake();
    }

    /// Has the server drained at some time from now on, whatever the script does then.
    pub fn drain_in(&self, duration: Duration) {
        let at = self.now().saturating_add(duration);
        self.0.drain_at.set(Some(at));
        self.world().schedule(at, Event::Alarm);
    }

    /// Asks the server to stop at once.
    pub fn stop(&self) {
        self.0.request.stop();
        self.wake();
    }

    fn wake(&self) {
        let mut world = self.world();
        world.woken = true;
        let now = world.now;
        world.schedule(now, Event::Alarm);
    }

    /// Whether the server has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.engine.borrow().is_done()
    }

    /// How many connections the server cut off when it ended: the number that
    /// [`Error::CutOff`](crate::Error::CutOff) would have, or 0.
    #[must_use]
    pub fn cut_off(&self) -> usize {
        self.0.engine.borrow().cut_off()
    }

    /// What the server has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.snapshot()
    }

    /// Goes on until `reached`. Returns whether it was.
    pub(super) fn until(&self, mut reached: impl FnMut(&World) -> bool) -> bool {
        let patience = self.now().saturating_add(PATIENCE);
        for _ in 0..TURNS_MAX {
            if reached(&self.world()) {
                return true;
            }
            if self.world().asleep || self.now() > patience || !self.turn() {
                return reached(&self.world());
            }
        }
        false
    }

    /// One turn of the server. Returns whether there will be another.
    fn turn(&self) -> bool {
        if self.0.drain_at.get().is_some_and(|at| at <= self.now()) {
            self.0.drain_at.set(None);
            self.drain();
        }
        let mut engine = self.0.engine.borrow_mut();
        if engine.is_done() {
            // The network goes on without it.
            let mut world = self.world();
            let Some(at) = world.next_at() else { return false };
            world.now = world.now.max(at);
            world.settle();
            let late = std::mem::take(&mut world.done);
            // The world must be free while they go: whoever was accepted too late is sent away.
            drop(world);
            drop(late);
            return true;
        }
        let (began, before) = (self.now(), self.progress());
        let turned = engine.turn();
        assert!(turned.is_ok(), "the simulated event queue does not fail");
        let idle = self.now() <= began + TURN && self.progress() == before;
        self.0.spins.set(if idle { self.0.spins.get() + 1 } else { 0 });
        assert!(
            self.0.spins.get() < SPINS_MAX,
            "the server spins: nothing happens, and it is awake"
        );
        let unsound = engine.unsound();
        drop(engine);
        assert_eq!(unsound, None, "the engine is not sound");
        true
    }

    /// What changes when anything happens.
    fn progress(&self) -> (u64, u64) {
        (self.0.world.borrow().trace.hash(), self.stats().frames)
    }

    /// The end of every run: with nothing going wrong any more, everybody is answered or closed,
    /// and nothing is left.
    pub(super) fn finish(&self) {
        self.set_faults(Faults::none());
        self.world().torture = Torture::default();
        let links = self.world().links.len();
        for link in 0..links {
            let mut world = self.world();
            world.set_reading(link, Reading::All);
            if !world.links[link].half_closed {
                world.end_up(link, End::Finished);
            }
        }
        self.settle();
        self.drain();
        for _ in 0..TURNS_MAX {
            if self.has_ended() {
                break;
            }
            self.turn();
        }
        assert!(self.has_ended(), "the server does not drain");
        self.settle();
        let open = (0..links).find(|&link| !self.world().links[link].is_closed());
        assert_eq!(open, None, "a client was not closed");
        let stats = self.stats();
        assert_eq!(stats.defects, 0, "events that cannot happen");
        assert_eq!(stats.accepted, stats.closed, "connections accepted and closed");
        assert_eq!(stats.buffered_bytes, 0, "bytes are left");
    }
}
