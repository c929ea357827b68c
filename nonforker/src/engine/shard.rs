//! A shard: its connections, its services, and what each completion does to them. No driver.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Services,
    accept::Acceptor,
    connecting::Made,
    core::{COLLECTED_MAX, Core, time_of},
    drain::Phase,
    encrypted::Scratch,
    group::Group,
    mail::Mail,
    rules::Rules,
    service::{Scope, Service},
    slot::Slot,
    stats::AllCounters,
    table::{Entry, Table},
};
use crate::{
    conn::{
        bars::Bars,
        deadlines::Tick,
        state::{Event, State},
    },
    driver::{Clock, Completion, Next, Sent, Sink, Token},
    error::{CloseReason, Error},
    service_limits::AllLimits,
};

/// See the [module](self).
pub(super) struct Shard<S> {
    pub(super) core: Core,
    pub(super) table: Table,
    pub(super) services: Services,
    pub(super) acceptor: Acceptor<S>,
    /// Connections that a drain has not cut yet.
    pub(super) uncut: Vec<Token>,
    /// How many connections a stop took something from.
    pub(super) cut_off: usize,
    /// What the present turn has brought.
    pub(super) brought: Brought,
    /// The most that was asked of the driver in the present wait.
    pub(super) wants: Next,
    /// What the clock had shown before the driver began its present look.
    pub(super) look_began: u64,
    /// The driver has not delivered all that it saw in its last look: its next wait goes on with that.
    pub(super) is_behind: bool,
    /// Accepting, memory or the phase may have to be looked at. While it is not set, they need not.
    pub(super) unusual: bool,
    /// Nothing is due before this time, in nanoseconds.
    pub(super) due_at: Option<u64>,
    /// Connections that go on in this turn.
    pub(super) running: Vec<Token>,
    /// What attempts to connect have led to in this wait.
    pub(super) made: Vec<Made<S>>,
    /// Connections that have ended and that no driver knows.
    pub(super) gone: Vec<Token>,
    pub(super) scratch: Scratch,
    /// How often certificates had been replaced when that was last looked at.
    pub(super) certificates_seen: usize,
}

/// What a turn has brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought {
    /// Something new from a peer, or there was work left from before.
    pub(super) something: bool,
    /// The driver looked for what is new and delivered it all. Who brought nothing has nothing.
    pub(super) looked: bool,
}

impl<S> Shard<S> {
    pub(super) fn new(
        limits: AllLimits,
        clock: Clock,
        services: Services,
        group: Arc<Group>,
        number: u16,
        mail: Mail,
    ) -> Self {
        let connections_max = limits.server.connections();
        let counters = Arc::new(AllCounters::of(services.len()));
        let rules = Rules::of_all(&limits, &counters.services);
        let mut core = Core::new(limits.server.clone(), counters, clock, group, number, mail);
        core.desks =
            services.iter().zip(rules).map(|(service, rules)| service.desk(rules)).collect();
        core.shared.begins(&core, limits);
        Self {
            core,
            table: Table::new(connections_max),
            services,
            acceptor: Acceptor::new(connections_max),
            uncut: Vec::new(),
            cut_off: 0,
            brought: Brought { something: false, looked: false },
            wants: Next::Sleep,
            look_began: 0,
            is_behind: false,
            unusual: true,
            due_at: None,
            running: Vec::new(),
            made: Vec::new(),
            gone: Vec::new(),
            scratch: Scratch::default(),
            certificates_seen: 0,
        }
    }

