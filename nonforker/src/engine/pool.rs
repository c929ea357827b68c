//! Warm buffers, so that a message costs no allocation.
//!
//! Buffers come in five sizes. The one returned last is handed out first: it is the one still in
//! the cache. A connection owns a buffer only while there is something in it, which is what
//! keeps ten thousand idle connections small at no cost in speed.
//!
//! A buffer that outgrows all sizes is copied into a larger one, and for that moment both take
//! memory. So from a sixty-fourth of the memory budget on it is given address space for more than the
//! budget at once: pages that were never written to take no memory, and it is not copied again. Shorter
//! ones get room in the same way, but less of it, or as much if the budget is small. What was written
//! to is accounted, so there are few hundred such buffers at most.

use crate::conn::{
    buffer::{Buffer, MAPPED_MIN},
    output::Bounds,
};

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

/// From this length on a buffer may be given address space for the budget: to map pages costs more
/// than to copy as many bytes.
const SPACIOUS_MIN: usize = 256 << 10;

/// There are few more addresses than memory, so buffers are copied.
const ADDRESSES_ARE_SCARCE: bool = cfg!(not(target_pointer_width = "64"));

/// Buffers nobody uses now, by class.
#[derive(Debug)]
pub(crate) struct Pool {
    /// From this length on a buffer is given room to grow to eight times of it.
    roomy: usize,
    /// From this length on a buffer is given `space`.
    spacious: usize,
    /// Room for all that one connection can hold before it has to go.
    space: usize,
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
    /// A pool for a server with this memory budget, in bytes.
    pub(crate) fn new(budget: usize) -> Self {
        let roomy = (budget / 256).clamp(SPACIOUS_MIN, MAPPED_MIN / 8);
        // To outgrow the least room must not take too much of a small budget.
        let spacious = if MAPPED_MIN > budget / 4 { roomy } else { budget / 64 };
        let from = |length| if ADDRESSES_ARE_SCARCE { usize::MAX } else { length };
        Self {
            roomy: from(roomy),
            spacious: from(spacious),
            space: budget.saturating_add(budget / 4).max(MAPPED_MIN),
            last: None,
            classes: Default::default(),
        }
    }

    /// The memory budget is another one: buffers get the space for it from now on.
    pub(super) fn set_budget(&mut self, budget: usize) {
        let Self { roomy, spacious, space, .. } = Self::new(budget);
        (self.roomy, self.spacious, self.space) = (roomy, spacious, space);
    }

    /// What output needs to know to be given space. The other bounds are open.
    #[inline]
    pub(crate) const fn bounds(&self) -> Bounds {
        let (spacious, space) = (self.spacious, self.space);
        Bounds { high: usize::MAX, cap: usize::MAX, spacious, space, room: usize::MAX }
    }

    /// A buffer beyond all classes. It gets some room, so that what arrives in many pieces is not
    /// copied for each of them; much, where room takes no memory.
    fn large(&self, least: usize) -> Buffer {
        let some = least.saturating_add(least / 4);
        let much = match least {
            least if (self.spacious..=self.space).contains(&least) => self.space,
            least if least >= self.roomy => least.saturating_mul(8).max(MAPPED_MIN),
            _ => some,
        };
        let mut buffer = Buffer::with_capacity(0);
        match buffer.vec().try_reserve_exact(much) {
            Ok(()) => buffer,
            Err(_) => Buffer::with_capacity(some),
        }
    }

    /// An empty buffer with a capacity of at least `least` bytes, and not much more.
    pub(crate) fn take(&mut self, least: usize) -> Buffer {
        let Some(class) = class_for(least) else { return self.large(least) };
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
        let Some(class) = class_for(least) else { return self.large(least) };
        let warm = self.classes[class..].iter_mut().find_map(Class::pop);
        warm.unwrap_or_else(|| Buffer::with_capacity(CLASSES[class]))
    }

    /// Takes a buffer back. Its content is gone.
    #[inline(always)]
    pub(crate) fn put(&mut self, mut buffer: Buffer) {
        if self.last.is_none() && buffer.capacity() <= CLASSES[LAST_CLASS] {
            buffer.clear();
            self.last.get_or_insert(buffer);
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
        self.last = None;
        self.classes = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, CLASSES, Pool, RETAINED_MAX};

    #[test]
    fn a_buffer_comes_back_empty_and_large_enough() {
        let mut pool = Pool::new(1 << 30);
        for least in [0, 1, 1024, 1025, 65_536, 65_537, 1_000_000] {
            let mut buffer = pool.take(least);
            assert!(buffer.capacity() >= least, "{least}");
            buffer.vec().extend_from_slice(b"left over");
            pool.put(buffer);
            assert!(pool.take(least).is_empty(), "{least}");
        }
    }

    #[test]
    fn long_buffers_have_room_for_the_budget_and_take_no_memory_for_it() {
        const BUDGET: usize = 200 << 20;
        let mut pool = Pool::new(BUDGET);
        let spacious = pool.spacious;
        for (least, has_space, has_room) in [
            (pool.roomy - 1, false, false),
            (pool.roomy, false, true),
            (spacious - 1, false, true),
            (spacious, true, true),
            (BUDGET, true, true),
        ] {
            let buffer = pool.take(least);
            assert_eq!(buffer.capacity() > BUDGET, has_space, "{least}");
            assert_eq!(buffer.held() == 0, has_room, "{least}");
        }
        for (length, has_space) in [(spacious - 1, false), (spacious, true), (BUDGET / 2, false)] {
            let mut out = vec![b'x'; length];
            pool.bounds().give_space(&mut out);
            assert_eq!(out.capacity() > BUDGET, has_space, "{length}");
            assert_eq!(out.len(), length);
        }
        assert!(Pool::new(4096).spacious > 200 << 10, "pages are not mapped for a few bytes");
        let mut vast = Pool::new(usize::MAX);
        let mut out = vec![b'x'; 10];
        vast.spacious = 10;
        vast.bounds().give_space(&mut out);
        assert_eq!(out.len(), 10, "where there is no such space, nothing happens");
        assert!(vast.take(1 << 20).capacity() >= 1 << 20);
    }

    #[test]
    fn what_is_retained_is_bounded() {
        let mut pool = Pool::new(1 << 30);
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
