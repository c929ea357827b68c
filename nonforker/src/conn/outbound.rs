//! The sending half of a connection: replies go in, bytes come out, pressure is reported.
//!
//! ```text
//!  lend() ◀─▶ give_back()
//!     (the handler appends)
//!            pending ── take() ──▶ in flight ── sent(n) ──▶ gone
//!               ▲                     │
//!             ahead ◀─ goes first ────┘ a short send
//! ```
//!
//! At most one send is in flight. Replies made meanwhile collect in `pending`, so a burst of
//! small replies leaves as one write. Payloads that are shared with other connections, and what was
//! pending before them, go [ahead](super::ahead) of what is pending, in sends of their own.
//!
//! Invariants:
//!
//! - The bytes in flight belong to the driver: they travel in their [`Buffer`] and come back in it.
//! - A send is in flight if bytes are and none of them are unsent.

use std::sync::Arc;

use super::{ahead::Ahead, buffer::Buffer, payload::Payload};

/// When output is too much: [`Limits`](crate::Limits) in the form a connection needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watermarks {
    /// Above this many queued bytes the handling and the reading stop.
    pub(crate) high: usize,
    /// At this many queued bytes they go on.
    pub(crate) low: usize,
    /// Beyond this many queued bytes a push by others closes the connection.
    pub(crate) cap: usize,
}

/// Bytes for the peer that are queued or in flight.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pending: Option<Buffer>,
    /// What goes before `pending`, if anything does.
    ahead: Option<Box<Ahead>>,
    /// How many bytes are with the driver, or unsent.
    in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch, at most 64 KiB: the next buffer is chosen to hold as much.
    hint: u16,
}

