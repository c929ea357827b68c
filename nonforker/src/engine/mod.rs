//! The loop: completions in, operations out. Written once, for every driver.
//!
//! ```text
//!        ┌──────────────────────────── one turn ────────────────────────────┐
//!        │  wait ──▶ completions ──▶ handlers          (shard, service)      │
//!        │           accepted      ──▶ slots           (accept)              │
//!        │           due deadlines ──▶ handlers, closes (due)                │
//!        │           held frames   ──▶ handlers                              │
//!        │           dirty slots   ──▶ operations      (flush)               │
//!        └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While the driver delivers, nothing is submitted: handlers run, and connections are marked dirty.
//! Then everything is submitted together. So one turn is one batch of completions and one batch of
//! operations, and a connection has one write per turn.
//!
//! Most turns do nothing but that. What only some do is behind one flag,
//! [`unusual`](Shard::unusual), and one time, [`due_at`](Shard::due_at).

mod accept;
mod access;
mod aging;
mod arriving;
mod balance;
pub(crate) mod came_by;
pub(crate) mod certificates;
pub(crate) mod connecting;
pub(crate) mod core;
pub(crate) mod desk;
pub(crate) mod drain;
mod due;
mod encrypted;
pub(crate) mod failures;
mod flush;
pub(crate) mod group;
mod impaired;
pub(crate) mod mail;
mod marks;
mod memory;
mod places;
pub(crate) mod pool;
mod relaying;
pub(crate) mod resolver;
pub(crate) mod rules;
mod scarcity;
mod sent;
pub(crate) mod service;
mod settings;
mod shard;
pub(crate) mod shared;
mod size;
pub(crate) mod slot;
mod slow;
mod sound;
pub(crate) mod stats;
pub(crate) mod table;
mod throttle;
pub(crate) mod tickets;
mod timers;
pub(crate) mod topics;
mod unused;

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use self::{
    group::{Group, doors::DoorSettings},
    mail::{Mail, Mailbox, mail_bytes_max},
    resolver::Resolver,
    service::Service,
    shard::Shard,
    slot::ServiceId,
};
use crate::{
    access::Entrance,
    address::Address,
    driver::{Driver, ListenerId, ListenerShare, Next, nanos, sim::rng::Rng},
    error::Error,
    networks::Networks,
    offload::Threads,
    service_limits::AllLimits,
    tls::Tls,
};

/// The services of a server, by [`ServiceId`].
pub(crate) type Services = Vec<Box<dyn Service>>;

/// See the [module](self).
pub(crate) struct Engine<D: Driver> {
    driver: D,
    shard: Shard<D::Socket>,
}

impl<D: Driver> Engine<D> {
    pub(crate) fn new(
        driver: D,
        limits: AllLimits,
        services: Services,
        group: Arc<Group>,
        number: u16,
    ) -> Self {
        group.of_shard(number).set_waker(driver.waker());
        let bytes_max = mail_bytes_max(limits.server.budget().0, group.shards());
        let mail = Mail::new(Mailbox::new(limits.server.remote_max, bytes_max, driver.waker()));
        let shard = Shard::new(limits, driver.clock(), services, group, number, mail);
        Self { driver, shard }
    }

    /// From now on handlers can offload work, to these threads.
    pub(crate) fn offload_to(&mut self, threads: impl Threads + 'static) {
        self.shard.core.offload = Some(Box::new(threads));
    }

    /// From now on handlers can connect to names. Their waits before another attempt depend on `seed`.
    pub(crate) fn resolve_with(&mut self, resolver: Resolver, seed: u64) {
        self.shard.core.outgoing.resolver = Some(resolver);
        self.shard.core.outgoing.rng = Some(Rng::new(seed));
    }

    /// Opens a listener for a service and returns its actual address.
    pub(crate) fn listen(
        &mut self,
        address: &Address,
        service: ServiceId,
        proxies: Option<Networks>,
    ) -> io::Result<Address> {
        self.add_listener(service, proxies, |driver, listener, urgent| {
            driver.listen(listener, address, urgent)
        })
    }

