//! The loop: completions in, operations out. Written once, for every driver.
//!
//! ```text
//!        ┌──────────────────────────── one turn ────────────────────────────┐
//!        │  wait ──▶ completions ──▶ handlers          (dispatch, service)   │
//!        │           accepted      ──▶ slots           (accept)              │
//!        │           due deadlines ──▶ handlers, closes (timers)             │
//!        │           held frames   ──▶ handlers                              │
//!        │           dirty slots   ──▶ operations      (flush)               │
//!        └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While the driver delivers, nothing is submitted: handlers run, and connections are marked dirty.
//! Then everything is submitted together. So one turn is one batch of completions and one batch of
//! operations, and a connection has one write per turn.

mod accept;
mod batch;
pub(crate) mod core;
mod dispatch;
pub(crate) mod drain;
mod due;
mod flush;
mod memory;
pub(crate) mod pool;
pub(crate) mod replies;
mod scarcity;
pub(crate) mod service;
mod size;
mod slow;
mod sound;
pub(crate) mod stats;
mod throttle;
mod timers;
mod unused;

use std::{io, sync::Arc, time::Duration};

use self::{
    accept::Acceptor,
    core::{Core, ServiceId},
    drain::{Phase, Request},
    service::Service,
};
use crate::{
    address::Address,
    config::Limits,
    driver::{Completion, Driver, ListenerId, Next, Token, Waker, nanos},
    error::CloseReason,
};

/// The services of a server, by [`ServiceId`].
pub(crate) type Services = Vec<Box<dyn Service>>;

/// See the [module](self).
pub(crate) struct Engine<D: Driver> {
    driver: D,
    core: Core,
    services: Services,
    acceptor: Acceptor<D::Socket>,
    phase: Phase,
    request: Arc<Request>,
    listeners: usize,
    /// Accepting failed within the present wait.
    accept_failures: Vec<(ListenerId, io::Error)>,
    /// Connections that a drain has not cut yet.
    uncut: Vec<Token>,
    /// What the clock had shown before the driver began its present look.
    look_began: u64,
    /// How many connections a stop took something from.
    cut_off: usize,
}

impl<D: Driver> Engine<D> {
    pub(crate) fn new(driver: D, limits: Limits, services: Services) -> Self {
        let connections_max = limits.connections();
        let core = Core::new(limits, driver.clock());
        Self {
            driver,
            core,
            services,
            acceptor: Acceptor::new(connections_max),
            phase: Phase::Serving,
            request: Arc::default(),
            listeners: 0,
            accept_failures: Vec::new(),
            uncut: Vec::new(),
            look_began: 0,
            cut_off: 0,
        }
    }

    /// Opens a listener for a service and returns its actual address.
    pub(crate) fn listen(&mut self, address: &Address, service: ServiceId) -> io::Result<Address> {
        let wants_urgent =
            self.services.get(service as usize).is_some_and(|service| service.wants_urgent());
        let actual = self.driver.listen(self.listeners, address, wants_urgent)?;
        self.listeners += 1;
        self.acceptor.add(service);
        Ok(actual)
    }

    /// What a handle needs: to ask for the end, to wake the driver, to read the counters.
    pub(crate) fn remote(&self) -> (Arc<Request>, Waker, Arc<stats::Counters>) {
        (Arc::clone(&self.request), self.driver.waker(), Arc::clone(&self.core.counters))
    }

    /// Serves until it is drained or stopped.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            self.turn()?;
        }
        self.core.pool.clear();
        Ok(())
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.mind_doors();
        // What becomes runnable from here on has its turn in the next one.
        let runnable = std::mem::take(&mut self.core.runnable);
        let brought = self.wait(!runnable.is_empty())?;
        self.admit();
        if self.core.timers.has_news(self.core.judged()) {
            self.run_timers();
        }
        let brought = if runnable.is_empty() { brought } else { brought.and_something() };
        for token in runnable {
            self.core.run(&mut self.services, token);
        }
        self.mind_phase(brought);
        self.core.throttles.tell(self.core.tick());
        self.flush_all();
        self.balance_memory();
        if !self.core.dirty.is_empty() {
            // Whoever was evicted, or receives again.
            self.flush_all();
        }
        Ok(())
    }

    /// Has the driver deliver what there is.
    fn wait(&mut self, is_busy: bool) -> io::Result<Brought> {
        let timeout = if is_busy { Some(Duration::ZERO) } else { self.timeout() };
        if !self.driver.is_behind() {
            self.look_began = self.core.now;
        }
        self.core.timers_moved = false;
        self.core.collected = 0;
        let mut turn = Turn {
            core: &mut self.core,
            services: &mut self.services,
            acceptor: &mut self.acceptor,
            accept_failures: &mut self.accept_failures,
            brought: Brought { something: false, looked: false },
            next: Next::Sleep,
        };
        if timeout != Some(Duration::ZERO)
            && let Some(spin) = turn.core.limits.busy_poll
        {
            turn.spin(&mut self.driver, spin.min(timeout.unwrap_or(Duration::MAX)))?;
        }
        // What has come is handled before anything else is waited for.
        if turn.next == Next::Sleep {
            self.driver.wait(timeout, &mut |completion| turn.take(completion))?;
        }
        let mut brought = turn.brought;
        if !self.driver.is_behind() {
            self.core.looked = self.look_began;
        }
        // Not all of what it saw has been delivered.
        brought.looked &= !self.core.has_collected_enough();
        while let Some((listener, error)) = self.accept_failures.pop() {
            self.accept_failed(listener, &error);
        }
        Ok(brought)
    }

    /// How long the driver may sleep.
    fn timeout(&self) -> Option<Duration> {
        if matches!(self.phase, Phase::Settling { .. }) || self.is_about_to_cut() {
            return Some(Duration::ZERO);
        }
        let earliest = [
            self.core.timers.earliest(),
            self.acceptor.look_at(),
            self.phase.deadline(),
            self.core.memory.look_at,
            self.core.throttles.tell_at(),
        ];
        let at = earliest.into_iter().flatten().min()?;
        Some(self.core.until(at))
    }
}

