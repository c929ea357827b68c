//! Bytes in a box: what a connection owns while it has something to keep or to send.
//!
//! A handle is one pointer wide, and so is an [`Option`] of it. A connection has four places for
//! buffers and most of the time nothing in them, which is what this is for. A buffer travels from
//! the [pool](crate::engine) through a connection to a driver and back without its bytes being
//! copied.
//!
//! Bytes that were published to many connections are not copied either: each connection has a buffer
//! of its own around the one [`Payload`].

use std::sync::Arc;

use super::payload::{Payload, Share};

/// From this capacity on, in bytes, an allocator has the kernel map a buffer by itself and gives it
/// back as soon as it is freed: glibc's bound is 32 MiB. Pages of it that were never written to take
/// no memory.
pub(crate) const MAPPED_MIN: usize = 33 << 20;

/// Bytes of which the first ones may be done with already.
#[derive(Debug)]
pub(crate) struct Buffer(Box<Parts>);

#[derive(Debug)]
struct Parts {
    /// Nothing, if they are shared.
    bytes: Vec<u8>,
    /// Bytes that other connections may have as well. Nothing is appended to them.
    shared: Option<Share>,
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
        Self(Box::new(Parts { bytes, shared: None, start: 0, peak: 0 }))
    }

    /// The bytes of `payload`, which are not copied.
    pub(super) fn sharing(payload: &Arc<Payload>) -> Self {
        let shared = Some(Share::new(payload));
        Self(Box::new(Parts { bytes: Vec::new(), shared, start: 0, peak: 0 }))
    }

    /// What is not done with.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        let all = match &self.0.shared {
            None => self.0.bytes.as_slice(),
            Some(shared) => shared.bytes(),
        };
        &all[self.0.start..]
    }

    /// The same to be changed: nothing that is shared.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.0.start;
        self.0.bytes.get_mut(start..).unwrap_or_default()
    }

    /// Where more is appended.
    #[inline]
    pub(crate) const fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// How many bytes are not done with.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let all = match &self.0.shared {
            None => self.0.bytes.len(),
            Some(shared) => shared.bytes().len(),
        };
        all - self.0.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory it takes, in bytes: what was written to, if it is [mapped](MAPPED_MIN). Shared bytes
    /// count as if they were its own: [`Savings`](super::payload::Savings) says what that is too much.
    pub(crate) fn held(&self) -> usize {
        if let Some(shared) = &self.0.shared {
            return shared.bytes().len();
        }
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
        self.0.start += count.min(self.len());
    }

    /// Whether its bytes are shared.
    pub(super) const fn is_shared(&self) -> bool {
        self.0.shared.is_some()
    }

    /// Takes `count` bytes out that begin `at` bytes behind the front. The shorter part of the rest is
    /// moved: the front, where old messages make room for new ones.
    pub(super) fn cut_out(&mut self, at: usize, count: usize) {
        let Parts { bytes, start, peak, .. } = &mut *self.0;
        let (from, to) = (*start + at, *start + at + count);
        *peak = (*peak).max(bytes.len());
        if at > bytes.len() - to {
            bytes.drain(from..to);
            return;
        }
        bytes.copy_within(*start..from, *start + count);
        *start += count;
        // More is appended for as long as messages are cut out: what is done with must not grow, and
        // each byte of the rest is moved for three that were cut out at most.
        if *start > bytes.len() / 4 {
            bytes.drain(..*start);
            *start = 0;
        }
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

    /// Moves what is not done with to the front, so that the bytes begin where the vector does.
    pub(super) fn settle(&mut self) {
        if self.0.start > 0 {
            self.0.peak = self.0.peak.max(self.0.bytes.len());
            self.0.bytes.drain(..self.0.start);
            self.0.start = 0;
        }
    }

    /// Forgets the content.
    pub(crate) fn clear(&mut self) {
        self.0.bytes.clear();
        self.0.shared = None;
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
