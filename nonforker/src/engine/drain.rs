//! How a server ends: what has arrived is answered, then everybody is closed.
//!
//! ```text
//!  Serving ──drain──▶ Settling ──nothing arrives──▶ Draining ──nobody is left──▶ done
//!     │                  │       or 100 ms                │
//!     └──────────────────┴─────────── stop ───────────────┴─ the deadline ──▶ Stopping ──▶ done
//! ```
//!
//! Settling takes in what the kernel has already: connections in the backlog, requests in socket
//! buffers. It ends with the first turn that brings nothing, or after a moment if clients never
//! stop sending. Then the listeners are closed and each connection is *cut*: its complete requests
//! are answered, what is incomplete is not waited for, its queue is sent, it closes.
//!
//! A connection that does not receive just then, because its replies are not taken or its handler
//! pauses it, may have requests in the kernel that nobody could see. It is cut when it receives
//! again and a turn brings nothing from it; at half of the deadline all are.
//!
//! A connection that a handler has asked for is cut when none is left that was accepted. Where all shards
//! need those of one, that one waits for all, and reads what they have to say last.
//!
//! A stop counts the connections that it *cuts off*: the engine holds a complete request of the
//! peer that no handler has seen, a ticket is open, or bytes for the peer wait. What the
//! kernel still holds of the peer is not counted, since nobody has looked at it.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

use super::{Engine, core::Core, shard::Shard, slot::Slot};
use crate::{
    config::Limits,
    conn::{
        bars::Bars,
        deadlines::Tick,
        state::{Incoming, State},
    },
    driver::{Driver, Token},
    error::CloseReason,
};

/// How long a drain takes in what arrives, at most.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// What was asked for from outside.
#[derive(Debug, Default)]
pub(crate) struct Request(AtomicU8);

impl Request {
    /// The end is near: nothing follows from it here.
    const PREPARE: u8 = 1;
    const DRAIN: u8 = 2;
    const STOP: u8 = 3;

    /// Whether the end is near, or was asked for.
    pub(super) fn is_prepared(&self) -> bool {
        self.0.load(Relaxed) >= Self::PREPARE
    }

    pub(super) fn prepare(&self) {
        self.0.fetch_max(Self::PREPARE, Relaxed);
    }

    /// Whether the end was asked for.
    pub(crate) fn is_made(&self) -> bool {
        self.0.load(Relaxed) >= Self::DRAIN
    }

    pub(crate) fn drain(&self) {
        self.0.fetch_max(Self::DRAIN, Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.0.fetch_max(Self::STOP, Relaxed);
    }

    /// Asks for what `other` was asked for. Returns whether that was anything.
    pub(super) fn raise_to(&self, other: &Self) -> bool {
        self.0.fetch_max(other.0.load(Relaxed), Relaxed);
        self.is_made()
    }
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Settling { until: Tick, deadline: Tick },
    Draining { patience: Tick, deadline: Tick },
    Stopping,
}

impl Phase {
    /// When it ends by itself.
    pub(super) const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Serving | Self::Stopping => None,
            Self::Settling { until, .. } => Some(until),
            Self::Draining { patience, .. } => Some(patience),
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Moves towards the end if that was asked for.
    pub(super) fn move_phase(&mut self) {
        let shard = &mut self.shard;
        if shard.core.phase == Phase::Serving && !shard.core.shared.request.is_made() {
            // Those are here whose age is due.
            if shard.brought.looked && !shard.uncut.is_empty() {
                shard.cut_quiet(false);
            }
            return;
        }
        let brought = shard.brought;
        let quiet = brought.looked && !brought.something;
        let now = shard.core.judged();
        if shard.core.shared.request.0.load(Relaxed) >= Request::STOP
            && shard.core.phase != Phase::Stopping
        {
            self.stop();
        }
        let Self { shard, .. } = self;
        match shard.core.phase {
            Phase::Serving if shard.core.shared.request.is_made() => {
                let all = shard.table.len();
                let connections = shard.table.slots().filter(|slot| !slot.is_outgoing()).count();
                let outgoing = Some(all - connections).filter(|&count| count > 0);
                tracing::info!(connections, outgoing, "draining");
                let until = shard.core.tick_after(SETTLE_MAX);
                let Limits { drain_timeout, drain_spread, .. } = shard.core.limits;
                let deadline = shard.core.tick_after(drain_timeout.saturating_add(drain_spread));
                shard.core.phase = Phase::Settling { until, deadline };
            }
            Phase::Settling { until, deadline } if quiet || until <= now => {
                let Limits { drain_timeout, drain_spread, .. } = shard.core.limits;
                let half = (drain_timeout / 2).saturating_add(drain_spread);
                let patience = shard.core.tick_after(half).min(deadline);
                shard.core.phase = Phase::Draining { patience, deadline };
                shard.uncut.clear();
                if drain_spread.is_zero() {
                    shard.cut_who_is_received_from();
                } else {
                    shard.spread_ends(drain_spread);
                }
                shard.cut_outgoing();
                shard.note_clients();
                self.stop_listening();
            }
            Phase::Draining { deadline, .. } if deadline <= now => {
                let connections = shard.table.len();
                self.stop();
                let cut_off = self.shard.cut_off;
                tracing::warn!(
                    connections,
                    cut_off,
                    "the drain took too long: cutting off what is left"
                );
            }
            Phase::Draining { patience, deadline } => {
                let out_of_patience = patience <= now;
                if out_of_patience {
                    shard.core.phase = Phase::Draining { patience: deadline, deadline };
                }
                if brought.looked || out_of_patience {
                    shard.cut_quiet(out_of_patience);
                }
                shard.cut_outgoing();
                shard.note_clients();
            }
            _ => {}
        }
    }

