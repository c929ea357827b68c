//! Connections that a handler has asked for and that do not stand yet.
//!
//! ```text
//!  connect ──▶ Connecting ── a place? ── a name? ──▶ attempts, one address after the other
//!                  │                                    │ the first that stands
//!                  │ no place, no address, too late     ▼
//!                  │ nobody takes it, it is closed    adopted ──▶ Arriving ─────▶ open
//!                  │                                                 └─▶ handshake ─┘
//!                  └──▶ closed: ConnectFailed ◀── no trust, too late ──────┘
//! ```
//!
//! An attempt has a number of its own, and leads to a socket as accepting does: so several can be made
//! for one connection, and the driver knows no connection before it stands. The next address is tried
//! when an attempt fails, or [`HEAD_START`] after it began.
//!
//! Here, as everywhere, what happened shows in the state, and [`flush`](super::flush) makes operations
//! of it.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use super::{
    Engine,
    core::Core,
    drain::Phase,
    resolver::{FRESH, FRESH_FAILURE, Found, LookedUp, Resolver},
    rules::Rules,
    shard::Shard,
    slot::Slot,
    table::Entry,
    throttle::Notice,
};
use crate::{
    address::{Address, Peer},
    conn::{deadlines::Kind, state::Event},
    driver::{AttemptId, Destination, Driver, Op, Token, sim::rng::Rng},
    error::CloseReason,
    target::{Target, TargetKind},
};

/// How long an attempt goes alone before the next address is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long a Unix socket is left alone whose backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(50);

/// What a connection has until it stands.
#[derive(Debug)]
pub(crate) struct Connecting {
    target: Target,
    progress: Progress,
    /// Addresses that were not tried yet.
    untried: VecDeque<Destination>,
    /// What is tried just now.
    attempts: Vec<(AttemptId, Destination)>,
    /// Why the last attempt failed.
    error: Option<io::Error>,
}

/// How far a connection has come that does not stand yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Asked,
    Resolving,
    Trying,
    /// It is connected, and the handshake is under way: a driver knows it.
    Securing,
}

impl Connecting {
    pub(super) fn new(target: Target) -> Self {
        let (untried, attempts) = (VecDeque::new(), Vec::new());
        Self { target, progress: Progress::Asked, untried, attempts, error: None }
    }

    fn found(&mut self, found: Found, port: u16) {
        self.progress = Progress::Trying;
        let to = |ip: IpAddr| Destination::Address(Address::Tcp(SocketAddr::new(ip, port)));
        match found {
            Ok(addresses) => self.untried.extend(addresses.into_iter().map(to)),
            Err(why) => self.error = Some(io::Error::new(ErrorKind::NotFound, why)),
        }
    }

    /// Whether nothing is under way that could lead to a connection.
    pub(super) fn is_stuck(&self) -> bool {
        self.progress != Progress::Resolving && self.attempts.is_empty()
    }
}

/// What a shard knows of connections that handlers have asked for.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Which connection an attempt is for.
    attempts: HashMap<AttemptId, Token>,
    next_attempt: AttemptId,
    /// How many of the connections were asked for, also those that stand.
    pub(super) count: usize,
    pub(crate) resolver: Option<Resolver>,
    /// What waits between two attempts differ by, so that many servers do not come back at once.
    pub(crate) rng: Option<Rng>,
}

/// A socket that an attempt has led to.
pub(super) type Made<S> = (AttemptId, S, Peer);

impl Core {
    /// A connection that its handler has asked for.
    pub(crate) fn connect(&mut self, token: Token, rules: Rc<Rules>, target: Target) -> Slot {
        let mut slot = Slot::outgoing(token, rules, target, self.millis());
        if tracing::enabled!(tracing::Level::DEBUG) {
            slot.count_traffic(self.now);
        }
        slot.counters().outgoing.add(1);
        self.outgoing.count += 1;
        let timeout = slot.rules().connect_timeout;
        self.arm(&mut slot, Kind::Handshake, timeout);
        self.mark_dirty(&mut slot);
        slot
    }

    /// A connection cannot be made.
    #[cold]
    fn connect_fails(&mut self, slot: &mut Slot, target: &Target, error: io::Error) {
        self.note_failure(target, &error);
        self.fail(slot, CloseReason::ConnectFailed(error), false);
    }

    fn note_failure(&mut self, target: &Target, error: &io::Error) {
        if let Some(left_out) = self.notice(Notice::Connect) {
            tracing::warn!(%target, left_out, "cannot connect: {error}");
        }
    }

