//! What a turn changed on its connections, carried out: one send, one close, one switch each.
//!
//! Everything that handlers and completions did to a connection within a turn shows in its state.
//! Here, and only here, the state becomes operations. So a connection has one write per turn
//! however many replies it made, and the order in which things happened to it does not matter.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{
    Engine,
    core::Core,
    shard::Shard,
    slot::{End, Slot, Traffic},
    table::Entry,
    throttle::Notice,
};
use crate::{
    ConnId,
    conn::{
        bars::Bars,
        deadlines::Kind,
        state::{Event, Manner, State},
    },
    driver::{Driver, Op, Sent, Token},
    error::CloseReason,
};

impl<D: Driver> Engine<D> {
    /// Flushes every connection that changed, also those that change through it.
    pub(super) fn flush_all(&mut self) {
        let mut next = 0;
        while let Some(&token) = self.shard.core.dirty.get(next) {
            self.flush(token);
            next += 1;
        }
        self.shard.core.dirty.clear();
        self.shard.core.memory.settle_savings();
    }

    /// Sends what is queued, carries an end on, and turns receiving on or off.
    #[inline]
    fn flush(&mut self, token: Token) {
        let Self { driver, shard: Shard { core, table, .. } } = self;
        let Some(slot) = table.get_mut(token) else { return };
        slot.is_flushed();
        let ends = slot.conn.bars().has(Bars::ENDS);
        while let Some(batch) = match slot.conn.is_encrypted() {
            false => slot.conn.next_batch(),
            true => core.next_sealed(slot),
        } {
            // Is the next step to close, to handle what waits, or to have memory again?
            let awaited = slot.conn.bars().has(Bars::AWAITS)
                || slot.conn.outbound().has_more()
                || core.memory.is_scarce();
            match driver.send(token, batch, awaited) {
                Some(Sent { batch, result: Ok(count) }) => {
                    core.sent(slot, count, batch);
                    if slot.is_at_rest() {
                        return;
                    }
                }
                Some(Sent { batch, result: Err(error) }) => {
                    core.send_failed(slot, error, batch);
                    // It may have become something to close or to try again later.
                    return core.mark_dirty(slot);
                }
                None => {
                    core.await_sent(slot);
                    break;
                }
            }
        }
        if slot.conn.is_encrypted() {
            core.await_use(slot);
        }
        if ends {
            if slot.is_unknown_to_drivers() {
                return self.flush_connecting(token);
            }
            if slot.conn.outbound().is_empty() {
                slot.conn.apply(Event::Flushed);
            }
            if slot.is_to_be_shut() {
                driver.submit(Op::ShutdownWrite { token });
            }
            if slot.conn.state().ends() {
                return self.flush_ending(token);
            }
        }
        Self::flush_receiving(driver, core, slot);
    }

    /// Settles the memory account, and turns receiving on or off where that changed.
    #[inline]
    fn flush_receiving(driver: &mut D, core: &mut Core, slot: &mut Slot) {
        slot.settle_account(&mut core.memory);
        if let Some(on) = slot.decide_receiving(&mut core.memory) {
            driver.submit(Op::Receive { token: slot.token(), on });
            if on {
                core.is_its_turn(slot);
            }
        }
    }

    /// No more frames are handled.
    fn flush_ending(&mut self, token: Token) {
        let Self { driver, shard } = self;
        let Some(mut entry) = shard.table.take(token) else { return };
        let (slot, core) = (&mut entry.slot, &mut shard.core);
        if let Some(kept) = slot.conn.take_kept() {
            core.pool.put(kept);
        }
        if slot.conn.bars().has(Bars::PENDING) {
            core.drop_tickets(slot);
        }
        match slot.conn.state() {
            // Everything is sent: the peer is told so, and is waited for until it has finished.
            State::Lingering if slot.end() < End::Told => {
                if slot.ends(End::Told) == End::No {
                    driver.submit(Op::ShutdownWrite { token });
                }
                slot.conn.deadlines().clear_all();
                slot.forget_what_was_asked();
                let timeout = slot.rules().linger_timeout;
                core.arm(slot, Kind::Linger, timeout);
                core.arm(slot, Kind::Quiet, timeout / 5);
                shard.tell_closed(&mut entry);
            }
            // It is over: the handler is told, and the driver is to let go.
            State::Closing if slot.end() < End::Closing => {
                slot.conn.deadlines().clear_all();
                for buffer in slot.conn.discard_output().into_iter().flatten() {
                    core.pool.put(buffer);
                }
                if slot.ends(End::Closing) < End::Told {
                    shard.tell_closed(&mut entry);
                }
                if !self.end_connecting(token, &mut entry.slot) {
                    let reset = entry.slot.conn.manner() == Manner::Reset;
                    self.driver.submit(Op::Close { token, reset });
                }
            }
            _ => {}
        }
        let Self { driver, shard } = self;
        Self::flush_receiving(driver, &mut shard.core, &mut entry.slot);
        shard.table.put_back(entry);
    }
}

