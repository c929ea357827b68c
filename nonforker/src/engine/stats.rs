//! What a server counts, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A server's counters at one moment, from [`Handle::stats`](crate::Handle::stats).
///
/// They are read one after the other while the server goes on, so they need not agree with each
/// other to the last unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections closed so far, for whatever reason.
    pub closed: u64,
    /// Connections refused so far, because their IP address had too many.
    pub refused: u64,
    /// Frames handled so far.
    pub frames: u64,
    /// Bytes received so far.
    pub received_bytes: u64,
    /// Bytes the kernel took so far.
    pub sent_bytes: u64,
    /// Bytes that all buffers take now, in use by connections.
    pub buffered_bytes: u64,
    /// Times a handler panicked.
    pub panics: u64,
    /// Times a codec took more bytes than there were, or none: a defect in that codec if not 0.
    pub codec_defects: u64,
    /// Events that cannot happen: a defect in this crate if not 0.
    pub defects: u64,
}

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds, from the one writing thread: no locked instruction is needed.
    pub(crate) fn add(&self, count: usize) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count as u64), Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters as the engine writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) closed: Counter,
    pub(crate) refused: Counter,
    pub(crate) frames: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) buffered_bytes: Counter,
    pub(crate) panics: Counter,
    pub(crate) codec_defects: Counter,
    pub(crate) defects: Counter,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            accepted: self.accepted.get(),
            closed: self.closed.get(),
            refused: self.refused.get(),
            frames: self.frames.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            buffered_bytes: self.buffered_bytes.get(),
            panics: self.panics.get(),
            codec_defects: self.codec_defects.get(),
            defects: self.defects.get(),
        }
    }
}
