//! The receive buffers, and the ring in which they are offered to the kernel.
//!
//! ```text
//!  give(Lent) ──▶ entries ── publish ──▶ the kernel fills one ──▶ Lent ──▶ bytes ──▶ give
//! ```
//!
//! A buffer that the kernel filled is named by a [`Lent`], of which there is one. Its bytes can be
//! looked at and changed through it only, and to give the buffer back is to give the `Lent` away.

#![expect(unsafe_code, reason = "this is memory that is shared with the kernel")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

const PAGE: usize = 4096;

/// The bytes of a buffer.
pub(super) const BUFFER_SIZE: u32 = 32 * 1024;

/// A buffer that the kernel has filled. There is one of it, and it is given back by value.
#[derive(Debug)]
pub(super) struct Lent {
    index: u16,
    length: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Buffers {
    entries: Pages,
    memory: Pages,
    /// How many there are: a power of two.
    count: u16,
    tail: u16,
}

impl Buffers {
    /// Buffers that are all given, and not yet published.
    pub(super) fn new(count: u16) -> Self {
        debug_assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Pages::new(usize::from(count) * BUFFER_SIZE as usize);
        let mut buffers = Self { entries, memory, count, tail: 0 };
        for index in 0..count {
            buffers.put(index);
        }
        buffers
    }

    /// Where the kernel finds the entries.
    pub(super) fn address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    /// Takes a buffer over that the kernel reports to have filled with `length` bytes.
    ///
    /// # Safety
    ///
    /// The kernel reported `index` just now, and this is called once for each such report.
    pub(super) const unsafe fn filled(&self, index: u16, length: usize) -> Lent {
        debug_assert!(index < self.count, "the kernel names buffers that we gave it");
        Lent { index, length }
    }

    /// The bytes in a buffer that was filled. Nobody else looks at them meanwhile: there is one `lent`.
    pub(super) fn bytes(&mut self, lent: &mut Lent) -> &mut [u8] {
        let length = lent.length.min(BUFFER_SIZE as usize);
        // SAFETY: the kernel filled this part and does not touch the buffer until it is given
        // back, which takes `lent`.
        unsafe { slice::from_raw_parts_mut(self.start_of(lent.index), length) }
    }

    /// Offers a buffer to the kernel again, with the next [`publish`](Self::publish).
    #[expect(clippy::needless_pass_by_value, reason = "nobody can look at its bytes any more")]
    pub(super) fn give(&mut self, lent: Lent) {
        self.put(lent.index);
    }

    /// Lets the kernel see what was given.
    pub(super) fn publish(&self) {
        // SAFETY: it is the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.first_entry()) };
        // SAFETY: the tail is aligned, lives as long as the entries, and the kernel reads it
        // atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Leaves the memory to the kernel, which did not let go of it.
    pub(super) fn leak(&mut self) {
        self.entries.leaked = true;
        self.memory.leaked = true;
    }

    fn first_entry(&self) -> *mut BufRingEntry {
        self.entries.start.as_ptr().cast()
    }

    fn start_of(&self, index: u16) -> *mut u8 {
        let offset = usize::from(index % self.count) * BUFFER_SIZE as usize;
        // SAFETY: the offset is within the memory.
        unsafe { self.memory.start.as_ptr().add(offset) }
    }

    fn put(&mut self, index: u16) {
        let place = usize::from(self.tail % self.count);
        let address = self.start_of(index) as u64;
        // SAFETY: the place is within the entries.
        let entry = unsafe { self.first_entry().add(place) };
        // SAFETY: the kernel does not read this entry before the tail is published.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_SIZE);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }
}

/// Memory on whole pages.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
    /// The kernel may still use it: it is never freed.
    leaked: bool,
}

impl Pages {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, PAGE).expect("a small power of two");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // Some allocators leave it to the kernel to find pages when they are written to first. It is
        // better done now than within a message.
        for offset in (0..size).step_by(PAGE) {
            // SAFETY: the offset is within the memory.
            let page = unsafe { start.as_ptr().add(offset) };
            // SAFETY: it is ours, and nobody else knows of it yet.
            unsafe { page.write_volatile(0) };
        }
        Self { start, layout, leaked: false }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: it was allocated with this layout, and is freed once.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}
