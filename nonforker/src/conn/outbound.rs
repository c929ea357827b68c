//! The sending half of a connection: replies go in, bytes come out, pressure is reported.
//!
//! ```text
//!  lend() ◀─▶ give_back()
//!     (the handler appends)
//!            pending ── take() ──▶ in flight ── sent(n) ──▶ gone
//!               ▲                     │
//!               └── goes first ───────┘ a short send
//! ```
//!
//! At most one send is in flight. Replies made meanwhile collect in `pending`, so a burst of
//! small replies leaves as one write.
//!
//! Invariants:
//!
//! - The bytes in flight belong to the driver: they travel in their [`Buffer`] and come back in it.
//! - A send is in flight if bytes are and none of them are `unsent`.

use super::buffer::Buffer;

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
    /// The remainder of a short send: it goes before `pending`.
    unsent: Option<Buffer>,
    /// How many bytes are with the driver, or `unsent`.
    in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch, at most 64 KiB: the next buffer is chosen to hold as much.
    hint: u16,
}

impl Outbound {
    /// Queued and in-flight bytes together.
    pub(crate) fn queued(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::len) + self.in_flight
    }

    /// The bytes that are in flight, or were and have to be sent again.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight == 0
    }

    /// Whether a send is in flight.
    pub(crate) const fn is_sending(&self) -> bool {
        self.in_flight > 0 && self.unsent.is_none()
    }

    /// The capacity that served last time, in bytes.
    pub(crate) const fn hint(&self) -> usize {
        self.hint as usize
    }

    /// The memory this half owns, in bytes, what is in flight included.
    pub(crate) fn capacity(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::held) + self.in_flight_capacity as usize
    }

    /// Takes out what is pending, for more to be appended; to be [given back](Self::give_back).
    pub(crate) const fn lend(&mut self) -> Option<Buffer> {
        self.pending.take()
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
        if self.is_sending() {
            return None;
        }
        let batch = self.unsent.take().or_else(|| self.pending.take())?;
        self.in_flight = batch.len();
        self.in_flight_capacity = saturate(batch.held());
        self.hint = u16::try_from(self.in_flight).unwrap_or(u16::MAX);
        Some(batch)
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns the buffer if all of it is gone.
    #[inline]
    pub(crate) fn sent(&mut self, count: usize, mut batch: Buffer) -> Option<Buffer> {
        batch.advance(count);
        self.in_flight = batch.len();
        if self.in_flight == 0 {
            self.in_flight_capacity = 0;
            return Some(batch);
        }
        self.unsent = Some(batch);
        None
    }

    /// Throws away everything that is not in flight. Returns the buffers for the pool.
    pub(crate) fn discard(&mut self) -> [Option<Buffer>; 2] {
        if !self.is_sending() {
            self.in_flight = 0;
            self.in_flight_capacity = 0;
        }
        [self.pending.take(), self.unsent.take()]
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