/// What a batch of completions is delivered to: the engine without its driver.
struct Turn<'a, S> {
    core: &'a mut Core,
    services: &'a mut Services,
    acceptor: &'a mut Acceptor<S>,
    accept_failures: &'a mut Vec<(ListenerId, io::Error)>,
    brought: Brought,
    /// The most that was asked of the driver.
    next: Next,
}

/// What a turn has brought.
#[derive(Clone, Copy, Debug)]
struct Brought {
    /// Something new from a peer, or there was work left from before.
    something: bool,
    /// The driver looked for what is new and delivered it all. Who brought nothing has nothing.
    looked: bool,
}

impl Brought {
    const fn and_something(self) -> Self {
        Self { something: true, ..self }
    }
}

impl<S> Turn<'_, S> {
    /// Looks for what is new without sleeping, again and again for as long as `most`.
    ///
    /// To be woken takes the kernel longer than to serve a message does: for a client that sends
    /// its next request when it has the reply, this is half of the time.
    fn spin<D: Driver<Socket = S>>(&mut self, driver: &mut D, most: Duration) -> io::Result<()> {
        self.core.look_at_clock();
        let until = self.core.now.saturating_add(nanos(most));
        while self.next == Next::Sleep && self.core.now < until {
            driver.wait(Some(Duration::ZERO), &mut |completion| self.take(completion))?;
        }
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, completion: Completion<'_, S>) -> Next {
        let next = self.dispatch(completion);
        if next != Next::Sleep {
            self.next = next;
        }
        next
    }

    #[inline(always)]
    fn dispatch(&mut self, completion: Completion<'_, S>) -> Next {
        match completion {
            Completion::Received { token, bytes } => {
                self.brought.something = true;
                self.core.received(self.services, token, bytes);
            }
            Completion::Sent { token, sent } => self.core.sent(token, sent),
            Completion::Accepted { listener, socket, peer } => {
                self.brought.something = true;
                self.acceptor.park(listener, socket, peer);
                return Next::Return;
            }
            Completion::EndOfStream { token } => {
                self.brought.something = true;
                self.core.end_of_stream(self.services, token);
            }
            Completion::Urgent { token, byte } => self.core.urgent(self.services, token, byte),
            Completion::Failed { token, error } => {
                self.core.fail(token, CloseReason::Broken(error), false);
            }
            Completion::Closed { token } => {
                self.closed(token);
                // There is room for somebody who waits, or nobody is left and this is the end.
                return Next::Return;
            }
            Completion::AcceptFailed { listener, error } => {
                self.accept_failures.push((listener, error));
                return Next::Return;
            }
            Completion::Woken => return Next::Return,
            Completion::Awake => {
                self.brought.looked = true;
                self.core.look_at_clock();
            }
        }
        self.core.next()
    }

    fn closed(&mut self, token: Token) {
        if let Some(slot) = self.core.slots.get(token) {
            self.acceptor
                .released(slot.peer.peer(), self.core.limits.max_connections_per_ip.is_some());
        }
        self.core.released(token);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io, rc::Rc, time::Duration};

    use super::Engine;
    use crate::{
        address::Address,
        config::Limits,
        conn::buffer::Buffer,
        driver::{Clock, Completion, Driver, ListenerId, Op, Sent, Sink, Token, Waker},
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

        fn wait(&mut self, timeout: Option<Duration>, sink: &mut Sink<'_, ()>) -> io::Result<()> {
            self.waits.push(timeout);
            self.now.set(self.now.get() + Duration::from_micros(10));
            sink(Completion::Awake);
            if self.waits.len() == self.woken_in {
                sink(Completion::Woken);
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
            let limits = Limits::new().busy_poll(busy_poll.map(Duration::from_micros));
            let mut engine = Engine::new(driver, limits, Vec::new());
            engine.turn().expect("nothing fails");
            assert_eq!(engine.driver.waits, waits, "{busy_poll:?} µs, woken in {woken_in}");
        }
    }
}
