//! Bytes in a box: what a connection owns while it has something to keep or to send.
//!
//! A handle is one pointer wide, and so is an [`Option`] of it. A connection has four places for
//! buffers and most of the time nothing in them, which is what this is for. A buffer travels from
//! the [pool](crate::engine) through a connection to a driver and back without its bytes being
//! copied.

/// Bytes of which the first ones may be done with already.
#[derive(Debug)]
pub(crate) struct Buffer(Box<Parts>);

#[derive(Debug)]
struct Parts {
    bytes: Vec<u8>,
    /// So many bytes at the front are done with.
    start: usize,
}

impl Buffer {
    /// An empty buffer.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::new(Vec::with_capacity(capacity))
    }

    /// A buffer that holds `bytes`.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Box::new(Parts { bytes, start: 0 }))
    }

    /// What is not done with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.bytes[self.0.start..]
    }

    /// Where more is appended.
    pub(crate) const fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// How many bytes are not done with.
    pub(crate) const fn len(&self) -> usize {
        self.0.bytes.len() - self.0.start
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory it takes, in bytes.
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