impl Outbound {
    /// Queued and in-flight bytes together.
    pub(crate) fn queued(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::len) + self.in_flight + self.bytes_ahead()
    }

    /// How many bytes wait ahead of what is pending, without what is unsent.
    #[inline]
    pub(super) fn bytes_ahead(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.bytes())
    }

    /// The bytes that are in flight, or were and have to be sent again.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight == 0 && self.ahead.is_none()
    }

    /// Whether a send is in flight.
    #[inline]
    pub(crate) fn is_sending(&self) -> bool {
        self.in_flight > 0 && self.ahead.as_ref().is_none_or(|ahead| ahead.unsent.is_none())
    }

    /// Whether more is to be sent behind the batch that was taken.
    #[inline]
    pub(crate) const fn has_more(&self) -> bool {
        self.pending.is_some() || self.ahead.is_some()
    }

    /// The capacity that served last time, in bytes.
    pub(crate) const fn hint(&self) -> usize {
        self.hint as usize
    }

    /// The memory this half owns, in bytes, what is in flight included.
    pub(crate) fn capacity(&self) -> usize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.capacity());
        self.pending.as_ref().map_or(0, Buffer::held) + self.in_flight_capacity as usize + ahead
    }

    /// Takes out what is pending, for more to be appended; to be [given back](Self::give_back).
    #[inline]
    pub(crate) fn lend(&mut self) -> Option<Buffer> {
        let mut pending = self.pending.take()?;
        pending.settle();
        Some(pending)
    }

    /// Takes back what was lent, with what was appended. Returns a buffer in which there is nothing.
    #[inline]
    pub(crate) fn give_back(&mut self, pending: Buffer) -> Option<Buffer> {
        debug_assert!(self.pending.is_none(), "what is pending was lent");
        if pending.is_empty() {
            return Some(pending);
        }
        self.pending = Some(pending);
        None
    }

    /// The next batch to send, if there is one and none is in flight.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        let batch = match &mut self.ahead {
            None if self.in_flight > 0 => return None,
            None => self.pending.take()?,
            Some(_) => self.take_ahead()?,
        };
        self.in_flight = batch.len();
        self.in_flight_capacity = saturate(batch.held());
        if !batch.is_shared() {
            self.hint = u16::try_from(self.in_flight).unwrap_or(u16::MAX);
        }
        Some(batch)
    }

    /// The same if something goes before what is pending.
    #[cold]
    fn take_ahead(&mut self) -> Option<Buffer> {
        let ahead = self.ahead.as_mut()?;
        let batch = match ahead.unsent.take() {
            Some(unsent) => Some(unsent),
            None if self.in_flight > 0 => None,
            None => ahead.take_first(&mut self.pending),
        };
        self.drop_vacant();
        batch
    }

    fn drop_vacant(&mut self) {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.is_vacant()) {
            self.ahead = None;
        }
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns the buffer if all of it is gone and it
    /// is of further use.
    #[inline]
    pub(crate) fn sent(&mut self, count: usize, mut batch: Buffer) -> Option<Buffer> {
        batch.advance(count);
        self.in_flight = batch.len();
        if self.in_flight == 0 {
            self.in_flight_capacity = 0;
            return (!batch.is_shared()).then_some(batch);
        }
        self.ahead.get_or_insert_default().unsent = Some(batch);
        None
    }

    /// Queues a copy of a message, in a buffer from `allocate` if nothing is pending.
    pub(super) fn push_copy(&mut self, bytes: &[u8], allocate: impl FnOnce(usize) -> Buffer) {
        let pending = self.pending.get_or_insert_with(|| allocate(bytes.len()));
        pending.vec().extend_from_slice(bytes);
    }

    /// Queues a payload, which is not copied.
    pub(super) fn push_shared(&mut self, payload: &Arc<Payload>) {
        let segment = Buffer::sharing(payload);
        let is_empty = self.is_empty();
        let ahead = self.ahead.get_or_insert_default();
        if is_empty {
            // It leaves in this turn, as the remainder of a short send does.
            self.in_flight = segment.len();
            self.in_flight_capacity = saturate(segment.held());
            ahead.unsent = Some(segment);
            return;
        }
        if let Some(pending) = self.pending.take() {
            ahead.push(pending);
        }
        ahead.push(segment);
    }

    /// The last message, of this length, may be dropped while it is queued.
    pub(super) fn note_droppable(&mut self, length: usize) {
        let pending = self.pending.as_ref().map_or(0, Buffer::len);
        self.ahead.get_or_insert_default().note(length, pending);
    }

    /// How many bytes may be dropped.
    pub(super) fn droppable(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.droppable())
    }

    /// Drops the oldest message that may be dropped, unless it is among the `last` bytes that are
    /// pending. Returns its length.
    pub(super) fn drop_oldest(&mut self, last: usize) -> Option<usize> {
        let dropped = self.ahead.as_mut()?.drop_oldest(&mut self.pending, last);
        self.drop_vacant();
        dropped
    }

    /// Messages were taken back that had been noted as droppable.
    pub(super) fn forget_taken_back(&mut self) {
        let pending = self.pending.as_ref().map_or(0, Buffer::len);
        if let Some(ahead) = &mut self.ahead {
            ahead.forget_beyond(pending);
        }
        self.drop_vacant();
    }

    /// What is wrong with it between two turns, if anything is.
    pub(super) fn unsound(&self) -> Option<&'static str> {
        self.ahead.as_ref()?.unsound(self.pending.as_ref().map_or(0, Buffer::len))
    }

    /// Throws away everything that is not in flight. Returns the buffers for the pool.
    pub(crate) fn discard(&mut self) -> [Option<Buffer>; 2] {
        if !self.is_sending() {
            self.in_flight = 0;
            self.in_flight_capacity = 0;
        }
        let unsent = self.ahead.take().and_then(|ahead| ahead.unsent);
        let unsent = unsent.filter(|unsent| !unsent.is_shared());
        [self.pending.take(), unsent]
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Outbound};

    fn push(outbound: &mut Outbound, bytes: &[u8]) {
        let mut pending = outbound.lend().unwrap_or_else(|| Buffer::with_capacity(0));
        pending.vec().extend_from_slice(bytes);
        outbound.give_back(pending);
    }

    fn push_some(outbound: &mut Outbound, count: usize) {
        push(outbound, &vec![b'x'; count]);
    }

    #[test]
    fn the_rest_of_a_short_send_goes_before_what_came_later() {
        let mut outbound = Outbound::default();
        push(&mut outbound, b"abcdef");
        let first = outbound.take().expect("bytes are queued");
        assert!(outbound.take().is_none(), "one send in flight");
        push(&mut outbound, b"ghi");
        outbound.sent(4, first);

        let rest = outbound.take().expect("two bytes are unsent");
        assert_eq!(rest.bytes(), b"ef");
        outbound.sent(2, rest);
        let last = outbound.take().expect("three bytes are pending");
        assert_eq!(last.bytes(), b"ghi");
        outbound.sent(3, last);
        assert!(outbound.is_empty());
        assert_eq!(outbound.capacity(), 0, "an idle half owns no buffer");
    }

    #[test]
    fn discarding_leaves_only_what_is_in_flight() {
        let mut outbound = Outbound::default();
        push_some(&mut outbound, 150);
        let batch = outbound.take().expect("bytes are queued");
        push_some(&mut outbound, 10);
        outbound.discard();
        assert_eq!(outbound.queued(), 150, "the driver still has it");
        outbound.sent(0, batch);
        outbound.discard();
        assert!(outbound.is_empty());
    }
}
