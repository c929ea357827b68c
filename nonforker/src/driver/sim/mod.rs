//! The driver without sockets, threads or a clock of the system: a seeded network.
//!
//! ```text
//!  engine ── submit ──▶ SimDriver ──▶ World ◀── clients (sim::Net)
//!         ◀── wait ────     │           │
//!                           └─ faults ──┘ both draw from one seed
//! ```
//!
//! Time is a number. When the engine sleeps it jumps to the next event, or to the end of the
//! sleep. The engine is the same as over a kernel, so what is found here is true there.

mod accepting;
mod acting;
pub(crate) mod connecting;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod link;
pub(crate) mod offloading;
mod receiving;
pub(crate) mod rng;
mod round;
pub(crate) mod running;
mod sending;
pub(crate) mod sides;
pub(crate) mod torture;
pub(crate) mod trace;
pub(crate) mod world;

use std::{
    cell::{RefCell, RefMut},
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::io::Errno;

use self::{
    link::{End, State},
    sides::Hold,
    trace::What,
    world::{LinkId, Listener, World},
};
use super::{
    Clock, Completion, Destination, Driver, ListenerId, ListenerShare, Next, Op, Options, Sent,
    Sink, Token, Waker,
};
use crate::{
    address::{Address, PeerCredentials},
    conn::buffer::Buffer,
};

/// What one wait costs: without it a server that never sleeps would stop time.
pub(crate) const TURN: Duration = Duration::from_micros(1);

/// A connection that was accepted and not yet adopted. To drop it is to close it.
#[derive(Debug)]
pub(crate) struct SimSocket {
    link: LinkId,
    /// `None` once it is adopted.
    world: Option<Rc<RefCell<World>>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(world) = &self.world {
            world.borrow_mut().close(self.link, false);
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct SimDriver {
    world: Rc<RefCell<World>>,
    /// Which shard of the server it is for.
    shard: usize,
    options: Options,
    /// How many links are left from a wait whose sink had enough: they come before anything new.
    round: usize,
    /// The last wait looked at nothing: it was interrupted.
    missed: bool,
}

impl SimDriver {
    pub(crate) fn new(world: Rc<RefCell<World>>, shard: usize, options: Options) -> Self {
        world.borrow_mut().backlog_max = usize::from(options.backlog);
        Self { world, shard, options, round: 0, missed: false }
    }

    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// Passes on what is at hand. Returns whether the engine lets us sleep.
    fn deliver(&self, sink: &mut impl Sink<SimSocket>) -> Next {
        let mut next = self.deliver_connected(sink);
        loop {
            // The world must be free while the sink runs: a socket may be dropped in it.
            let first = self.world().sides[self.shard].done.pop_front();
            let Some(completion) = first else { return next };
            if sink.take(completion) != Next::Sleep {
                next = Next::Return;
            }
        }
    }

    /// Jumps to whatever comes first: an event, or the end of the sleep.
    fn sleep(&self, timeout: Option<Duration>) {
        let mut world = self.world();
        let timeout = if world.is_woken(self.shard) { Some(Duration::ZERO) } else { timeout };
        let wakes = timeout.map(|timeout| world.now.saturating_add(timeout));
        world.rest(self.shard, wakes);
        let jump = world.faults.clock_jump;
        if world.rng.chance(jump) {
            let millis = world.rng.below(60_000);
            world.now += Duration::from_millis(millis);
            world.note(0, What::ClockJumps(millis));
        }
    }
}

impl Driver for SimDriver {
    type Socket = SimSocket;

    fn listen(
        &mut self,
        listener: ListenerId,
        address: &Address,
        _urgent: bool,
    ) -> io::Result<Address> {
        let mut world = self.world();
        let address = world.bind(address)?;
        debug_assert_eq!(listener, world.listeners.len(), "listeners are opened in order");
        let mut holds = vec![Hold::default(); world.sides.len()];
        holds[self.shard].open = true;
        let backlog = std::collections::VecDeque::new();
        world.listeners.push(Listener { address: address.clone(), backlog, holds });
        Ok(address)
    }

    fn share_of(&self, listener: ListenerId) -> io::Result<ListenerShare> {
        Ok(ListenerShare::Simulated(listener))
    }

    fn share(
        &mut self,
        listener: ListenerId,
        other: ListenerShare,
        _urgent: bool,
    ) -> io::Result<Address> {
        debug_assert!(matches!(other, ListenerShare::Simulated(other) if other == listener));
        let mut world = self.world();
        let listener = &mut world.listeners[listener];
        listener.holds[self.shard].open = true;
        Ok(listener.address.clone())
    }

    fn submit(&mut self, op: Op<SimSocket>) {
        match op {
            Op::Accept { listener, on } => return self.turn_accepting(listener, on),
            Op::Unlisten { listener } => self.turn_accepting(listener, false),
            _ => {}
        }
        let mut world = self.world();
        let world = &mut *world;
        match op {
            Op::Accept { .. } => {}
            Op::Connect { attempt, to, .. } => {
                let address = match to {
                    Destination::Address(address) => address,
                    // A script plays it: it listens at `unix:@exec:COMMAND`.
                    Destination::Program(program) => Address::Abstract(program.to_string()),
                };
                world.call(self.shard, attempt, address);
            }
            Op::Abandon { attempt } => world.abandon(self.shard, attempt),
            Op::Unlisten { listener } => {
                world.listeners[listener].holds[self.shard] = Hold::default();
                if world.listeners[listener].is_open() {
                    return;
                }
                for link in std::mem::take(&mut world.listeners[listener].backlog) {
                    world.links[link].state = State::Closed;
                    world.end_down(link, End::Reset);
                }
            }
            Op::Adopt { token, mut socket } => {
                socket.world = None;
                let link = socket.link;
                world.links[link].state = State::Adopted(token);
                world.sides[self.shard].by_token.insert(token, link);
                if world.torture.strikes() {
                    let error = Errno::NOMEM.into();
                    world.report(link, Completion::Failed { token, error });
                }
                world.look_at(link);
            }
            Op::Receive { token, on } => {
                let link = self.known(world, token);
                let state = &mut world.links[link];
                state.receiving = on;
                if state.arrived() > 0 || state.up_end != End::Open {
                    world.look_at(link);
                }
            }
            Op::ShutdownWrite { token } => {
                let link = self.known(world, token);
                world.note(link, What::ServerShutsDown);
                world.links[link].shut = true;
                world.end_down(link, End::Finished);
            }
            Op::Close { token, reset } => {
                let link = self.known(world, token);
                world.sides[self.shard].by_token.remove(token);
                let in_flight = world.close(link, reset);
                let at = world.report_time(link);
                if let Some(batch) = in_flight {
                    let sent = Sent::cancelled(batch);
                    world.report_at(self.shard, at, Completion::Sent { token, sent });
                }
                world.report_at(self.shard, at, Completion::Closed { token });
            }
        }
    }

    fn send(&mut self, token: Token, batch: Buffer, _awaited: bool) -> Option<Sent> {
        let mut world = self.world();
        let link = self.known(&world, token);
        world.send(token, link, batch)
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut impl Sink<SimSocket>,
    ) -> io::Result<()> {
        let awake = self.deliver(sink) != Next::Sleep;
        self.world().now += TURN;
        if self.round > 0 {
            self.serve_round(sink);
            return Ok(());
        }
        let interrupted = self.world().is_away();
        let busy = awake || interrupted || self.can_accept() || self.world().has_news(self.shard);
        self.world().stirs(self.shard);
        if !busy {
            self.sleep(timeout);
        }
        sink.awake();
        let spurious = self.world().faults.spurious;
        self.missed = interrupted || self.world().rng.chance(spurious);
        if self.missed {
            return Ok(());
        }
        self.world().settle();
        let woken = self.world().sides[self.shard].woken.swap(false, Relaxed);
        if woken {
            sink.take(Completion::Woken);
        }
        if woken || self.can_accept() || self.world().has_news(self.shard) {
            self.world().stirs(self.shard);
        }
        let round = self.world().begin_round(self.shard);
        self.round = round;
        self.serve_round(sink);
        self.deliver_connected(sink);
        // What a send that waited has led to belongs to this look.
        self.deliver(sink);
        self.accept(sink);
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.round > 0 || self.missed
    }

    fn unread(&self, token: Token) -> usize {
        let world = self.world();
        world.links[self.known(&world, token)].arrived()
    }

    fn unacknowledged(&self, token: Token) -> Option<usize> {
        let world = self.world();
        Some(world.links[self.known(&world, token)].unacknowledged())
    }

    fn credentials(&self, _token: Token) -> Option<PeerCredentials> {
        Some(PeerCredentials::new(1, 1000, 1000))
    }

    fn clock(&self) -> Clock {
        let (world, shard) = (Rc::clone(&self.world), self.shard);
        Clock::virtual_time(move || world.borrow().time_of(shard))
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.world().sides[self.shard].woken);
        Waker::at_home(move || woken.store(true, Relaxed))
    }
}

impl SimDriver {
    /// The link of a token. That the engine names one that is closed is what a simulation looks for.
    fn known(&self, world: &World, token: Token) -> LinkId {
        let link = world.sides[self.shard].by_token.get(token).copied();
        link.expect("an operation names a token that is not closed")
    }
}
