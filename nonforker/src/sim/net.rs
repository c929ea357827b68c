//! One run of a simulation: a server, its clients, and the time between them.

mod posting;
mod shards;
mod waiting;

use std::{
    cell::{Cell, RefCell, RefMut},
    net::IpAddr,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use super::client::Client;
use crate::{
    Handle, Limits, Result, Server, Stats,
    address::Address,
    driver::sim::{
        SimDriver, TURN,
        events::Event,
        faults::Faults,
        link::{End, Reading},
        offloading::run_jobs,
        rng::Rng,
        running::Running,
        sides::Side,
        torture::Torture,
        trace::What,
        world::World,
    },
    engine::Engine,
};

/// The most turns a script waits: a server that never rests would keep it for ever.
const TURNS_MAX: u64 = 20_000_000;

/// How often a handler's timer is waited for at the end of a run.
const TIMERS_MAX: u64 = 1000;

/// The simulated network of one seed. Connect clients to the server with it.
///
/// Time goes on only while something is waited for: a client [expects](Client::expect), or the
/// script [waits](Self::wait). What clients do at one moment happens at one moment.
#[derive(Clone)]
pub struct Net(Rc<Inner>);

/// The most turns in a row in which nothing happens and no time is slept away.
const SPINS_MAX: u32 = 10_000;

struct Inner {
    /// One for each shard.
    engines: Vec<RefCell<Engine<SimDriver>>>,
    /// Whose turn it is.
    turns: Rng,
    world: Rc<RefCell<World>>,
    addresses: Vec<Address>,
    server: Handle,
    rng: Rng,
    drain_at: Cell<Option<Duration>>,
    turns_max: Cell<u64>,
    /// What was last waited for did not come within the most turns that are waited for: in this time.
    restless: Cell<Option<Duration>>,
    spins: Cell<u32>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Net {
    /// The network of a server that has a shard for each of `servers`.
    pub(super) fn new(servers: Vec<Server>, world: Rc<RefCell<World>>, seed: u64) -> Self {
        let (group, mut engines, addresses) = shards::bind(servers, &world);
        let handle = Handle::new(group);
        for (shard, engine) in engines.iter_mut().enumerate() {
            let running = Running::begin(&world, shard);
            let started = engine.start();
            drop(running);
            started.expect("the simulated server can be started");
        }
        Self(Rc::new(Inner {
            engines: engines.into_iter().map(RefCell::new).collect(),
            turns: Rng::new(seed ^ 0x7a2d_5a7d_7a2d_5a7d),
            world,
            addresses,
            server: handle,
            // What the script draws must not depend on what the network draws meanwhile.
            rng: Rng::new(seed ^ 0x5ce9_a710_5ce9_a710),
            drain_at: Cell::new(None),
            turns_max: Cell::new(TURNS_MAX),
            restless: Cell::new(None),
            spins: Cell::new(0),
        }))
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    /// Connects a client to the server's first address.
    ///
    /// Every client has an address of its own: see [`Client::peer`].
    #[must_use]
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// As [`connect`](Self::connect), from this IP address: for what a server does by IP address,
    /// as [`Limits::max_connections_per_ip`](crate::Limits::max_connections_per_ip) does. The port
    /// is the client's own. On a Unix socket clients have no address, and this says nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use nonforker::{Limits, Server, codec::Lines, sim::Simulation};
    /// # let server = || {
    /// #     let server = Server::new().limits(Limits::new().max_connections_per_ip(Some(1)));
    /// #     server.serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line))
    /// # };
    /// Simulation::new(server).run(|net| {
    ///     let one = net.connect_from([192, 0, 2, 1]);
    ///     one.send("hello\n");
    ///     one.expect("hello\n");
    ///     let two = net.connect_from([192, 0, 2, 1]);
    ///     assert!(two.receive_to_end().0.is_empty(), "one connection from there is enough");
    /// });
    /// ```
    #[must_use]
    pub fn connect_from(&self, ip: impl Into<IpAddr>) -> Client {
        self.connect_as(0, Some(ip.into()))
    }

    /// Connects a client to the server's address number `index`, counted as they were given.
    ///
    /// # Panics
    ///
    /// If there is no such address.
    #[must_use]
    pub fn connect_to(&self, index: usize) -> Client {
        self.connect_as(index, None)
    }

    fn connect_as(&self, index: usize, ip: Option<IpAddr>) -> Client {
        assert!(index < self.0.addresses.len(), "the server has no address number {index}");
        let mut world = self.world();
        // From a window of a few bytes to one that takes everything.
        let exponent = world.rng.between(2, 20);
        let window = (1 << exponent) + world.rng.between(0, 1 << exponent);
        let link = world.connect(index, window, ip);
        drop(world);
        Client::new(self.clone(), link)
    }

    /// Stops the server's process for `duration`, as SIGSTOP and SIGCONT do. The network goes on:
    /// what clients send arrives, and clients read what has arrived for them.
    ///
    /// The server finds all of it when it looks next but one: its next look is only told that it
    /// was interrupted, as a kernel tells a process that was stopped in a wait. Several calls in a
    /// row are one absence, in which the script can have clients do things.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use nonforker::{Server, codec::Lines, sim::Simulation};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// Simulation::new(server).run(|net| {
    ///     let client = net.connect();
    ///     net.away(Duration::from_secs(7));
    ///     client.send("hello\n");
    ///     net.away(Duration::from_secs(3));
    ///     client.expect("hello\n");
    ///     assert!(net.now() >= Duration::from_secs(10));
    /// });
    /// ```
    pub fn away(&self, duration: Duration) {
        let mut world = self.world();
        world.note(0, What::Away(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)));
        world.pass(duration);
        world.interrupted = true;
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
        self.0.server.drain();
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
        self.0.server.stop();
        self.wake();
    }

    fn wake(&self) {
        let mut world = self.world();
        world.sides.iter().for_each(|side| side.woken.store(true, Relaxed));
        let now = world.now;
        world.schedule(now, Event::Alarm);
    }

    /// Whether the server has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.engines.iter().all(|engine| engine.borrow().is_done())
    }

    /// How many connections the server cut off when it ended: the number that
    /// [`Error::CutOff`](crate::Error::CutOff) would have, or 0.
    #[must_use]
    pub fn cut_off(&self) -> usize {
        self.0.engines.iter().map(|engine| engine.borrow().cut_off()).sum()
    }

    /// What the server has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.server.stats()
    }

    /// Sets other limits while the server runs, as [`Handle::set_limits`](crate::Handle::set_limits)
    /// does. What is not set is as at the start of a simulation, and not worked out from the machine.
    ///
    /// # Errors
    ///
    /// Those of [`Handle::set_limits`](crate::Handle::set_limits).
    pub fn set_limits(&self, mut limits: Limits) -> Result<()> {
        limits.simulate();
        self.0.server.post_limits(limits)?;
        self.wake();
        Ok(())
    }

    /// A handle of the server, to change who may connect, say. What
    /// [`Handle::set_limits`](crate::Handle::set_limits) works out from the machine is the same
    /// everywhere with [`set_limits`](Self::set_limits).
    #[must_use]
    pub fn server(&self) -> Handle {
        self.0.server.clone()
    }

    /// What one service has counted, as [`Handle::service_stats`](crate::Handle::service_stats) says.
    #[must_use]
    pub fn service_stats(&self, service: usize) -> Option<Stats> {
        self.0.server.service_stats(service)
    }

    /// One turn of the server. Returns whether there will be another.
    fn turn(&self) -> bool {
        if self.0.drain_at.get().is_some_and(|at| at <= self.now()) {
            self.0.drain_at.set(None);
            self.drain();
        }
        run_jobs(&self.0.world);
        let shard = self.world().draw_shard(|count| self.0.turns.between(0, count - 1));
        let Some(shard) = shard else { return self.goes_on_alone() };
        let mut engine = self.0.engines[shard].borrow_mut();
        let (began, before) = (self.now(), self.progress());
        let running = Running::begin(&self.0.world, shard);
        let turned = engine.turn();
        drop(running);
        assert!(turned.is_ok(), "the simulated event queue does not fail");
        let idle = self.now() <= began + TURN && self.progress() == before;
        self.0.spins.set(if idle { self.0.spins.get() + 1 } else { 0 });
        assert!(
            self.0.spins.get() < SPINS_MAX,
            "the server spins: nothing happens, and it is awake"
        );
        let unsound = engine.unsound();
        self.world().sides[shard].ended = engine.is_done();
        drop(engine);
        let unsound = unsound.or_else(|| self.unsound());
        assert_eq!(unsound, None, "the engine is not sound");
        true
    }

    /// The network goes on without the server. Returns whether anything happened.
    fn goes_on_alone(&self) -> bool {
        let mut world = self.world();
        let next = world.next_at();
        world.now = next.map_or(world.now, |at| world.now.max(at));
        world.settle();
        let take = |side: &mut Side| std::mem::take(&mut side.done);
        let late: Vec<_> = world.sides.iter_mut().flat_map(take).collect();
        // The world must be free while they go: a client that was accepted too late is closed.
        drop(world);
        next.is_some() || !late.is_empty()
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
        // Handlers may answer when their timers come, and may set them for ever.
        for _ in 0..TIMERS_MAX {
            if self.world().is_asleep() || !self.turn() {
                break;
            }
            self.settle();
        }
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
        let begun = stats.accepted + stats.outgoing;
        assert_eq!(begun, stats.closed, "connections accepted or asked for, and closed");
        assert_eq!(stats.open_tickets, 0, "tickets of closed connections are open");
        assert_eq!(stats.buffered_bytes, 0, "bytes are left");
    }
}
