//! Bytes in a box: what a connection owns while it has something to keep or to send.
//!
//! A handle is one pointer wide, and so is an [`Option`] of it. A connection has four places for
//! buffers and most of the time nothing in them, which is what this is for. A buffer travels from
//! the [pool](crate::engine) through a connection to a driver and back without its bytes being
//! copied.

/// From this capacity on, in bytes, an allocator has the kernel map a buffer by itself and gives it
/// back as soon as it is freed: glibc's bound is 32 MiB. Pages of it that were never written to take
/// no memory.
pub(crate) const MAPPED_MIN: usize = 33 << 20;

/// Bytes of which the first ones may be done with already.
#[derive(Debug)]
pub(crate) struct Buffer(Box<Parts>);

#[derive(Debug)]
struct Parts {
    bytes: Vec<u8>,
    /// So many bytes at the front are done with.
    start: usize,
    /// So many bytes were in it at some time before the last ones were moved.
    peak: usize,
}

impl Buffer {
    /// An empty buffer.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::new(Vec::with_capacity(capacity))
    }

    /// A buffer that holds `bytes`.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Box::new(Parts { bytes, start: 0, peak: 0 }))
    }

    /// What is not done with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.bytes[self.0.start..]
    }

    /// Where more is appended.
    #[inline]
    pub(crate) const fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// How many bytes are not done with.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.0.bytes.len() - self.0.start
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory it takes, in bytes: what was written to, if it is [mapped](MAPPED_MIN).
    pub(crate) fn held(&self) -> usize {
        let capacity = self.0.bytes.capacity();
        if capacity < MAPPED_MIN { capacity } else { self.0.peak.max(self.0.bytes.len()) }
    }

    /// How many bytes fit in.
    pub(crate) const fn capacity(&self) -> usize {
        self.0.bytes.capacity()
    }

    /// How many bytes can be appended without an allocation.
    pub(crate) const fn room(&self) -> usize {
        self.0.bytes.capacity() - self.0.bytes.len()
    }

    /// The first `count` bytes are done with.
    pub(crate) fn advance(&mut self, count: usize) {
        self.0.start = (self.0.start + count).min(self.0.bytes.len());
    }

    /// Moves what is not done with to the front, if it is the smaller part: so that a long buffer
    /// that is consumed in small steps costs O(n) in all.
    pub(crate) fn compact(&mut self) {
        if self.0.start > self.0.bytes.len() / 2 {
            self.0.peak = self.0.peak.max(self.0.bytes.len());
            self.0.bytes.drain(..self.0.start);
            self.0.start = 0;
        }
    }

    /// Forgets the content.
    pub(crate) fn clear(&mut self) {
        self.0.bytes.clear();
        self.0.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, MAPPED_MIN};

    #[test]
    fn a_large_buffer_holds_what_was_written_to_and_a_small_one_all_of_it() {
        let mut buffer = Buffer::with_capacity(MAPPED_MIN);
        assert_eq!(buffer.held(), 0);
        buffer.vec().resize(1000, b'x');
        assert_eq!(buffer.held(), 1000);
        buffer.advance(900);
        buffer.compact();
        assert_eq!((buffer.len(), buffer.held()), (100, 1000), "pages stay when bytes are moved");
        buffer.vec().resize(2000, b'x');
        assert_eq!(buffer.held(), 2000);
        assert_eq!(Buffer::with_capacity(5000).held(), 5000);
    }
}
