//! The receive buffers, and the ring in which they are offered to the kernel.
//!
//! ```text
//!  give(index) ──▶ entries ── publish ──▶ the kernel fills one ──▶ Lent ──▶ bytes ──▶ give
//! ```
//!
//! A buffer that the kernel filled is named by a [`Lent`], of which there is one. Its bytes can be
//! looked at through it only, and the kernel gets the buffer back only in exchange for it.
//!
//! The kernel fills what it is offered, wanted or not. So when memory is short it is
//! [rationed](Buffers::ration): what comes back beyond that is kept from it.

#![expect(unsafe_code, reason = "this is memory that is shared with the kernel")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::report::Lent;

const PAGE: usize = 4096;

/// The bytes of a buffer.
pub(super) const BUFFER_SIZE: u32 = 32 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Buffers {
    entries: Pages,
    memory: Pages,
    /// How many there are: a power of two.
    count: u16,
    /// So many of them may be with the kernel, or filled.
    most: usize,
    /// Those that are kept from the kernel.
    spare: Vec<u16>,
    tail: u16,
}

impl Buffers {
    /// Buffers that are all given, and not yet published.
    pub(super) fn new(count: u16) -> Self {
        debug_assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Pages::new(usize::from(count) * BUFFER_SIZE as usize);
        let mut buffers =
            Self { entries, memory, count, most: count.into(), spare: Vec::new(), tail: 0 };
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

    /// The bytes of all of them.
    pub(super) const fn size(&self) -> usize {
        self.memory.layout.size()
    }

    /// The bytes in a buffer that was filled.
    pub(super) fn bytes(&self, lent: &Lent) -> &[u8] {
        let length = lent.length.min(BUFFER_SIZE as usize);
        // SAFETY: the kernel filled this part and does not touch the buffer until it is given
        // back, in exchange for `lent`.
        unsafe { slice::from_raw_parts(self.start_of(lent.index), length) }
    }

    /// Offers a buffer to the kernel again, with the next [`publish`](Self::publish), if the
    /// ration allows it.
    pub(super) fn give(&mut self, lent: &Lent) {
        if self.offered() > self.most {
            self.spare.push(lent.index);
        } else {
            self.put(lent.index);
        }
    }

    /// From now on up to `most` buffers are for the kernel, and one at least.
    pub(super) fn ration(&mut self, most: usize) {
        self.most = most.clamp(1, usize::from(self.count));
        while self.offered() < self.most
            && let Some(index) = self.spare.pop()
        {
            self.put(index);
        }
    }

    /// How many are not kept from the kernel.
    pub(super) fn offered(&self) -> usize {
        usize::from(self.count) - self.spare.len()
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
        debug_assert!(index < self.count, "the kernel names buffers that we gave it");
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
