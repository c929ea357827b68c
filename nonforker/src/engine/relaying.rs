//! Two connections whose bytes go to each other, without a codec or a handler.
//!
//! ```text
//!  one peer ── received ──▶ the queue of the other ── sent ──▶ the other peer
//!     ▲                                                             │
//!     └── sent ── the queue of the one ◀────────────── received ────┘
//! ```
//!
//! Each direction has a backpressure of its own: while more than the high watermark is queued on the
//! one, the other is *blocked*, and not received from; its own queue has nothing to do with that. So two
//! peers that both send before they receive do not hold each other up.
//!
//! A peer that finishes is passed on behind its last byte; the other direction goes on. When both have
//! finished, both connections close; at the end of a program they do at once. A connection that ends in
//! another way ends the other: a reset is passed on as a reset. One of a Unix socket says only that its peer
//! left something unread, and comes behind all that the peer has sent: that is an end. A stream behind TLS
//! that was cut off ends, and where the other peer is behind TLS too, it is not said to have ended. A drain takes what the client
//! has sent for all that it sends, and waits for the other peer to finish.

use std::{io::ErrorKind, sync::Arc};

use super::{
    core::Core,
    impaired::{Impaired, Step, Strike},
    shard::Shard,
    slot::Slot,
    table::Entry,
};
use crate::{
    address::Peer,
    codec::Raw,
    conn::{
        bars::Bars,
        deadlines::{Kind, Tick},
        output::Origin,
        state::Incoming,
    },
    driver::Token,
    error::CloseReason,
    relay_faults::RelayFaults,
};

impl Core {
    /// From now on the bytes of two connections go to each other. The other one may not stand yet.
    pub(crate) fn relay(&mut self, slot: &mut Slot, other: &mut Slot) {
        let tokens = [other.token(), slot.token()];
        for (one, two) in [&mut *slot, &mut *other].into_iter().zip(tokens) {
            one.set_relay(Some(two));
            one.conn.relay();
            self.mark_dirty(one);
            if !one.is_connecting() {
                self.mark_runnable(one);
            }
        }
        slot.conn.block(other.is_connecting());
    }

    /// What goes from the `other` connection to this one, and back, goes worse than it could.
    #[cold]
    pub(crate) fn impair(
        &mut self,
        slot: &mut Slot,
        other: &mut Slot,
        faults: &Arc<RelayFaults>,
        number: u64,
    ) {
        let now = self.tick();
        for (from, mut way) in [other, slot].into_iter().zip(Impaired::both(faults, number)) {
            way.arrived(from.conn.kept().len(), now);
            from.put_impaired(Box::new(way));
        }
    }

    /// A step of what is done on purpose with bytes that have arrived.
    #[cold]
    fn pass_on_impaired(&mut self, slot: &mut Slot, other: &mut Slot, way: &mut Impaired) {
        if other.conn.bars().has(Bars::PRESSURED) {
            return;
        }
        if way.resets_next() && !other.conn.outbound().is_empty() {
            // What comes before it is to be taken.
            let soon = Tick::saturating_add(self.tick(), 1_000);
            return self.arm_at(slot, Kind::Delay, soon);
        }
        match way.next(slot.conn.kept().len(), self.tick()) {
            Step::Pass(count) => {
                if let Some(kept) = slot.conn.take_kept() {
                    self.pass_on(other, &kept.bytes()[..count]);
                    if let Some(spare) = slot.conn.keep_rest(kept, count) {
                        self.pool.put(spare);
                    }
                }
                // The next piece is a send of its own.
                self.mark_runnable(slot);
            }
            Step::Wait(at) => self.arm_at(slot, Kind::Delay, at),
            Step::Strike(Strike::Stall) => {
                for one in [slot, other] {
                    one.conn.block(true);
                    self.mark_dirty(one);
                    if let Some(way) = one.impaired_mut() {
                        way.stall();
                    }
                }
            }
            Step::Strike(strike) => {
                for one in [slot, other] {
                    match strike {
                        Strike::Reset => self.fail(one, CloseReason::RelayFault, true),
                        _ => self.close(one, CloseReason::RelayFault),
                    }
                }
            }
            Step::Nothing => {}
        }
    }

    /// Queues what has arrived on the one connection on the other.
    fn pass_on(&mut self, to: &mut Slot, bytes: &[u8]) {
        let mut output = self.begin_output(to, Origin::Reply);
        output.push(&mut to.conn, &mut Raw::new(), bytes);
        self.end_output(to, output, 0);
    }

    /// Whether what comes from a connection has ended, and its end is not delayed.
    fn has_ended(&mut self, slot: &mut Slot) -> bool {
        let has_ended = slot.conn.has_passed_all_on();
        if has_ended && let Some(way) = slot.impaired_mut() {
            let (has_stalled, until) = (way.has_stalled(), way.ended(self.tick()));
            if let Some(until) = until {
                self.arm_at(slot, Kind::Delay, until);
            }
            return !has_stalled && until.is_none();
        }
        has_ended
    }

