//! The sending half of a connection: replies go in, bytes come out, pressure is reported.
//!
//! ```text
//!            pending ── departs ──▶ in flight ── sent(n) ──▶ gone
//!               ▲                      │
//!             ahead ◀─ goes first ─────┘ a short send
//! ```
//!
//! At most one send is in flight. Replies made meanwhile collect in `pending`, so a burst of
//! small replies leaves as one write. A payload that is shared with other connections is all that is
//! pending, if nothing else was queued. A long one that comes later, and what was pending before it, go
//! [ahead](super::ahead) of what is pending, in sends of their own.
//!
//! Invariants:
//!
//! - The bytes in flight belong to the driver: they travel in their [`Buffer`] and come back in it.
//! - A send is in flight if bytes are and none of them are unsent.

use std::sync::Arc;

use super::{
    ahead::Ahead,
    buffer::Buffer,
    payload::{Payload, SHARED_MIN},
};

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

/// What is taken out of a connection for replies to be appended.
#[derive(Debug)]
pub(crate) struct Lent {
    /// What is queued, if anything is.
    pub(crate) buffer: Option<Buffer>,
    /// The length of the last batch, in bytes.
    pub(crate) hint: usize,
    /// How many bytes are in flight, or go ahead of the queue, or wait behind tickets.
    pub(crate) elsewhere: usize,
}

