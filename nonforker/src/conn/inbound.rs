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

use std::mem;

/// Bytes received from the peer that no frame has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    kept: Vec<u8>,
    /// Where in `kept` the next frame begins.
    start: usize,
    /// Complete frames may be in `kept`: they wait for the connection, not for the peer.
    pub(crate) held: bool,
    /// No more bytes will come: the peer has finished, or we stopped listening to it.
    pub(crate) ended: bool,
}

/// What [`Inbound::open`] hands out: bytes that must be given back to [`Inbound::close`].
#[derive(Debug)]
pub(crate) struct Opened {
    kept: Vec<u8>,
    start: usize,
}

impl Opened {
    /// The bytes to decode.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.kept[self.start..]
    }
}

impl Inbound {
    /// Whether nothing is kept, so that arriving bytes can be decoded where they are.
    pub(crate) const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The memory this half owns, in bytes.
    pub(crate) const fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Keeps `bytes` behind what is kept already, in a buffer from `allocate` (given the least
    /// capacity it must have) if the present one is too small. Returns the outgrown buffer.
    pub(crate) fn keep(
        &mut self,
        bytes: &[u8],
        allocate: impl FnOnce(usize) -> Vec<u8>,
    ) -> Vec<u8> {
        let mut outgrown = Vec::new();
        if self.kept.capacity() - self.kept.len() < bytes.len() {
            let unread = &self.kept[self.start..];
            let mut larger = allocate(unread.len() + bytes.len());
            larger.extend_from_slice(unread);
            outgrown = mem::replace(&mut self.kept, larger);
            self.start = 0;
        }
        self.kept.extend_from_slice(bytes);
        outgrown
    }

    /// Throws away what is kept. Returns the buffer.
    pub(crate) fn clear(&mut self) -> Vec<u8> {
        self.start = 0;
        mem::take(&mut self.kept)
    }

    /// Takes the kept bytes out, so that they can be decoded while the connection is in use.
    pub(crate) fn open(&mut self) -> Opened {
        Opened { kept: mem::take(&mut self.kept), start: mem::replace(&mut self.start, 0) }
    }

    /// Puts the bytes back, less the `consumed` first ones. Returns a buffer nobody needs now.
    pub(crate) fn close(&mut self, opened: Opened, consumed: usize) -> Vec<u8> {
        let Opened { mut kept, start } = opened;
        let start = start + consumed;
        if start == kept.len() {
            return kept;
        }
        // Moving the rest to the front is worth it only when it is the smaller part, so that a
        // long buffer handled in small steps costs O(n) in all.
        if start > kept.len() / 2 {
            kept.drain(..start);
            self.start = 0;
        } else {
            self.start = start;
        }
        self.kept = kept;
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Inbound;

    #[test]
    fn bytes_are_kept_in_order_however_they_are_consumed() {
        for step in 1..=7 {
            let mut inbound = Inbound::default();
            let mut seen = Vec::new();
            for byte in 0..100u8 {
                inbound.keep(&[byte, byte], Vec::with_capacity);
                let opened = inbound.open();
                let consumed = step.min(opened.bytes().len());
                seen.extend_from_slice(&opened.bytes()[..consumed]);
                inbound.close(opened, consumed);
            }
            let rest = inbound.open();
            seen.extend_from_slice(rest.bytes());
            let expected: Vec<u8> = (0..100).flat_map(|byte| [byte, byte]).collect();
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }

    #[test]
    fn an_emptied_half_owns_no_memory() {
        let mut inbound = Inbound::default();
        inbound.keep(b"partial", Vec::with_capacity);
        assert!(inbound.capacity() >= 7);
        let opened = inbound.open();
        let spare = inbound.close(opened, 7);
        assert_eq!(inbound.capacity(), 0);
        assert!(spare.capacity() >= 7, "the buffer goes back to the pool");
    }
}