    fn stop(&mut self) {
        self.shard.core.phase = Phase::Stopping;
        self.stop_listening();
        let Shard { core, table, services, cut_off, .. } = &mut self.shard;
        for token in table.tokens() {
            let Some(entry) = table.entry(token) else { continue };
            let is_cut_off = is_cut_off(&entry.slot) || {
                let service = services.get(entry.slot.service() as usize);
                may_hold_frame(&entry.slot)
                    && service.is_some_and(|service| service.holds_frame(entry))
            };
            *cut_off += usize::from(is_cut_off);
            // What has been sent already, and only waits for the peer to finish, is not spoilt.
            let reset = entry.slot.conn.state() != State::Lingering;
            core.fail(&mut entry.slot, CloseReason::Stopped, reset);
        }
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_done(&self) -> bool {
        let Shard { table, core, .. } = &self.shard;
        match core.phase {
            Phase::Serving | Phase::Settling { .. } => false,
            Phase::Draining { .. } => table.is_empty() && !core.has_accepted(0),
            Phase::Stopping => table.is_empty(),
        }
    }

    /// How many connections were cut off when the server stopped.
    pub(crate) const fn cut_off(&self) -> usize {
        self.shard.cut_off
    }
}

impl Core {
    /// Whether clients of other shards may need connections of this one, or have said something last that
    /// was not read yet.
    pub(super) fn is_needed_by_others(&self) -> bool {
        self.serves_others
            && (self.group.others_have_clients(self.shard)
                || self.mail.is_left()
                || self.mail.mailbox.has_letters())
    }
}

impl<S> Shard<S> {
    /// Cuts all that are received from. The others may have requests that nobody has seen yet.
    fn cut_who_is_received_from(&mut self) {
        for token in self.table.tokens() {
            match self.table.get_mut(token) {
                Some(slot) if slot.is_outgoing() => {}
                Some(slot) if slot.receives() => self.cut(token),
                _ => self.uncut.push(token),
            }
        }
    }

    /// Cuts those of the uncut that were received from in this turn and had nothing to say, or all.
    fn cut_quiet(&mut self, all: bool) {
        for token in std::mem::take(&mut self.uncut) {
            let Some(slot) = self.table.get_mut(token) else { continue };
            let heard = slot.was_heard();
            let may_have_more = !slot.receives() || heard;
            if may_have_more && slot.conn.state() == State::Open && !all {
                self.uncut.push(token);
            } else {
                self.cut(token);
            }
        }
    }

    /// Cuts the connections that handlers have asked for, once no others are left: answers to clients
    /// may depend on them.
    fn cut_outgoing(&mut self) {
        if self.core.has_accepted(self.table.len()) {
            return;
        }
        for token in self.table.tokens() {
            if self.table.get(token).is_some_and(|slot| slot.conn.incoming() != Incoming::Cut) {
                self.cut(token);
            }
        }
    }

    /// Tells a shard that waits for this one's clients when none is left.
    fn note_clients(&mut self) {
        let core = &mut self.core;
        if !core.alone && self.table.len() == core.outgoing.count && !core.owes_mail {
            core.group.has_no_clients(core.shard);
        }
    }

    /// From now on nothing is waited for on a connection.
    pub(super) fn cut(&mut self, token: Token) {
        if let Some(slot) = self.table.get_mut(token) {
            if matches!(slot.conn.state(), State::Connecting | State::Arriving)
                || slot.conn.shakes()
            {
                return self.core.fail(slot, CloseReason::Drained, false);
            }
            slot.conn.cut();
            self.core.mark_dirty(slot);
            self.core.mark_runnable(slot);
        }
    }

    /// Whether the next wait shows that a connection can be cut.
    pub(super) fn is_about_to_cut(&self) -> bool {
        self.uncut.iter().any(|&token| self.table.get(token).is_some_and(Slot::receives))
    }
}

/// Whether a stop takes output from the peer.
fn is_cut_off(slot: &Slot) -> bool {
    let (conn, state) = (&slot.conn, slot.conn.state());
    let owes = !conn.outbound().is_empty() || conn.open_tickets() > 0;
    // Nobody knows what the other peer of a relay was about to say.
    let relays = slot.relay().is_some() && !slot.is_outgoing() && state.handles();
    state.sends() && owes || relays
}

/// Whether what is kept may be a complete request. What is not held is the start of a frame, unless
/// its end is the frame's.
fn may_hold_frame(slot: &Slot) -> bool {
    let (conn, state) = (&slot.conn, slot.conn.state());
    let may_be_complete =
        conn.bars().has(Bars::HELD) || state == State::HalfClosed && !conn.is_truncated();
    let has_some = !conn.kept().is_empty() || conn.has_unread_records();
    may_be_complete && state.handles() && has_some
}