    /// Why a connection has ended, as its handler is told: of one that never stood, that it could not be
    /// made.
    pub(super) fn reason_as_told(&mut self, slot: &mut Slot, reason: CloseReason) -> CloseReason {
        if slot.has_opened() || !slot.is_outgoing() {
            return reason;
        }
        let in_handshake = |what: String| format!("in the TLS handshake: {what}");
        let (error, is_news) = match reason {
            CloseReason::ConnectFailed(_) => return reason,
            CloseReason::Tls(error) => (io::Error::new(ErrorKind::InvalidData, error), true),
            CloseReason::Broken(error) => {
                (io::Error::new(error.kind(), in_handshake(error.to_string())), true)
            }
            CloseReason::Truncated => {
                let what = in_handshake("the other side has closed".to_owned());
                (io::Error::new(ErrorKind::UnexpectedEof, what), true)
            }
            other => (io::Error::new(ErrorKind::ConnectionAborted, other.to_string()), false),
        };
        if let Some(connecting) = slot.connecting().filter(|_| is_news) {
            self.note_failure(&connecting.target, &error);
        }
        CloseReason::ConnectFailed(error)
    }

    /// A deadline of a connection that does not stand yet is due.
    #[cold]
    pub(super) fn connecting_is_due(&mut self, slot: &mut Slot, kind: Kind) {
        if kind == Kind::Handshake
            && let Some(mut connecting) = slot.take_connecting()
        {
            let late = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
            let error = connecting.error.take().unwrap_or_else(late);
            self.connect_fails(slot, &connecting.target, error);
            slot.put_connecting(connecting);
        }
        self.mark_dirty(slot);
    }

    /// Whether connections that were accepted are left, or something else that connections are needed for
    /// that handlers have asked for.
    pub(super) fn has_accepted(&self, connections: usize) -> bool {
        connections > self.outgoing.count || self.owes_mail || self.is_needed_by_others()
    }