impl<S> Shard<S> {
    fn tell_closed(&mut self, entry: &mut Entry) {
        let reason = entry.slot.conn.take_reason().unwrap_or(CloseReason::Defect);
        let reason = self.core.reason_as_told(&mut entry.slot, reason);
        self.core.log_end(&entry.slot, &reason);
        self.core.leave_topics(&mut entry.slot);
        if entry.slot.has_opened() || entry.slot.is_outgoing() {
            self.call_entry(entry, |service, scope| service.closed(scope, &reason));
        }
        let in_order = entry.slot.ends_relay_in_order(&reason);
        self.relay_ended(&mut entry.slot, in_order);
    }

    /// The driver has let go of a connection.
    pub(super) fn released(&mut self, token: Token) {
        let Some(mut entry) = self.table.remove(token) else { return };
        let (slot, core) = (&mut entry.slot, &mut self.core);
        slot.conn.apply(Event::Released);
        core.is_shaken(slot);
        core.timers.cancel(token, &mut slot.scheduled);
        core.ages.remove(token);
        core.came_by.forget(token);
        slot.gives_all_back(&mut core.memory);
        slot.counters().closed.add(1);
        if slot.has_place() {
            core.leave_place(slot.service());
        }
        core.outgoing.count -= usize::from(slot.is_outgoing());
        for buffer in slot.conn.discard_output().into_iter().flatten() {
            core.pool.put(buffer);
        }
        if slot.conn.manner() == Manner::Illegal {
            slot.counters().defects.add(1);
            if core.notice(Notice::Defect).is_some() {
                let peer = slot.peer();
                tracing::error!(%peer, "a connection had an event that cannot happen");
            }
        }
        self.acceptor.released(slot, &core.group);
        let service = slot.service();
        // The session is the user's, and goes with it.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
            core.service_failed(service, "closed", Err(payload));
        }
    }
}

impl Core {
    /// We receive from the peer again: while we did not, none of its deadlines ran.
    #[cold]
    fn is_its_turn(&mut self, slot: &mut Slot) {
        self.is_active(slot);
        slot.is_received_from_since(self.millis());
        let rules = slot.rules();
        for (kind, timeout) in
            [(Kind::Frame, rules.frame_timeout), (Kind::Unused, rules.unused_timeout)]
        {
            if let Some(timeout) = timeout
                && slot.conn.deadline(kind).is_some()
            {
                self.arm(slot, kind, timeout);
            }
        }
    }

    /// A connection has ended: by policy, which is for everybody to see, or at all.
    #[cold]
    fn log_end(&mut self, slot: &Slot, reason: &CloseReason) {
        let (id, peer, service) =
            (ConnId::new(self.shard, slot.token()), slot.peer(), slot.service());
        if let Some(notice) = Notice::of(reason)
            && let Some(left_out) = self.notice(notice)
        {
            tracing::info!(%id, %peer, service, left_out, "closed: {reason}");
        }
        if let Some(Traffic { since, received_bytes, sent_bytes, frames, replies }) = slot.traffic()
        {
            let age = Duration::from_nanos(self.now.saturating_sub(since));
            tracing::debug!(
                %id, %peer, service, ?age, received_bytes, frames, sent_bytes, replies,
                "ended: {reason}"
            );
        }
    }
}