    /// Takes a listener over for a service and returns its address.
    pub(crate) fn take_over(
        &mut self,
        given: OwnedFd,
        service: ServiceId,
        proxies: Option<Networks>,
    ) -> io::Result<Address> {
        self.add_listener(service, proxies, |driver, listener, urgent| {
            driver.take_over(listener, given, urgent)
        })
    }

    /// Listens where another shard does.
    pub(crate) fn share(
        &mut self,
        other: ListenerShare,
        service: ServiceId,
        proxies: Option<Networks>,
    ) -> io::Result<Address> {
        self.add_listener(service, proxies, |driver, listener, urgent| {
            driver.share(listener, other, urgent)
        })
    }

    /// A share of each listener, for another shard.
    pub(crate) fn shares(&self) -> io::Result<Vec<ListenerShare>> {
        let listeners = 0..self.shard.acceptor.listeners();
        listeners.map(|listener| self.driver.share_of(listener)).collect()
    }

    /// What holds for the listeners, before they are opened.
    pub(crate) fn open_doors(&mut self, entrances: impl Iterator<Item = Entrance>) {
        let settings = entrances.map(|entrance| DoorSettings { entrance, suspended: false });
        self.shard.acceptor.entrances = settings.collect();
        self.shard.core.group.set_doors(self.shard.acceptor.entrances.clone());
    }

    fn add_listener(
        &mut self,
        service: ServiceId,
        proxies: Option<Networks>,
        open: impl FnOnce(&mut D, ListenerId, bool) -> io::Result<Address>,
    ) -> io::Result<Address> {
        let Self { driver, shard } = self;
        let wants_urgent =
            shard.services.get(service as usize).is_some_and(|service| service.wants_urgent());
        let actual = open(driver, shard.acceptor.listeners(), wants_urgent)?;
        shard.acceptor.add(service, proxies);
        shard.core.came_by.add(service, actual.clone());
        Ok(actual)
    }

    /// Connections of a listener begin with a handshake by these certificates from now on.
    pub(crate) fn set_tls(&mut self, listener: ListenerId, tls: Tls) {
        self.shard.acceptor.set_tls(listener, tls);
    }

    /// What handlers of a service can change to, if they can.
    pub(crate) fn set_start_tls(&mut self, service: ServiceId, tls: Option<Tls>) {
        if let Some(desk) = self.shard.core.desks.get_mut(service as usize) {
            desk.start_tls = tls;
        }
    }

    /// All listeners are there: from now on their certificates can be replaced.
    pub(crate) fn note_tls(&self) {
        let Shard { core, acceptor, .. } = &self.shard;
        let desks = &core.desks;
        let in_force = (0..acceptor.listeners()).map(|listener| {
            let (tls, service) = acceptor.of_listener(listener)?;
            tls.or_else(|| desks.get(service as usize)?.start_tls.clone())
        });
        core.group.tls.note(in_force.collect());
    }

