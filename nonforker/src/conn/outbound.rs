//! The sending half of a connection: replies go in, bytes come out, pressure is reported.
//!
//! ```text
//!            pending ── departs ──▶ in flight ── sent(n) ──▶ gone
//!               ▲                      │
//!               └── goes first ────────┘ a short send
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

/// What is taken out of a connection for replies to be appended.
#[derive(Debug)]
pub(crate) struct Lent {
    /// What is queued, if anything is.
    pub(crate) buffer: Option<Buffer>,
    /// The length of the last batch, in bytes.
    pub(crate) hint: usize,
    /// The bytes that are in flight, or were and have to be sent again.
    pub(crate) in_flight: usize,
}

/// Bytes for the peer that are queued or in flight.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pub(super) pending: Option<Buffer>,
    /// The remainder of a short send: it goes before `pending`.
    unsent: Option<Buffer>,
    /// How many bytes are with the driver, or `unsent`.
    pub(super) in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch, at most 64 KiB: the next buffer is chosen to hold as much.
    pub(super) hint: u16,
}

impl Outbound {
    /// Queued and in-flight bytes together.
    pub(crate) fn queued(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::len) + self.in_flight
    }

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight == 0
    }

    /// Whether a send is in flight.
    pub(crate) const fn is_sending(&self) -> bool {
        self.in_flight > 0 && self.unsent.is_none()
    }

    /// The memory this half owns, in bytes, what is in flight included.
    pub(crate) fn capacity(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::held) + self.in_flight_capacity as usize
    }

    /// Takes what was sent in part, if it is not in flight. It goes before what is pending. As of any
    /// batch, what becomes of it is to be told at once: it [departs](Self::departs), or it is
    /// [sent](Self::sent) already.
    pub(super) const fn take_unsent(&mut self) -> Option<Buffer> {
        self.unsent.take()
    }

    /// The batch that was taken is in flight. It was so long, and takes so much memory.
    pub(crate) fn departs(&mut self, length: usize, held: usize) {
        self.in_flight = length;
        self.in_flight_capacity = u32::try_from(held).unwrap_or(u32::MAX);
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns the buffer if all of it is gone.
    #[inline]
    pub(crate) fn sent(&mut self, count: usize, mut batch: Buffer) -> Option<Buffer> {
        let left = batch.len().saturating_sub(count);
        if left == 0 {
            self.in_flight = 0;
            self.in_flight_capacity = 0;
            self.hint = u16::try_from(count).unwrap_or(u16::MAX);
            return Some(batch);
        }
        batch.advance(count);
        self.departs(left, batch.held());
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

#[cfg(test)]
mod tests {
    use super::{Buffer, Outbound};

    fn push(outbound: &mut Outbound, bytes: &[u8]) {
        let pending = outbound.pending.get_or_insert_with(|| Buffer::with_capacity(0));
        pending.vec().extend_from_slice(bytes);
    }

    /// Takes the next batch, and has it in flight.
    fn depart(outbound: &mut Outbound) -> Option<Buffer> {
        let batch = match outbound.in_flight {
            0 => outbound.pending.take(),
            _ => outbound.take_unsent(),
        }?;
        outbound.departs(batch.len(), batch.held());
        Some(batch)
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
