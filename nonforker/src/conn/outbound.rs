//! The sending half of a connection: replies go in, bytes come out, pressure is reported.
//!
//! ```text
//!  pending() ──▶ pending ── take() ──▶ in flight ── sent(n) ──▶ gone
//!  (appended by the handler)              │
//!                    ▲                    │ a short send
//!                    └── goes first ──────┘
//! ```
//!
//! At most one send is in flight. Replies made meanwhile collect in `pending`, so a burst of
//! small replies leaves as one write.
//!
//! Invariants:
//!
//! - The bytes in flight belong to the driver: they travel as a [`Batch`] and come back as one.
//! - Pressure has hysteresis. It rises above the high watermark and falls at the low one, so a
//!   connection that hovers at one mark does not flap.
//!
//! Not here: what pressure *means*. The engine stops handling and receiving while it lasts.

use std::mem;

/// Bytes on their way to the peer, owned by whoever is to send them.
///
/// Drivers look at [`unsent`](Self::unsent) only, so a batch can become a list of segments
/// without a change to them.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sent: usize,
}

impl Batch {
    /// A batch of which nothing is sent yet.
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0 }
    }

    /// What is still to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the first `count` unsent bytes are gone.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.bytes.len());
    }

    /// The buffer, for the pool.
    pub(crate) fn into_buffer(mut self) -> Vec<u8> {
        self.bytes.clear();
        self.bytes
    }
}

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
    pending: Vec<u8>,
    /// The remainder of a short send: it goes before `pending`.
    unsent: Option<Box<Batch>>,
    in_flight: usize,
    /// In bytes, at most 4 GiB: it is for the memory account only.
    in_flight_capacity: u32,
    /// The length of the last batch: the next buffer is chosen to hold as much.
    hint: u32,
    sending: bool,
    pressured: bool,
}

impl Outbound {
    /// Queued and in-flight bytes together.
    pub(crate) const fn queued(&self) -> usize {
        self.pending.len() + self.in_flight
    }

    /// Whether nothing is queued or in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.queued() == 0 && !self.sending
    }

    /// Whether a send is in flight.
    pub(crate) const fn is_sending(&self) -> bool {
        self.sending
    }

    /// Whether output stands above the high watermark, or has not yet fallen to the low one.
    pub(crate) const fn is_pressured(&self) -> bool {
        self.pressured
    }

    /// The memory this half owns, in bytes, what is in flight included.
    pub(crate) const fn capacity(&self) -> usize {
        self.pending.capacity() + self.in_flight_capacity as usize
    }

    /// Where replies are appended; [`pushed`](Self::pushed) must be called afterwards.
    ///
    /// `allocate` is asked for a buffer, with the capacity that served last time, if there is
    /// none.
    pub(crate) fn pending(&mut self, allocate: impl FnOnce(usize) -> Vec<u8>) -> &mut Vec<u8> {
        if self.pending.capacity() == 0 {
            self.pending = allocate(self.hint as usize);
        }
        &mut self.pending
    }

    /// The length of what is pending, as a mark for [`truncate`](Self::truncate).
    pub(crate) const fn mark(&self) -> usize {
        self.pending.len()
    }

    /// Takes back what was appended since `mark`, and the buffer if nothing is left in it.
    pub(crate) fn truncate(&mut self, mark: usize) {
        self.pending.truncate(mark);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Raises pressure if what was appended crossed the high watermark.
    pub(crate) const fn pushed(&mut self, marks: &Watermarks) {
        if self.queued() > marks.high {
            self.pressured = true;
        }
    }

    /// The next batch to send, if there is one and none is in flight.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.sending {
            return None;
        }
        let batch = match self.unsent.take() {
            Some(unsent) => *unsent,
            None if self.pending.is_empty() => return None,
            None => Batch::new(mem::take(&mut self.pending)),
        };
        self.in_flight = batch.unsent().len();
        self.in_flight_capacity = saturate(batch.bytes.capacity());
        self.hint = saturate(self.in_flight);
        self.sending = true;
        Some(batch)
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns whether pressure fell, and the
    /// buffer if all of it is gone.
    pub(crate) fn sent(
        &mut self,
        count: usize,
        mut batch: Batch,
        marks: &Watermarks,
    ) -> (Pressure, Vec<u8>) {
        batch.advance(count);
        self.sending = false;
        self.in_flight = batch.unsent().len();
        let mut spare = Vec::new();
        if self.in_flight == 0 {
            self.in_flight_capacity = 0;
            spare = batch.into_buffer();
        } else {
            self.unsent = Some(Box::new(batch));
        }
        (self.relieve(marks), spare)
    }

    /// Throws away everything that is not in flight. Returns the buffers for the pool.
    pub(crate) fn discard(&mut self) -> [Vec<u8>; 2] {
        let unsent = self.unsent.take().map(|batch| batch.into_buffer()).unwrap_or_default();
        if !self.sending {
            self.in_flight = 0;
            self.in_flight_capacity = 0;
        }
        self.pressured = false;
        [mem::take(&mut self.pending), unsent]
    }

    const fn relieve(&mut self, marks: &Watermarks) -> Pressure {
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
    use super::{Outbound, Pressure, Watermarks};

    const MARKS: Watermarks = Watermarks { high: 100, low: 40, cap: 200 };

    fn push(outbound: &mut Outbound, count: usize) {
        let filled = outbound.mark() + count;
        outbound.pending(Vec::with_capacity).resize(filled, b'x');
        outbound.pushed(&MARKS);
    }

    #[test]
    fn pressure_rises_above_high_and_falls_at_low() {
        let mut outbound = Outbound::default();
        push(&mut outbound, 100);
        assert!(!outbound.is_pressured(), "at the high watermark");
        push(&mut outbound, 1);
        assert!(outbound.is_pressured(), "above it");

        for (sent, queued, pressure) in
            [(30, 71, Pressure::Unchanged), (30, 41, Pressure::Unchanged), (1, 40, Pressure::Fell)]
        {
            let batch = outbound.take().expect("bytes are queued");
            assert_eq!(outbound.sent(sent, batch, &MARKS).0, pressure, "{queued} queued");
            assert_eq!(outbound.queued(), queued);
        }
        push(&mut outbound, 60);
        assert!(!outbound.is_pressured(), "no flapping between the marks");
    }

    #[test]
    fn the_rest_of_a_short_send_goes_before_what_came_later() {
        let mut outbound = Outbound::default();
        outbound.pending(Vec::with_capacity).extend_from_slice(b"abcdef");
        let first = outbound.take().expect("bytes are queued");
        assert!(outbound.take().is_none(), "one send in flight");
        outbound.pending(Vec::with_capacity).extend_from_slice(b"ghi");
        outbound.sent(4, first, &MARKS);

        let rest = outbound.take().expect("two bytes are unsent");
        assert_eq!(rest.unsent(), b"ef");
        outbound.sent(2, rest, &MARKS);
        let last = outbound.take().expect("three bytes are pending");
        assert_eq!(last.unsent(), b"ghi");
        outbound.sent(3, last, &MARKS);
        assert!(outbound.is_empty());
        assert_eq!(outbound.capacity(), 0, "an idle half owns no buffer");
    }

    #[test]
    fn discarding_leaves_only_what_is_in_flight() {
        let mut outbound = Outbound::default();
        push(&mut outbound, 150);
        let batch = outbound.take().expect("bytes are queued");
        push(&mut outbound, 10);
        outbound.discard();
        assert_eq!(outbound.queued(), 150, "the driver still has it");
        outbound.sent(0, batch, &MARKS);
        outbound.discard();
        assert!(outbound.is_empty());
    }
}
