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
//! - Pressure has hysteresis. It rises above the high watermark and falls at the low one, so a
//!   connection that hovers at one mark does not flap.
//!
//! Not here: what pressure *means*. The engine stops handling and receiving while it lasts.

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

/// Whether pressure rose or fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    Unchanged,
    Fell,
}

/// Bytes for the peer that are queued or in flight.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pending: Option<Buffer>,
    /// The remainder of a short send: it goes before `pending`.
    unsent: Option<Buffer>,
    in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch, at most 64 KiB: the next buffer is chosen to hold as much.
    hint: u16,
    sending: bool,
    pressured: bool,
}

impl Outbound {
    /// Queued and in-flight bytes together.
    pub(crate) fn queued(&self) -> usize {
        self.mark() + self.in_flight
    }

    /// The bytes that are in flight, or were and have to be sent again.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.in_flight == 0 && !self.sending
    }

    /// Whether a send is in flight.
    pub(crate) const fn is_sending(&self) -> bool {
        self.sending
    }

    /// Whether output stands above the high watermark, or has not yet fallen to the low one.
    pub(crate) const fn is_pressured(&self) -> bool {
        self.pressured
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

    /// Takes back what was lent, with what was appended, and raises pressure if that crossed the
    /// high watermark. Returns a buffer in which there is nothing.
    #[inline]
    pub(crate) fn give_back(&mut self, pending: Buffer, marks: &Watermarks) -> Option<Buffer> {
        debug_assert!(self.pending.is_none(), "what is pending was lent");
        if pending.is_empty() {
            return Some(pending);
        }
        self.pending = Some(pending);
        self.pressured |= self.queued() > marks.high;
        None
    }

    /// The length of what is pending.
    pub(crate) fn mark(&self) -> usize {
        self.pending.as_ref().map_or(0, Buffer::len)
    }

    /// The next batch to send, if there is one and none is in flight.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        if self.sending {
            return None;
        }
        let batch = self.unsent.take().or_else(|| self.pending.take())?;
        self.in_flight = batch.len();
        self.in_flight_capacity = saturate(batch.held());
        self.hint = u16::try_from(self.in_flight).unwrap_or(u16::MAX);
        self.sending = true;
        Some(batch)
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns whether pressure fell, and the
    /// buffer if all of it is gone.
    #[inline]
    pub(crate) fn sent(
        &mut self,
        count: usize,
        mut batch: Buffer,
        marks: &Watermarks,
    ) -> (Pressure, Option<Buffer>) {
        batch.advance(count);
        self.sending = false;
        self.in_flight = batch.len();
        let mut spare = None;
        if self.in_flight == 0 {
            self.in_flight_capacity = 0;
            spare = Some(batch);
        } else {
            self.unsent = Some(batch);
        }
        (self.relieve(marks), spare)
    }

    /// Throws away everything that is not in flight. Returns the buffers for the pool.
    pub(crate) fn discard(&mut self) -> [Option<Buffer>; 2] {
        if !self.sending {
            self.in_flight = 0;
            self.in_flight_capacity = 0;
        }
        self.pressured = false;
        [self.pending.take(), self.unsent.take()]
    }

    fn relieve(&mut self, marks: &Watermarks) -> Pressure {
        if self.pressured && self.queued() <= marks.low {
            self.pressured = false;
            return Pressure::Fell;
        }
        Pressure::Unchanged
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Outbound, Pressure, Watermarks};

    const MARKS: Watermarks = Watermarks { high: 100, low: 40, cap: 200 };

    fn push(outbound: &mut Outbound, bytes: &[u8]) {
        let mut pending = outbound.lend().unwrap_or_else(|| Buffer::with_capacity(0));
        pending.vec().extend_from_slice(bytes);
        outbound.give_back(pending, &MARKS);
    }

    fn push_some(outbound: &mut Outbound, count: usize) {
        push(outbound, &vec![b'x'; count]);
    }

    #[test]
    fn pressure_rises_above_high_and_falls_at_low() {
        let mut outbound = Outbound::default();
        push_some(&mut outbound, 100);
        assert!(!outbound.is_pressured(), "at the high watermark");
        push_some(&mut outbound, 1);
        assert!(outbound.is_pressured(), "above it");

        for (sent, queued, pressure) in
            [(30, 71, Pressure::Unchanged), (30, 41, Pressure::Unchanged), (1, 40, Pressure::Fell)]
        {
            let batch = outbound.take().expect("bytes are queued");
            assert_eq!(outbound.sent(sent, batch, &MARKS).0, pressure, "{queued} queued");
            assert_eq!(outbound.queued(), queued);
        }
        push_some(&mut outbound, 60);
        assert!(!outbound.is_pressured(), "no flapping between the marks");
    }

    #[test]
    fn the_rest_of_a_short_send_goes_before_what_came_later() {
        let mut outbound = Outbound::default();
        push(&mut outbound, b"abcdef");
        let first = outbound.take().expect("bytes are queued");
        assert!(outbound.take().is_none(), "one send in flight");
        push(&mut outbound, b"ghi");
        outbound.sent(4, first, &MARKS);

        let rest = outbound.take().expect("two bytes are unsent");
        assert_eq!(rest.bytes(), b"ef");
        outbound.sent(2, rest, &MARKS);
        let last = outbound.take().expect("three bytes are pending");
        assert_eq!(last.bytes(), b"ghi");
        outbound.sent(3, last, &MARKS);
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
        outbound.sent(0, batch, &MARKS);
        outbound.discard();
        assert!(outbound.is_empty());
    }
}
