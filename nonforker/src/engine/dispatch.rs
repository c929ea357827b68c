//! What each completion and each turn of waiting work does to its connection.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use super::{
    Services,
    core::{Core, NOT_ASKED, Slot},
    pool::Pool,
    throttle::Notice,
};
use crate::{
    conn::{
        buffer::Buffer,
        deadlines::Kind,
        outbound::{Pressure, Watermarks},
        state::{Event, State},
    },
    driver::{Sent, Token},
    error::CloseReason,
};

/// How long the kernel is left alone when it had no buffers for a send.
const RETRY: Duration = Duration::from_millis(50);

impl Core {
    /// The peer sent bytes.
    #[inline(always)]
    pub(crate) fn received(&mut self, services: &mut Services, token: Token, bytes: &[u8]) {
        self.counters.received_bytes.add(bytes.len());
        self.is_active(token);
        let scarce = self.memory.is_scarce();
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.heard = true;
        if slot.owed != NOT_ASKED {
            slot.owed = slot.owed.saturating_sub(u32::try_from(bytes.len()).unwrap_or(NOT_ASKED));
        }
        if let Some(traffic) = &mut slot.traffic {
            traffic.received_bytes += bytes.len() as u64;
        }
        let state = slot.conn.state();
        if state.handles() {
            if let Some(service) = services.get_mut(slot.service as usize) {
                service.received(self, token, bytes);
            }
            if scarce {
                self.mark_dirty(token);
            }
        } else if state.discards() {
            self.discarded(token, bytes.len());
        }
    }

    /// Bytes came for which there is no use any more.
    fn discarded(&mut self, token: Token, count: usize) {
        let quiet = self.limits.linger_timeout / 5;
        let Some(slot) = self.slots.get_mut(token) else { return };
        let enough = slot.conn.discard(count);
        if slot.conn.state() == State::Lingering {
            if enough {
                slot.conn.apply(Event::Failed);
            } else {
                self.arm(token, Kind::Quiet, quiet);
            }
        }
        if enough {
            self.mark_dirty(token);
        }
    }

    /// The peer has finished sending.
    pub(crate) fn end_of_stream(&mut self, services: &mut Services, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.receiving = false;
        if slot.conn.state() == State::Closing {
            return;
        }
        slot.conn.apply(Event::PeerFinished);
        slot.conn.inbound.ended = true;
        let service = slot.service;
        self.mark_dirty(token);
        if let Some(service) = services.get_mut(service as usize) {
            service.advance(self, token);
        }
    }

    /// The peer sent an urgent byte.
    pub(crate) fn urgent(&mut self, services: &mut Services, token: Token, byte: u8) {
        self.is_active(token);
        let Some(slot) = self.slots.get_mut(token) else { return };
        if slot.conn.state().handles()
            && let Some(service) = services.get_mut(slot.service as usize)
        {
            service.urgent(self, token, byte);
        }
    }

    /// Bytes went either way: the idle deadline moves. Its entry in the timers does not.
    #[inline]
    pub(crate) fn is_active(&mut self, token: Token) {
        if let Some(timeout) = self.limits.idle_timeout {
            self.put_idle_off(token, timeout);
        }
    }

    fn put_idle_off(&mut self, token: Token, timeout: Duration) {
        let at = self.tick_after(timeout);
        if let Some(slot) = self.slots.get_mut(token)
            && slot.conn.deadlines.get(Kind::Idle).is_some()
        {
            slot.conn.deadlines.set(Kind::Idle, at);
        }
    }

    /// A send is in flight: from now on the peer has to take some of it in time. It is soon asked
    /// what the peer's kernel has not acknowledged, and from then on the time runs.
    pub(super) fn await_sent(&mut self, token: Token) {
        if let Some(timeout) = self.limits.write_timeout {
            self.arm(token, Kind::Write, timeout / 16);
        }
    }

