//! The receiving half of a connection: bytes that no frame has taken yet.
//!
//! ```text
//!  bytes lent by the driver ──▶ frames ──▶ handler
//!               │  ▲
//!     what is left  what was kept
//!               ▼  │
//!               kept
//! ```
//!
//! Bytes are decoded where the driver put them. Only what no frame has taken is kept here: the
//! start of a frame that is still incomplete, or frames that are *held* because the connection
//! may not handle them now.
//!
//! Invariants:
//!
//! - `kept` has no allocation while it is empty.
//! - What was kept and what has arrived are joined before either is decoded, so frames keep
//!   their order.
//!
//! Not here: the bound on `kept`. A codec refuses a frame that is too long, and the engine does
//! not receive while frames are held, so `kept` is at most one frame and one read.

use super::buffer::Buffer;

/// Bytes received from the peer that no frame has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    kept: Option<Buffer>,
}

impl Inbound {
    /// Whether nothing is kept, so that arriving bytes can be decoded where they are.
    pub(crate) const fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// What is kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], Buffer::bytes)
    }

    /// The same to be changed.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.kept.as_mut().map_or(&mut [], Buffer::bytes_mut)
    }

    /// The memory this half owns, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.kept.as_ref().map_or(0, Buffer::held)
    }

    /// Keeps `bytes` behind what is kept already, in a buffer from `allocate` (given the least
    /// capacity it must have) if the present one is too small. Returns the outgrown buffer.
    pub(crate) fn keep(
        &mut self,
        bytes: &[u8],
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> Option<Buffer> {
        if bytes.is_empty() {
            return None;
        }
        let mut outgrown = None;
        let kept = match self.kept.take() {
            Some(kept) if kept.room() >= bytes.len() => self.kept.insert(kept),
            former => {
                let unread = former.as_ref().map_or(&[][..], Buffer::bytes);
                let mut larger = allocate(unread.len() + bytes.len());
                larger.vec().extend_from_slice(unread);
                outgrown = former;
                self.kept.insert(larger)
            }
        };
        kept.vec().extend_from_slice(bytes);
        outgrown
    }

    /// Takes the kept bytes out: to throw them away, or to decode them while the connection is in
    /// use and then [give them back](Self::give_back).
    pub(crate) const fn take(&mut self) -> Option<Buffer> {
        self.kept.take()
    }

    /// Puts the bytes back, less the `consumed` first ones. Returns a buffer nobody needs now.
    pub(crate) fn give_back(&mut self, mut kept: Buffer, consumed: usize) -> Option<Buffer> {
        kept.advance(consumed);
        if kept.is_empty() {
            return Some(kept);
        }
        kept.compact();
        self.kept = Some(kept);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Inbound};

    #[test]
    fn bytes_are_kept_in_order_however_they_are_consumed() {
        for step in 1..=7 {
            let mut inbound = Inbound::default();
            let mut seen = Vec::new();
            for byte in 0..100u8 {
                inbound.keep(&[byte, byte], Buffer::with_capacity);
                let kept = inbound.take().expect("two bytes at least");
                let consumed = step.min(kept.len());
                seen.extend_from_slice(&kept.bytes()[..consumed]);
                inbound.give_back(kept, consumed);
            }
            seen.extend_from_slice(inbound.take().as_ref().map_or(&[], Buffer::bytes));
            let expected: Vec<u8> = (0..100).flat_map(|byte| [byte, byte]).collect();
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }

    #[test]
    fn an_emptied_half_owns_no_memory() {
        let mut inbound = Inbound::default();
        inbound.keep(b"partial", Buffer::with_capacity);
        assert!(inbound.capacity() >= 7);
        let kept = inbound.take().expect("kept");
        let spare = inbound.give_back(kept, 7).expect("the buffer goes back to the pool");
        assert_eq!(inbound.capacity(), 0);
        assert!(spare.capacity() >= 7);
        inbound.keep(b"", Buffer::with_capacity);
        assert!(inbound.is_empty(), "nothing needs no buffer");
    }
}