    /// The end of what comes from the one connection is the end of what goes to the other. When both have
    /// come, both close.
    fn pass_end_on(&mut self, slot: &mut Slot, other: &mut Slot) {
        let (has_ended, other_has) = (self.has_ended(slot), self.has_ended(other));
        if has_ended {
            other.conn.ends_like(&slot.conn);
            self.finish(other);
        }
        if other_has {
            slot.conn.ends_like(&other.conn);
            self.finish(slot);
        }
        // A program that has exited takes nothing more.
        let exited = |of: &Slot, ended| ended && of.peer() == Peer::Program;
        let is_over = exited(slot, has_ended) || exited(other, other_has);
        if is_over || has_ended && other_has {
            for one in [slot, other] {
                let reason = match one.conn.incoming() {
                    Incoming::Cut => CloseReason::Drained,
                    _ if one.conn.is_truncated() => CloseReason::Truncated,
                    _ => CloseReason::PeerFinished,
                };
                self.close(one, reason);
            }
        }
    }
}

impl<S> Shard<S> {
    /// Bytes have arrived on a relayed connection.
    #[inline(never)]
    pub(super) fn relayed(&mut self, entry: &mut Entry, bytes: &[u8]) {
        let Self { core, table, .. } = self;
        let slot = &mut entry.slot;
        let Some(other) = slot.relay().and_then(|other| table.get_mut(other)) else { return };
        slot.called(1, 0, 0);
        if let Some(way) = slot.impaired_mut() {
            way.arrived(bytes.len(), core.tick());
            core.keep(slot, bytes);
            core.mark_dirty(slot);
            return core.mark_runnable(slot);
        }
        if other.is_connecting() || !slot.conn.kept().is_empty() {
            return core.keep(slot, bytes);
        }
        core.pass_on(other, bytes);
        if other.conn.bars().has(Bars::PRESSURED) {
            slot.conn.block(true);
            core.mark_dirty(slot);
        }
    }

    /// A relayed connection goes on: what is kept of it is passed on, its end is, and the other one is
    /// received from again if there is room for that.
    pub(super) fn go_on_relaying(&mut self, token: Token) {
        let Some(mut entry) = self.table.take(token) else { return };
        let Self { core, table, .. } = self;
        let slot = &mut entry.slot;
        if let Some(other) = slot.relay().and_then(|other| table.get_mut(other))
            && other.conn.state().handles()
        {
            if let Some(mut way) = slot.take_impaired() {
                core.pass_on_impaired(slot, other, &mut way);
                slot.put_impaired(way);
            } else if let Some(kept) = slot.conn.take_kept() {
                core.pass_on(other, kept.bytes());
                core.pool.put(kept);
                slot.conn.hold();
            }
            slot.conn.block(other.conn.bars().has(Bars::PRESSURED) || slot.holds_back());
            // What is delayed goes on by itself.
            let waits = other.impaired().is_some_and(Impaired::has_stalled)
                || other.conn.deadline(Kind::Delay).is_some();
            if other.conn.bars().has(Bars::BLOCKED)
                && !slot.conn.bars().has(Bars::PRESSURED)
                && !(other.holds_back() && waits)
            {
                other.conn.block(other.holds_back());
                core.mark_runnable(other);
                core.mark_dirty(other);
            }
            core.pass_end_on(slot, other);
        }
        core.mark_dirty(slot);
        self.table.put_back(entry);
    }

    /// A relayed connection has ended. So does the other one.
    #[cold]
    pub(super) fn relay_ended(&mut self, slot: &mut Slot, in_order: bool) {
        let Some(token) = slot.relay() else { return };
        slot.set_relay(None);
        let Some(other) = self.table.get_mut(token) else { return };
        other.set_relay(None);
        if in_order && !other.is_connecting() {
            self.core.close(other, CloseReason::RelayEnded);
        } else {
            self.core.fail(other, CloseReason::RelayEnded, true);
        }
    }
}

impl Slot {
    /// Whether the other connection of a relay ends in order, too.
    pub(super) fn ends_relay_in_order(&self, reason: &CloseReason) -> bool {
        match reason {
            CloseReason::PeerFinished
            | CloseReason::Truncated
            | CloseReason::ByHandler
            | CloseReason::Drained
            | CloseReason::IdleTimeout
            | CloseReason::RelayEnded
            | CloseReason::RelayFault
            | CloseReason::ConnectFailed(_) => true,
            CloseReason::Broken(error) => {
                let has_all = !self.conn.bars().has(Bars::BLOCKED) && self.conn.kept().is_empty();
                self.peer() == Peer::Unix && error.kind() == ErrorKind::ConnectionReset && has_all
            }
            _ => false,
        }
    }
}
