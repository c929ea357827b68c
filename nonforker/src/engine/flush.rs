//! What a turn changed on its connections, carried out: one send, one close, one switch each.
//!
//! Everything that handlers and completions did to a connection within a turn shows in its state.
//! Here, and only here, the state becomes operations. So a connection has one write per turn
//! however many replies it made, and the order in which things happened to it does not matter.

use std::time::Duration;

use super::{
    Engine,
    core::{Core, NOT_ASKED, Slot, Traffic},
    throttle::Notice,
};
use crate::{
    ConnId,
    conn::{
        buffer::Buffer,
        deadlines::Kind,
        state::{Event, State},
    },
    driver::{Driver, Op, Sent, Token},
    error::CloseReason,
};

/// What a flush did about a connection's queue.
enum Queue {
    /// Nothing.
    Waits,
    /// The kernel took some of it, or all.
    Moved,
    /// A send is in flight.
    InFlight,
}

impl Slot {
    /// What is to be sent now: nothing while a send is in flight or the kernel is out of buffers.
    #[inline]
    fn next_batch(&mut self) -> Option<Buffer> {
        let waits = !self.conn.state().sends() || self.conn.deadlines.get(Kind::Retry).is_some();
        if waits { None } else { self.conn.outbound.take() }
    }
}

impl<D: Driver> Engine<D> {
    /// Flushes every connection that changed, also those that change through it.
    pub(super) fn flush_all(&mut self) {
        let mut next = 0;
        while let Some(&token) = self.core.dirty.get(next) {
            self.flush(token);
            next += 1;
        }
        self.core.dirty.clear();
    }

    #[inline]
    fn flush(&mut self, token: Token) {
        let Core { slots, counters, memory, pool, marks, runnable, .. } = &mut self.core;
        let Some(slot) = slots.get_mut(token) else { return };
        slot.dirty = false;
        let mut queue = Queue::Waits;
        while let Some(batch) = slot.next_batch() {
            // Is the next step to close, to handle what waits, or to have memory again?
            let awaited = slot.conn.state() != State::Open
                || slot.conn.outbound.is_pressured()
                || memory.is_scarce();
            match self.driver.send(token, batch, awaited) {
                Some(Sent { batch, result: Ok(count) }) => {
                    counters.sent_bytes.add(count);
                    if slot.take_sent(count, batch, marks, pool) {
                        slot.mark_runnable(token, runnable);
                    }
                    queue = Queue::Moved;
                }
                Some(Sent { batch, result: Err(error) }) => {
                    self.core.send_failed(token, error, batch);
                    // It may have become something to close or to try again later.
                    return self.core.mark_dirty(token);
                }
                None => {
                    queue = Queue::InFlight;
                    break;
                }
            }
        }
        if slot.conn.outbound.is_empty() && slot.conn.state() != State::Open {
            slot.conn.apply(Event::Flushed);
        }
        let handles = slot.conn.state().handles();
        match queue {
            Queue::Moved => self.core.is_active(token),
            Queue::InFlight => self.core.await_sent(token),
            Queue::Waits => {}
        }
        if !handles {
            self.flush_ending(token);
        }
        self.flush_receiving(token);
    }

    /// No more frames are handled.
    fn flush_ending(&mut self, token: Token) {
        let slot = &mut self.core.slots[token];
        if let Some(kept) = slot.conn.inbound.take() {
            self.core.pool.put(kept);
        }
        match slot.conn.state() {
            State::Lingering => self.flush_lingering(token),
            State::Closing => self.flush_closing(token),
            _ => {}
        }
    }

    /// Everything is sent: tells the peer so and waits for it to finish.
    fn flush_lingering(&mut self, token: Token) {
        let slot = &mut self.core.slots[token];
        if std::mem::replace(&mut slot.shut, true) {
            return;
        }
        self.driver.submit(Op::ShutdownWrite { token });
        slot.conn.deadlines.clear_all();
        (slot.owed, slot.unacknowledged) = (NOT_ASKED, NOT_ASKED);
        let timeout = self.core.limits.linger_timeout;
        self.core.arm(token, Kind::Linger, timeout);
        self.core.arm(token, Kind::Quiet, timeout / 5);
        self.tell_closed(token);
    }

    /// It is over: the handler hears of it and the driver is to let go.
    fn flush_closing(&mut self, token: Token) {
        let slot = &mut self.core.slots[token];
        if std::mem::replace(&mut slot.closing, true) {
            return;
        }
        slot.conn.deadlines.clear_all();
        for buffer in slot.conn.outbound.discard().into_iter().flatten() {
            self.core.pool.put(buffer);
        }
        self.tell_closed(token);
        let reset = self.core.slots[token].conn.is_reset();
        self.driver.submit(Op::Close { token, reset });
    }

    fn tell_closed(&mut self, token: Token) {
        let slot = &mut self.core.slots[token];
        if std::mem::replace(&mut slot.told_closed, true) {
            return;
        }
        let reason = slot.conn.take_reason().unwrap_or(CloseReason::Defect);
        let service = slot.service;
        self.core.log_end(token, &reason);
        if let Some(service) = self.services.get_mut(service as usize) {
            service.closed(&mut self.core, token, &reason);
        }
    }

    /// Settles the memory account, and turns receiving on or off where that changed.
    #[inline]
    fn flush_receiving(&mut self, token: Token) {
        let Core { slots, memory, .. } = &mut self.core;
        let slot = &mut slots[token];
        slot.settle_account(token, memory);
        let on = slot.may_receive(memory);
        let was_on = std::mem::replace(&mut slot.receiving, on);
        if was_on != on && !slot.closing {
            self.driver.submit(Op::Receive { token, on });
            if on {
                self.core.is_its_turn(token);
            }
        }
    }
}

impl Core {
    /// We receive from the peer again: while we did not, none of its deadlines ran.
    #[cold]
    fn is_its_turn(&mut self, token: Token) {
        self.is_active(token);
        let (millis, frame) = (self.millis(), self.limits.frame_timeout);
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.since = millis;
        let deadlines = &slot.conn.deadlines;
        let (incomplete, unused) =
            (deadlines.get(Kind::Frame).is_some(), deadlines.get(Kind::Unused).is_some());
        if let Some(timeout) = frame.filter(|_| incomplete) {
            self.arm(token, Kind::Frame, timeout);
        }
        if let Some(timeout) = self.limits.unused_timeout.filter(|_| unused) {
            self.arm(token, Kind::Unused, timeout);
        }
    }

    /// A connection has ended: by policy, which is for everybody to see, or at all.
    #[cold]
    fn log_end(&mut self, token: Token, reason: &CloseReason) {
        let now = self.tick();
        let slot = &self.slots[token];
        let (id, peer, service) = (ConnId::new(token), slot.peer.peer(), slot.service);
        if let Some(notice) = Notice::of(reason)
            && let Some(left_out) = self.throttles.pass(notice, now)
        {
            tracing::info!(%id, %peer, service, left_out, "closed: {reason}");
        }
        if let Some(traffic) = &slot.traffic {
            let age = Duration::from_nanos(self.now.saturating_sub(traffic.since));
            let Traffic { received_bytes, sent_bytes, frames, replies, .. } = **traffic;
            tracing::debug!(
                %id, %peer, service, ?age, received_bytes, frames, sent_bytes, replies,
                "ended: {reason}"
            );
        }
    }
}