    /// Whether the server ends, and nobody is left who may need one more connection.
    pub(crate) fn is_ending(&self, connections: usize) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Settling { .. } | Phase::Draining { .. } => !self.has_accepted(connections),
            Phase::Stopping => true,
        }
    }

    /// Forgets the attempts of a connection.
    fn forget_attempts<D: Driver>(&mut self, driver: &mut D, connecting: &Connecting) {
        for &(attempt, _) in &connecting.attempts {
            // One whose end is known already, the driver does not know any more.
            if self.outgoing.attempts.remove(&attempt).is_some() {
                driver.submit(Op::Abandon { attempt });
            }
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Carries on with a connection that does not stand yet.
    #[cold]
    pub(super) fn flush_connecting(&mut self, token: Token) {
        let Self { driver, shard } = self;
        let Shard { core, table, acceptor, services, .. } = shard;
        let is_ending = core.is_ending(table.len());
        let Some(slot) = table.get_mut(token) else { return };
        let Some(mut connecting) = slot.take_connecting() else { return };
        let is_new = connecting.progress == Progress::Asked;
        if is_new {
            if is_ending {
                let drains = io::Error::new(ErrorKind::ConnectionAborted, "the server drains");
                connecting.error = Some(drains);
                connecting.progress = Progress::Trying;
            } else if core.has_room(slot.service(), acceptor.connections_max())
                && core.take_place(slot.service(), acceptor.connections_max())
            {
                slot.takes_place();
                core.find_address(slot, &mut connecting);
            } else {
                let full = io::Error::new(
                    ErrorKind::QuotaExceeded,
                    "all places are taken, of its service or of the server (max_connections)",
                );
                connecting.error = Some(full);
                connecting.progress = Progress::Trying;
            }
        }
        let urgent =
            services.get(slot.service() as usize).is_some_and(|service| service.wants_urgent());
        while slot.conn.deadline(Kind::Retry).is_none()
            && let Some(to) = connecting.untried.pop_front()
        {
            let attempt = core.outgoing.next_attempt;
            core.outgoing.next_attempt = attempt.wrapping_add(1);
            core.outgoing.attempts.insert(attempt, token);
            connecting.attempts.push((attempt, to.clone()));
            driver.submit(Op::Connect { attempt, to, urgent });
            if !connecting.untried.is_empty() {
                core.arm(slot, Kind::Retry, HEAD_START);
            }
        }
        if connecting.is_stuck() && connecting.untried.is_empty() {
            if is_new {
                // The handler is told in a later turn. If it connects again then, this turn has ended.
                core.arm(slot, Kind::Retry, Duration::ZERO);
                return slot.put_connecting(connecting);
            }
            let error = connecting.error.take();
            let error = error.unwrap_or_else(|| ErrorKind::NotConnected.into());
            core.connect_fails(slot, &connecting.target, error);
        }
        slot.put_connecting(connecting);
    }

    /// A connection ends that no driver knows. Returns whether it is one.
    #[cold]
    pub(super) fn end_connecting(&mut self, token: Token, slot: &mut Slot) -> bool {
        let Self { driver, shard } = self;
        let Some(connecting) = slot.take_connecting() else { return false };
        if connecting.progress == Progress::Securing {
            return false;
        }
        shard.core.forget_attempts(driver, &connecting);
        shard.gone.push(token);
        shard.unusual = true;
        true
    }

    /// Opens the connections that attempts have led to, and lets go of those that no driver knows.
    pub(super) fn go_on_connecting(&mut self) {
        for token in std::mem::take(&mut self.shard.gone) {
            self.shard.released(token);
        }
        for (attempt, socket, peer) in std::mem::take(&mut self.shard.made) {
            let Self { driver, shard } = self;
            let token = shard.core.outgoing.attempts.remove(&attempt);
            let Some(token) = token else { continue };
            let Some(slot) = shard.table.get_mut(token) else { continue };
            // Of several sockets the first one counts; one of a connection that ends is closed.
            let Some(mut connecting) = slot.take_connecting() else { continue };
            if !slot.is_unknown_to_drivers() {
                slot.put_connecting(connecting);
                continue;
            }
            shard.core.forget_attempts(driver, &connecting);
            driver.submit(Op::Adopt { token, socket });
            tracing::debug!(target = %connecting.target, %peer, "connected");
            slot.connected_to(peer);
            slot.conn.deadlines().clear(Kind::Retry);
            slot.conn.apply(Event::Connected);
            shard.core.mark_dirty(slot);
            if let Some(towards) = connecting.target.tls.clone() {
                slot.conn.encrypt_towards(towards);
                slot.is_watched();
                connecting.progress = Progress::Securing;
                connecting.attempts.clear();
                slot.put_connecting(connecting);
                shard.open_records(token);
            } else if let Some(mut entry) = shard.table.take(token) {
                shard.stands(&mut entry);
                shard.table.put_back(entry);
            }
        }
    }
}

impl<S> Shard<S> {
    /// A connection that was asked for stands.
    pub(super) fn stands(&mut self, entry: &mut Entry) {
        entry.slot.take_connecting();
        if entry.slot.relay().is_some() {
            self.core.mark_runnable(&mut entry.slot);
        }
        self.opens(entry);
    }
}

impl Core {
    /// Says where to connect to, or asks for it.
    fn find_address(&mut self, slot: &Slot, connecting: &mut Connecting) {
        connecting.progress = Progress::Trying;
        match &connecting.target.kind {
            TargetKind::Address(address) => {
                connecting.untried.push_back(Destination::Address(address.clone()));
            }
            TargetKind::Program(program) => {
                connecting.untried.push_back(Destination::Program(program.clone()));
            }
            TargetKind::Name { host, port } => {
                let now = self.tick();
                let Some(resolver) = &mut self.outgoing.resolver else { return };
                let port = *port;
                match resolver.look_up(host, slot.token(), now, &self.mail.mailbox) {
                    LookedUp::Found(found) => connecting.found(found, port),
                    LookedUp::Asked => connecting.progress = Progress::Resolving,
                }
            }
        }
    }
}

impl<S> Shard<S> {
    /// An attempt has led to a socket.
    pub(super) fn connected(&mut self, attempt: AttemptId, socket: S, peer: Peer) {
        self.made.push((attempt, socket, peer));
    }

    /// An attempt has failed.
    pub(super) fn connect_failed(&mut self, attempt: AttemptId, error: io::Error) {
        let Some(token) = self.core.outgoing.attempts.remove(&attempt) else { return };
        let Some(slot) = self.table.get_mut(token) else { return };
        let Some(mut connecting) = slot.take_connecting() else { return };
        let at = connecting.attempts.iter().position(|&(of, _)| of == attempt);
        if let Some(at) = at {
            let (_, to) = connecting.attempts.remove(at);
            // The backlog of a Unix socket is full: there it does not wait for a place. Or the system
            // has no process to spare just now.
            if error.kind() == ErrorKind::WouldBlock
                && !matches!(to, Destination::Address(Address::Tcp(_)))
            {
                connecting.untried.push_front(to);
                self.core.arm(slot, Kind::Retry, BACKLOG_PAUSE);
            } else {
                slot.conn.deadlines().clear(Kind::Retry);
            }
            connecting.error = Some(error);
        }
        slot.put_connecting(connecting);
        self.core.mark_dirty(slot);
    }

    /// A name was looked up.
    pub(super) fn resolved(&mut self, host: String, found: Found) {
        let Self { core, table, .. } = self;
        let fresh = if found.is_ok() { FRESH } else { FRESH_FAILURE };
        let (now, until) = (core.tick(), core.tick_after(fresh));
        let Some(resolver) = &mut core.outgoing.resolver else { return };
        let (found, waiting) = resolver.resolved(host, found, now, until);
        for token in waiting {
            let Some(slot) = table.get_mut(token) else { continue };
            let Some(mut connecting) = slot.take_connecting() else { continue };
            if connecting.progress == Progress::Resolving
                && let TargetKind::Name { port, .. } = connecting.target.kind
            {
                connecting.found(found.clone(), port);
            }
            slot.put_connecting(connecting);
            core.mark_dirty(slot);
        }
    }
}