    /// Tells every handler that the server begins.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        self.core.look_at_clock();
        for (id, service) in (0..).zip(&mut self.services) {
            service.started(&mut self.core, &mut self.table, id).map_err(Error::Handler)?;
        }
        Ok(())
    }

    /// A turn begins. Returns how long the driver may sleep.
    pub(super) fn begin_turn(&mut self) -> Option<Duration> {
        if self.unusual || mem::take(&mut self.core.timers_moved) {
            self.due_at = self.earliest().map(time_of);
        }
        if !self.is_behind {
            self.look_began = self.core.now;
        }
        self.core.timers_moved = false;
        self.core.collected = 0;
        self.core.handshakes.begin_turn();
        // What becomes runnable from here on has its turn in the next one.
        if !self.core.runnable.is_empty() {
            mem::swap(&mut self.core.runnable, &mut self.running);
        }
        self.brought = Brought { something: !self.running.is_empty(), looked: false };
        self.wants = Next::Sleep;
        let is_busy = !self.running.is_empty()
            || self.unusual
                && (matches!(self.core.phase, Phase::Settling { .. })
                    || self.is_about_to_cut()
                    || !self.gone.is_empty()
                    || self.core.mail.is_left());
        match self.due_at {
            _ if is_busy => Some(Duration::ZERO),
            Some(at) => Some(Duration::from_nanos(at.saturating_sub(self.core.now))),
            None => None,
        }
    }

    /// When something is due first.
    pub(super) fn earliest(&self) -> Option<Tick> {
        let core = &self.core;
        let first = [
            core.timers.earliest(),
            self.acceptor.look_at(),
            self.acceptor.balance.look_at(),
            self.core.phase.deadline(),
            core.ages.next(),
            core.memory.look_at,
            core.throttles.tell_at(),
        ];
        let of_services = core.desks.iter().filter_map(|desk| desk.due);
        first.into_iter().flatten().chain(of_services).min()
    }

    /// Whether a time has come, or a deadline has outlived a wait.
    #[inline]
    pub(super) fn is_anything_due(&self) -> bool {
        match self.due_at {
            Some(at) if at <= self.core.now => true,
            _ => self.core.timers.has_any_young(),
        }
    }

    /// Whether accepting, memory or the phase is to be looked at in the next turn as well.
    pub(super) fn is_unusual(&self) -> bool {
        self.core.phase != Phase::Serving
            || !self.uncut.is_empty()
            || self.core.memory.is_scarce()
            || self.acceptor.is_unusual()
            || self.core.mail.is_left()
            || !self.gone.is_empty()
            || self.core.tickets.has_waiting()
            || self.is_about_to_switch()
    }

    /// What the driver is to do: whether it may sleep, and whether it should bring more.
    #[inline]
    fn next(&mut self) -> Next {
        let core = &self.core;
        let next = if core.collected >= COLLECTED_MAX {
            Next::Enough
        } else if !core.dirty.is_empty()
            || !core.runnable.is_empty()
            || core.timers_moved
            // While it is scarce, there is always something unusual.
            || self.unusual && core.memory.is_scarce()
        {
            Next::Return
        } else {
            Next::Sleep
        };
        self.wants = self.wants.max(next);
        next
    }

    #[inline(never)]
    fn take_rare(&mut self, completion: Completion<'_, S>) -> Next {
        let mut next = Next::Sleep;
        match completion {
            Completion::Accepted { listener, socket, peer } => {
                self.brought.something = true;
                self.acceptor.park(listener, socket, peer);
                next = Next::Return;
            }
            Completion::AcceptFailed { listener, error } => {
                self.accept_failed(listener, &error);
                next = Next::Return;
            }
            Completion::EndOfStream { token } => {
                self.brought.something = true;
                self.end_of_stream(token);
            }
            Completion::Connected { attempt, socket, peer } => {
                self.brought.something = true;
                self.connected(attempt, socket, peer);
                next = Next::Return;
            }
            Completion::ConnectFailed { attempt, error } => self.connect_failed(attempt, error),
            Completion::Urgent { token, byte } => self.urgent(token, byte),
            Completion::Failed { token, error } => {
                if let Some(slot) = self.table.get_mut(token) {
                    self.core.fail(slot, CloseReason::Broken(error), false);
                }
            }
            Completion::Closed { token } => {
                // There is room for a client that waits, or no connection is left: this is the end.
                self.released(token);
                next = Next::Return;
            }
            Completion::Woken => next = Next::Return,
            Completion::Received { .. } | Completion::Sent { .. } | Completion::Awake => {}
        }
        self.unusual |= next == Next::Return;
        self.wants = self.wants.max(next);
        next.max(self.next())
    }

    /// Bytes arrived that cannot be decoded where they lie.
    #[inline(never)]
    pub(super) fn received_aside(&mut self, entry: &mut Entry, bytes: &[u8]) {
        if entry.slot.conn.bars().has(Bars::RELAYED) && entry.slot.conn.state().handles() {
            return self.relayed(entry, bytes);
        }
        let (slot, core) = (&mut entry.slot, &mut self.core);
        let state = slot.conn.state();
        if state.handles() {
            core.keep(slot, bytes);
            if slot.conn.bars().is_none() {
                self.call_entry(entry, |service, scope| service.kept(scope));
            } else {
                core.hold(slot, false);
            }
        } else if state.discards() {
            core.discarded(slot, bytes.len());
        } else if state == State::Arriving {
            self.arriving(entry, bytes);
        }
    }

    /// A connection was accepted: its handler is told, unless it is still arriving.
    pub(super) fn open(&mut self, token: Token) {
        if self.table.get(token).is_some_and(Slot::has_opened) {
            self.call(token, |service, scope| service.open(scope));
        }
    }

    /// Has its service do something for a connection.
    pub(super) fn call(&mut self, token: Token, call: impl FnOnce(&mut dyn Service, Scope<'_>)) {
        let Some(mut entry) = self.table.take(token) else { return };
        self.call_entry(&mut entry, call);
        self.table.put_back(entry);
    }

    /// The same for a connection that is taken out.
    pub(super) fn call_entry(
        &mut self,
        entry: &mut Entry,
        call: impl FnOnce(&mut dyn Service, Scope<'_>),
    ) {
        let Self { core, table, services, .. } = self;
        if let Some(service) = services.get_mut(entry.slot.service() as usize) {
            call(&mut **service, Scope { core, table, entry });
        }
    }

    /// The peer has finished sending.
    pub(super) fn end_of_stream(&mut self, token: Token) {
        let Some(slot) = self.table.get_mut(token) else { return };
        slot.receiving_ended();
        if slot.conn.state() == State::Closing {
            return;
        }
        let is_encrypted = slot.conn.is_encrypted();
        if is_encrypted && (slot.conn.ends_behind_records() || self.finished_on_the_wire(token)) {
            return;
        }
        let Some(mut entry) = self.table.take(token) else { return };
        self.peer_finished(&mut entry);
        self.table.put_back(entry);
    }

    /// Nothing more comes from the peer: what is left is handled, or passed on.
    pub(super) fn peer_finished(&mut self, entry: &mut Entry) {
        let slot = &mut entry.slot;
        slot.conn.apply(Event::PeerFinished);
        self.core.mark_dirty(slot);
        if slot.conn.bars().has(Bars::RELAYED) {
            self.core.mark_runnable(slot);
        } else {
            self.call_entry(entry, |service, scope| service.advance(scope));
        }
    }

    /// The peer sent an urgent byte.
    fn urgent(&mut self, token: Token, byte: u8) {
        let Some(slot) = self.table.get_mut(token) else { return };
        self.core.is_active(slot);
        if slot.conn.state().handles() {
            self.call(token, |service, scope| service.urgent(scope, byte));
        }
    }

    /// A send is no longer in flight.
    #[inline]
    fn sent(&mut self, token: Token, Sent { batch, result }: Sent) {
        let core = &mut self.core;
        let Some(slot) = self.table.get_mut(token) else { return core.pool.put(batch) };
        match result {
            Ok(count) => core.sent(slot, count, batch),
            Err(error) => return core.send_failed(slot, error, batch),
        }
        let conn = &slot.conn;
        // With nothing to follow there is nothing to flush.
        let is_done = conn.outbound().is_empty() && conn.bars().is_none();
        if is_done && !conn.bars().has(Bars::ENDS) && !slot.is_starved() {
            slot.settle_account(&mut core.memory);
        } else {
            core.mark_dirty(slot);
        }
    }

    /// Lets those connections go on that wait for us.
    pub(super) fn go_on(&mut self) {
        for at in 0..self.running.len() {
            let token = self.running[at];
            let Some(slot) = self.table.get_mut(token) else { continue };
            slot.runs();
            if slot.conn.shakes() {
                self.open_records(token);
            }
            let Some(slot) = self.table.get_mut(token) else { continue };
            let is_relieved = slot.relieve();
            if !slot.conn.state().handles() {
                continue;
            }
            if slot.conn.bars().has(Bars::RELAYED) {
                self.go_on_relaying(token);
            } else {
                self.core.mark_dirty(slot);
                if self.core.tickets.are_out() {
                    self.unusual |= self.core.wait_for_tickets(slot);
                }
                self.call(token, |service, mut scope| {
                    if is_relieved {
                        service.relieved(scope.again());
                    }
                    service.advance(scope);
                });
            }
            if self.table.get(token).is_some_and(|slot| slot.conn.has_unread_records()) {
                self.open_records(token);
            }
        }
        self.running.clear();
    }
}

impl<S> Sink<S> for Shard<S> {
    fn take(&mut self, completion: Completion<'_, S>) -> Next {
        match completion {
            Completion::Received { token, bytes } => return self.received(token, bytes),
            Completion::Sent { token, sent } => self.sent(token, sent),
            Completion::Awake => self.awake(),
            other => return self.take_rare(other),
        }
        self.next()
    }

    fn awake(&mut self) {
        self.brought.looked = true;
        self.core.look_at(Clock::EXACT);
    }

    /// The peer sent bytes.
    #[inline]
    fn received(&mut self, token: Token, bytes: &mut [u8]) -> Next {
        self.brought.something = true;
        if let Some(mut entry) = self.table.take(token) {
            let Self { core, table, services, .. } = self;
            let slot = &mut entry.slot;
            slot.rules.counters.received_bytes.add(bytes.len());
            let is_encrypted = slot.received() && core.watch_received(slot, bytes.len());
            if core.tickets.are_out() {
                self.unusual |= core.wait_for_tickets(slot);
            }
            if is_encrypted {
                self.received_encrypted(&mut entry, bytes);
            } else if !slot.conn.takes_frames_in_place() {
                self.received_aside(&mut entry, bytes);
            } else if let Some(service) = services.get_mut(slot.rules.service as usize) {
                service.received(Scope { core, table, entry: &mut entry }, bytes);
            }
            if self.unusual && self.core.memory.is_scarce() {
                self.core.mark_dirty(&mut entry.slot);
            }
            self.table.put_back(entry);
        }
        self.next()
    }
}

impl Core {
    /// Bytes came to a connection on which more than usual depends on that. Returns whether they are
    /// encrypted.
    #[inline(never)]
    fn watch_received(&mut self, slot: &mut Slot, count: usize) -> bool {
        self.is_active(slot);
        slot.watch_received(count);
        slot.conn.is_encrypted()
    }
}