    /// A send that was in flight is over.
    pub(crate) fn sent(&mut self, token: Token, Sent { batch, result }: Sent) {
        let count = match result {
            Ok(count) => count,
            Err(error) => return self.send_failed(token, error, batch),
        };
        self.counters.sent_bytes.add(count);
        self.is_active(token);
        let Some(slot) = self.slots.get_mut(token) else { return self.pool.put(batch) };
        let fell = slot.take_sent(count, batch, &self.marks, &mut self.pool);
        // With nothing to follow there is nothing to flush.
        let starved = slot.starved;
        if slot.conn.outbound.is_empty() && slot.conn.state() == State::Open && !fell && !starved {
            slot.settle_account(token, &mut self.memory);
            self.counters.buffered_bytes.set(self.memory.used());
            return;
        }
        if fell {
            slot.mark_runnable(token, &mut self.runnable);
        }
        self.mark_dirty(token);
    }

    /// The kernel took nothing.
    pub(super) fn send_failed(&mut self, token: Token, error: io::Error, batch: Buffer) {
        let now = self.tick();
        let Some(slot) = self.slots.get_mut(token) else { return self.pool.put(batch) };
        slot.conn.outbound.sent(0, batch, &self.marks);
        if is_out_of_buffers(&error) {
            // No edge will come when there are buffers again.
            if let Some(left_out) = self.throttles.pass(Notice::Send, now) {
                tracing::warn!(peer = %slot.peer.peer(), left_out, "the kernel is out of buffers: {error}");
            }
            self.arm(token, Kind::Retry, RETRY);
        } else {
            self.fail(token, CloseReason::Broken(error), false);
        }
    }

    /// The driver has let go of a connection.
    pub(crate) fn released(&mut self, token: Token) {
        let Some(mut slot) = self.slots.remove(token) else { return };
        slot.conn.apply(Event::Released);
        self.timers.cancel(token, &mut slot.scheduled);
        self.memory.account(token, slot.accounted, 0, true);
        self.counters.closed.add(1);
        self.count_defect(&slot);
        for buffer in slot.conn.outbound.discard().into_iter().flatten() {
            self.pool.put(buffer);
        }
    }

    fn count_defect(&mut self, slot: &Slot) {
        let now = self.tick();
        if slot.conn.is_illegal() {
            self.counters.defects.add(1);
            if self.throttles.pass(Notice::Defect, now).is_some() {
                tracing::error!(peer = %slot.peer.peer(), "a connection had an event that cannot happen");
            }
        }
    }

    /// Lets a connection go on that waited for us.
    pub(crate) fn run(&mut self, services: &mut Services, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.runnable = false;
        let relieved = std::mem::take(&mut slot.relieved);
        if !slot.conn.state().handles() {
            return;
        }
        if let Some(service) = services.get_mut(slot.service as usize) {
            if relieved {
                service.relieved(self, token);
            }
            service.advance(self, token);
        }
        self.mark_dirty(token);
    }

    /// The handler's timer is due.
    pub(super) fn call_timer(&mut self, services: &mut Services, token: Token) {
        if let Some(slot) = self.slots.get(token)
            && slot.conn.state().handles()
            && let Some(service) = services.get_mut(slot.service as usize)
        {
            service.timer(self, token);
        }
    }
}

impl Slot {
    /// The kernel took `count` bytes of `batch`. Returns whether pressure fell with that.
    #[inline]
    pub(super) fn take_sent(
        &mut self,
        count: usize,
        batch: Buffer,
        marks: &Watermarks,
        pool: &mut Pool,
    ) -> bool {
        let (pressure, spare) = self.conn.outbound.sent(count, batch, marks);
        if let Some(spare) = spare {
            pool.put(spare);
        }
        if self.conn.outbound.is_empty() {
            self.conn.deadlines.clear(Kind::Write);
        }
        let fell = pressure == Pressure::Fell;
        if count > 0 {
            self.progressed = true;
            self.unacknowledged = NOT_ASKED;
        }
        if let Some(traffic) = &mut self.traffic {
            traffic.sent_bytes += count as u64;
        }
        self.relieved |= fell;
        fell
    }
}

/// Whether the kernel lacks memory, which passes.
fn is_out_of_buffers(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == ErrorKind::OutOfMemory || Errno::from_io_error(error) == Some(Errno::NOBUFS)
}
