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
//! finished, both connections close; at the end of a program they do at once. A connection that ends in another way ends the other: a reset is
//! passed on as a reset. A drain takes what the client has sent for all that it sends, and waits for the
//! other peer to finish.

use super::{core::Core, shard::Shard, slot::Slot, table::Entry};
use crate::{
    address::Peer,
    codec::Raw,
    conn::{
        bars::Bars,
        output::Origin,
        state::{Incoming, State},
    },
    driver::Token,
    error::CloseReason,
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

    /// Queues what has arrived on the one connection on the other.
    fn pass_on(&mut self, to: &mut Slot, bytes: &[u8]) {
        let mut output = self.begin_output(to, Origin::Reply);
        output.push(&mut to.conn, &mut Raw::new(), bytes);
        self.end_output(to, output, 0);
    }

    /// The end of what comes from the one connection is the end of what goes to the other. When both have
    /// come, both close.
    fn pass_end_on(&mut self, slot: &mut Slot, other: &mut Slot) {
        let (has_ended, other_has) =
            (slot.conn.has_passed_all_on(), other.conn.has_passed_all_on());
        if has_ended {
            self.finish(other);
        }
        if other_has {
            self.finish(slot);
        }
        // A program that has exited takes nothing more.
        let exited = |of: &Slot, ended| ended && of.peer() == Peer::Program;
        let is_over = exited(slot, has_ended) || exited(other, other_has);
        if is_over || has_ended && other_has {
            for one in [slot, other] {
                let reason = match one.conn.incoming() {
                    Incoming::Cut => CloseReason::Drained,
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
            if let Some(kept) = slot.conn.take_kept() {
                core.pass_on(other, kept.bytes());
                core.pool.put(kept);
                slot.conn.hold();
            }
            slot.conn.block(other.conn.bars().has(Bars::PRESSURED));
            if other.conn.bars().has(Bars::BLOCKED) && !slot.conn.bars().has(Bars::PRESSURED) {
                other.conn.block(false);
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
        if in_order && other.conn.state() != State::Connecting {
            self.core.close(other, CloseReason::RelayEnded);
        } else {
            self.core.fail(other, CloseReason::RelayEnded, true);
        }
    }
}

impl CloseReason {
    /// Whether the other connection of a relay ends in order, too.
    pub(super) const fn ends_relay_in_order(&self) -> bool {
        matches!(
            self,
            Self::PeerFinished
                | Self::ByHandler
                | Self::Drained
                | Self::IdleTimeout
                | Self::RelayEnded
                | Self::ConnectFailed(_)
        )
    }
}
