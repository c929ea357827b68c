//! Warm buffers, so that a message costs no allocation.
//!
//! Buffers come in five sizes. The one returned last is handed out first: it is the one still in
//! the cache. A connection owns a buffer only while there is something in it, which is what
//! keeps ten thousand idle connections small at no cost in speed.

use crate::conn::buffer::Buffer;

/// The capacities of pooled buffers, in bytes: round sizes and some framing. A buffer is pooled in
/// the largest class it fills.
const CLASSES: [usize; 5] = [256, 1 << 10, 5 << 10, 18 << 10, 72 << 10];

/// What each class retains at most, in bytes: more than a turn collects, see
/// [`COLLECTED_MAX`](super::core::COLLECTED_MAX). What is retained beyond what is used is memory
/// that ten thousand idle connections would be blamed for.
const RETAINED_MAX: usize = 160 << 10;

/// A larger one than of this class is not kept at hand.
const LAST_CLASS: usize = 2;

/// The smallest class whose buffers hold `least` bytes.
fn class_for(least: usize) -> Option<usize> {
    CLASSES.iter().position(|&size| size >= least)
}

/// A buffer beyond all classes. It gets some room, so that what arrives in many pieces is not
/// copied for each of them.
fn large(least: usize) -> Buffer {
    Buffer::with_capacity(least.saturating_add(least / 4))
}

/// Buffers nobody uses now, by class.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// The one that was returned last, at hand.
    last: Option<Buffer>,
    classes: [Class; CLASSES.len()],
}

#[derive(Debug, Default)]
struct Class {
    buffers: Vec<Buffer>,
    /// What they take together, in bytes.
    retained: usize,
}

impl Class {
    fn pop(&mut self) -> Option<Buffer> {
        let buffer = self.buffers.pop()?;
        self.retained -= buffer.capacity();
        Some(buffer)
    }
}

impl Pool {
    /// An empty buffer with a capacity of at least `least` bytes, and not much more.
    pub(crate) fn take(&mut self, least: usize) -> Buffer {
        let Some(class) = class_for(least) else { return large(least) };
        self.classes[class].pop().unwrap_or_else(|| Buffer::with_capacity(CLASSES[class]))
    }

    /// As [`take`](Self::take), but a warm buffer that is too large is better than a new one: for
    /// what is given back at the end of the turn.
    #[inline]
    pub(crate) fn take_warm(&mut self, least: usize) -> Buffer {
        match self.last.take() {
            Some(buffer) if buffer.capacity() >= least => buffer,
            last => {
                self.last = last;
                self.take_warm_of_class(least)
            }
        }
    }

    #[inline(never)]
    fn take_warm_of_class(&mut self, least: usize) -> Buffer {
        let Some(class) = class_for(least) else { return large(least) };
        let warm = self.classes[class..].iter_mut().find_map(Class::pop);
        warm.unwrap_or_else(|| Buffer::with_capacity(CLASSES[class]))
    }

    /// Takes a buffer back. Its content is gone.
    #[inline]
    pub(crate) fn put(&mut self, mut buffer: Buffer) {
        if self.last.is_none() && buffer.capacity() <= CLASSES[LAST_CLASS] {
            buffer.clear();
            self.last = Some(buffer);
        } else {
            self.put_into_class(buffer);
        }
    }

    #[inline(never)]
    fn put_into_class(&mut self, mut buffer: Buffer) {
        let capacity = buffer.capacity();
        // Far larger ones are freed: after a burst the memory goes back.
        if capacity >= 2 * CLASSES[CLASSES.len() - 1] {
            return;
        }
        let Some(class) = CLASSES.iter().rposition(|&size| size <= capacity) else { return };
        let class = &mut self.classes[class];
        if class.retained + capacity <= RETAINED_MAX {
            buffer.clear();
            class.retained += capacity;
            class.buffers.push(buffer);
        }
    }

    /// Frees what is retained.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, CLASSES, Pool, RETAINED_MAX};

    #[test]
    fn a_buffer_comes_back_empty_and_large_enough() {
        let mut pool = Pool::default();
        for least in [0, 1, 1024, 1025, 65_536, 65_537, 1_000_000] {
            let mut buffer = pool.take(least);
            assert!(buffer.capacity() >= least, "{least}");
            buffer.vec().extend_from_slice(b"left over");
            pool.put(buffer);
            assert!(pool.take(least).is_empty(), "{least}");
        }
    }

    #[test]
    fn what_is_retained_is_bounded() {
        let mut pool = Pool::default();
        for size in CLASSES {
            for _ in 0..2 * RETAINED_MAX / size {
                pool.put(Buffer::with_capacity(size));
            }
        }
        pool.put(Buffer::with_capacity(8 * RETAINED_MAX));
        let retained: usize =
            pool.classes.iter().flat_map(|class| &class.buffers).map(Buffer::capacity).sum();
        assert!(retained <= CLASSES.len() * RETAINED_MAX, "{retained} bytes");
    }
}