/// Bytes for the peer that are queued or in flight.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pub(super) pending: Option<Buffer>,
    /// What goes before `pending`, if anything does.
    pub(super) ahead: Option<Box<Ahead>>,
    /// How many bytes are with the driver, or unsent.
    pub(super) in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch, at most 64 KiB: the next buffer is chosen to hold as much.
    pub(super) hint: u16,
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

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight == 0 && self.ahead.is_none()
    }

    /// Whether a send is in flight.
    #[inline]
    pub(crate) fn is_sending(&self) -> bool {
        self.in_flight > 0 && self.ahead.as_ref().is_none_or(|ahead| ahead.unsent.is_none())
    }

    /// Whether bytes are in flight, or were sent in part.
    pub(crate) const fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether more is to be sent behind the batch that was taken.
    #[inline]
    pub(crate) const fn has_more(&self) -> bool {
        self.pending.is_some() || self.ahead.is_some()
    }

    /// The memory this half owns, in bytes, what is in flight included.
    pub(crate) fn capacity(&self) -> usize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.capacity());
        self.pending.as_ref().map_or(0, Buffer::held) + self.in_flight_capacity as usize + ahead
    }

    /// Takes out what is pending, for more to be appended.
    #[inline]
    pub(super) fn lend(&mut self) -> Option<Buffer> {
        if self.pending.as_ref().is_some_and(Buffer::is_shared) {
            self.own_pending();
        }
        let mut pending = self.pending.take()?;
        pending.settle();
        Some(pending)
    }

    /// Takes what was sent in part, if it is not in flight. It goes before what is pending.
    #[cold]
    pub(super) fn take_unsent(&mut self) -> Option<Buffer> {
        let unsent = self.ahead.as_mut()?.unsent.take();
        self.drop_vacant();
        unsent
    }

    /// Takes the next batch while none is in flight. This one is, until it is [sent](Self::sent).
    #[inline]
    pub(super) fn take_next(&mut self) -> Option<Buffer> {
        let batch = if self.ahead.is_some() { self.take_ahead() } else { self.pending.take() }?;
        self.departs(&batch);
        Some(batch)
    }

    /// The same if something goes before what is pending.
    #[cold]
    fn take_ahead(&mut self) -> Option<Buffer> {
        let batch = self.ahead.as_mut()?.take_first(&mut self.pending);
        self.drop_vacant();
        batch
    }

    pub(super) fn drop_vacant(&mut self) {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.is_vacant()) {
            self.ahead = None;
        }
    }

    /// A batch is in flight.
    #[inline]
    pub(super) fn departs(&mut self, batch: &Buffer) {
        self.in_flight = batch.len();
        self.in_flight_capacity = u32::try_from(batch.held()).unwrap_or(u32::MAX);
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns the buffer if all of it is gone and it is
    /// of further use.
    #[inline(always)]
    pub(crate) fn sent(&mut self, count: usize, batch: Buffer) -> Option<Buffer> {
        if count < self.in_flight {
            self.sent_in_part(count, batch);
            return None;
        }
        self.in_flight = 0;
        self.in_flight_capacity = 0;
        if batch.is_shared() {
            return None;
        }
        self.hint = u16::try_from(count).unwrap_or(u16::MAX);
        Some(batch)
    }

    #[cold]
    fn sent_in_part(&mut self, count: usize, mut batch: Buffer) {
        batch.advance(count);
        self.departs(&batch);
        self.ahead.get_or_insert_default().unsent = Some(batch);
    }

    /// Nothing can be appended to a payload: a short one is copied, a long one goes ahead.
    #[cold]
    fn own_pending(&mut self) {
        let Some(payload) = self.pending.take() else { return };
        if payload.len() < SHARED_MIN {
            self.pending = Some(Buffer::new(payload.bytes().to_vec()));
        } else {
            self.ahead.get_or_insert_default().push(payload);
        }
    }

    /// Whether a payload of this length is better shared than copied. One that nothing goes before is: it
    /// leaves in this turn, and to write to a buffer for each connection costs more. Behind something
    /// else it takes a send of its own.
    pub(super) const fn is_shared(&self, length: usize) -> bool {
        length >= SHARED_MIN || self.is_empty()
    }

    /// Queues a copy of a message, in a buffer from `allocate` if nothing is pending.
    pub(super) fn push_copy(&mut self, bytes: &[u8], allocate: impl FnOnce(usize) -> Buffer) {
        if self.pending.as_ref().is_some_and(Buffer::is_shared) {
            self.own_pending();
        }
        let pending = self.pending.get_or_insert_with(|| allocate(bytes.len()));
        pending.vec().extend_from_slice(bytes);
    }

    /// Queues a payload, which is not copied.
    pub(super) fn push_shared(&mut self, payload: &Arc<Payload>) {
        let segment = Buffer::sharing(payload);
        if self.is_empty() {
            self.pending = Some(segment);
            return;
        }
        let ahead = self.ahead.get_or_insert_default();
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
        [self.pending.take(), unsent].map(|buffer| buffer.filter(|buffer| !buffer.is_shared()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Buffer, Outbound, Payload, SHARED_MIN};

    fn push(outbound: &mut Outbound, bytes: &[u8]) {
        let pending = outbound.pending.get_or_insert_with(|| Buffer::with_capacity(0));
        pending.vec().extend_from_slice(bytes);
    }

    /// Takes the next batch, which is in flight then.
    fn depart(outbound: &mut Outbound) -> Option<Buffer> {
        match outbound.in_flight {
            0 => outbound.take_next(),
            _ => outbound.take_unsent(),
        }
    }

    fn push_some(outbound: &mut Outbound, count: usize) {
        push(outbound, &vec![b'x'; count]);
    }

    #[test]
    fn the_rest_of_a_short_send_goes_before_what_came_later() {
        let mut outbound = Outbound::default();
        push(&mut outbound, b"abcdef");
        let first = depart(&mut outbound).expect("bytes are queued");
        assert!(depart(&mut outbound).is_none(), "one send in flight");
        push(&mut outbound, b"ghi");
        outbound.sent(4, first);

        let rest = depart(&mut outbound).expect("two bytes are unsent");
        assert_eq!(rest.bytes(), b"ef");
        outbound.sent(2, rest);
        let last = depart(&mut outbound).expect("three bytes are pending");
        assert_eq!(last.bytes(), b"ghi");
        outbound.sent(3, last);
        assert!(outbound.is_empty());
        assert_eq!(outbound.capacity(), 0, "an idle half owns no buffer");
    }

    #[test]
    fn a_payload_is_all_that_is_pending_until_something_follows() {
        let savings = Arc::default();
        for (length, sends) in [(10, 1), (SHARED_MIN - 1, 1), (SHARED_MIN, 2)] {
            let payload = Payload::new(Arc::new(vec![b'p'; length].into()), &savings);
            let mut outbound = Outbound::default();
            assert!(outbound.is_shared(length), "nothing goes before it");
            outbound.push_shared(&payload);
            assert_eq!(savings.handed_out(), length, "it is not copied");
            outbound.push_copy(b"more", Buffer::with_capacity);
            assert_eq!(outbound.is_shared(length), length >= SHARED_MIN);
            assert_eq!(outbound.queued(), length + 4);
            let mut sent = Vec::new();
            while let Some(batch) = depart(&mut outbound) {
                sent.push(batch.bytes().to_vec());
                outbound.sent(batch.len(), batch);
            }
            assert_eq!(sent.len(), sends, "{length} bytes");
            assert_eq!(sent.concat(), [payload.bytes(), b"more"].concat());
            assert!(outbound.is_empty());
            assert_eq!(savings.handed_out(), 0);
        }
    }

    #[test]
    fn discarding_leaves_only_what_is_in_flight() {
        let mut outbound = Outbound::default();
        push_some(&mut outbound, 150);
        let batch = depart(&mut outbound).expect("bytes are queued");
        push_some(&mut outbound, 10);
        outbound.discard();
        assert_eq!(outbound.queued(), 150, "the driver still has it");
        outbound.sent(0, batch);
        outbound.discard();
        assert!(outbound.is_empty());
    }
}