    /// Tells every handler that the server begins.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        self.shard.start()?;
        // What was asked for is under way before the first sleep.
        self.flush_all();
        Ok(())
    }

    /// Serves until it is drained or stopped. Returns how many connections that cut off.
    pub(crate) fn run(&mut self) -> io::Result<usize> {
        while !self.is_done() {
            self.turn()?;
        }
        self.shard.core.pool.clear();
        Ok(self.cut_off())
    }

    /// What the server ends with, if something in it has failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.shard.core.group.failure.take()
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        if self.shard.unusual {
            self.switch_accepting();
        }
        self.wait()?;
        if self.shard.unusual {
            self.shard.follow_settings();
            self.shard.follow_doors();
            self.shard.follow_certificates();
            self.shard.read_mail();
            self.go_on_connecting();
            self.admit();
            self.follow_others();
        }
        if self.shard.is_anything_due() {
            self.run_timers();
        }
        if !self.shard.running.is_empty() {
            self.shard.go_on();
        }
        if self.shard.unusual {
            self.move_phase();
        }
        self.flush_all();
        if !self.shard.core.alone {
            self.shard.core.report_memory();
        }
        if self.shard.core.memory.wants_attention() {
            self.balance_memory();
        }
        let core = &self.shard.core;
        core.counters.buffered_bytes.set(core.memory.used());
        if self.shard.unusual {
            self.shard.go_on_with_tickets();
            self.shard.unusual = self.shard.is_unusual();
        }
        Ok(())
    }

    /// Has the driver deliver what there is.
    fn wait(&mut self) -> io::Result<()> {
        let Self { driver, shard } = self;
        let timeout = shard.begin_turn();
        if let Some(spin) = shard.core.limits.busy_poll
            && timeout != Some(Duration::ZERO)
        {
            Self::spin(driver, shard, spin.min(timeout.unwrap_or(Duration::MAX)))?;
        }
        // What has come is handled before anything else is waited for.
        if shard.wants == Next::Sleep {
            driver.wait(timeout, shard)?;
        }
        shard.is_behind = driver.is_behind();
        if !shard.is_behind {
            shard.core.looked = shard.look_began;
        }
        // Not all of what it saw has been delivered, or it was interrupted and saw nothing.
        shard.brought.looked &= !shard.is_behind && !shard.core.has_collected_enough();
        Ok(())
    }

    /// Looks for what is new without sleeping, again and again for as long as `most`.
    ///
    /// To be woken takes the kernel longer than to serve a message does: for a client that sends
    /// its next request when it has the reply, this is half of the time.
    fn spin(driver: &mut D, shard: &mut Shard<D::Socket>, most: Duration) -> io::Result<()> {
        shard.core.look_at_clock();
        let until = shard.core.now.saturating_add(nanos(most));
        while shard.wants == Next::Sleep && shard.core.now < until {
            driver.wait(Some(Duration::ZERO), shard)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io, rc::Rc, time::Duration};

    use super::{Engine, group::Group};
    use crate::{
        address::Address,
        config::Limits,
        conn::buffer::Buffer,
        driver::{Clock, Completion, Driver, ListenerId, Op, Sent, Sink, Token, Waker},
        service_limits::AllLimits,
    };

    /// A driver that notes how long it may sleep, and is woken in the wait of this number.
    struct Noting {
        waits: Vec<Option<Duration>>,
        woken_in: usize,
        now: Rc<Cell<Duration>>,
    }

    impl Driver for Noting {
        type Socket = ();

        fn listen(&mut self, _: ListenerId, address: &Address, _: bool) -> io::Result<Address> {
            Ok(address.clone())
        }

        fn submit(&mut self, _: Op<()>) {}

        fn send(&mut self, _: Token, _: Buffer, _: bool) -> Option<Sent> {
            None
        }

        fn wait(&mut self, timeout: Option<Duration>, sink: &mut impl Sink<()>) -> io::Result<()> {
            self.waits.push(timeout);
            self.now.set(self.now.get() + Duration::from_micros(10));
            sink.take(Completion::Awake);
            if self.waits.len() == self.woken_in {
                sink.take(Completion::Woken);
            }
            Ok(())
        }

        fn is_behind(&self) -> bool {
            false
        }

        fn unread(&self, _: Token) -> usize {
            0
        }

        fn unacknowledged(&self, _: Token) -> Option<usize> {
            None
        }

        fn clock(&self) -> Clock {
            let now = Rc::clone(&self.now);
            Clock::virtual_time(move || now.get())
        }

        fn waker(&self) -> Waker {
            Waker::new(|| ())
        }
    }

    #[test]
    fn it_looks_for_a_while_before_it_sleeps_if_asked_to() {
        let (look, sleep) = (Some(Duration::ZERO), None);
        for (busy_poll, woken_in, waits) in [
            (None, 1, vec![sleep]),
            (Some(30), 9, vec![look, look, look, sleep]),
            (Some(30), 2, vec![look, look]),
            (Some(0), 9, vec![sleep]),
        ] {
            let driver = Noting { waits: Vec::new(), woken_in, now: Rc::default() };
            let server = Limits::new().busy_poll(busy_poll.map(Duration::from_micros));
            let limits = AllLimits { server, ..AllLimits::default() };
            let group = Group::alone();
            let mut engine = Engine::new(driver, limits, Vec::new(), group, 0);
            engine.turn().expect("nothing fails");
            assert_eq!(engine.driver.waits, waits, "{busy_poll:?} µs, woken in {woken_in}");
        }
    }
}
