//! What a server counts, readable from any thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counters at one moment: those of a server, from [`Handle::stats`](crate::Handle::stats), or of one
/// of its services, from [`Handle::service_stats`](crate::Handle::service_stats).
///
/// They are read one after the other while the server goes on, so they need not agree with each
/// other to the last unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections that handlers asked for so far: see [`Conn::connect`](crate::Conn::connect).
    pub outgoing: u64,
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
    /// Bytes that all buffers take now, in use by connections. Those of a service are not known: 0.
    pub buffered_bytes: u64,
    /// Tickets taken so far, to answer requests later.
    pub tickets: u64,
    /// Tickets that are open now.
    pub open_tickets: u64,
    /// Messages that were published and dropped so far, because the peer did not take them: see
    /// [`Overflow`](crate::Overflow).
    pub dropped: u64,
    /// Frames that workers sent without a request so far, and that nobody got: see
    /// [`Server::workers`](crate::Server::workers).
    pub unasked: u64,
    /// Lines that workers sent for clients that they do not have, or not any more, so far: see
    /// [`Protocol::Tagged`](crate::Protocol::Tagged).
    pub unknown_ids: u64,
    /// What workers sent so far that is no line of the tagged protocol.
    pub bad_lines: u64,
    /// Times a handler panicked.
    pub panics: u64,
    /// Times a codec took more bytes than there were, or none: a defect in that codec if not 0.
    pub codec_defects: u64,
    /// Events that cannot happen: a defect in this crate if not 0.
    pub defects: u64,
}

impl Stats {
    /// Those of two services or shards together.
    pub(crate) const fn plus(self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            outgoing: self.outgoing + other.outgoing,
            closed: self.closed + other.closed,
            refused: self.refused + other.refused,
            frames: self.frames + other.frames,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            buffered_bytes: self.buffered_bytes + other.buffered_bytes,
            panics: self.panics + other.panics,
            codec_defects: self.codec_defects + other.codec_defects,
            dropped: self.dropped + other.dropped,
            unasked: self.unasked + other.unasked,
            unknown_ids: self.unknown_ids + other.unknown_ids,
            bad_lines: self.bad_lines + other.bad_lines,
            defects: self.defects + other.defects,
            tickets: self.tickets + other.tickets,
            open_tickets: self.open_tickets + other.open_tickets,
        }
    }
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

/// The counters of one service as the engine writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) outgoing: Counter,
    pub(crate) closed: Counter,
    pub(crate) refused: Counter,
    pub(crate) frames: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) tickets: Counter,
    pub(crate) tickets_ended: Counter,
    pub(crate) dropped: Counter,
    pub(crate) unasked: Counter,
    pub(crate) unknown_ids: Counter,
    pub(crate) bad_lines: Counter,
    pub(crate) panics: Counter,
    pub(crate) codec_defects: Counter,
    pub(crate) defects: Counter,
}

/// Those of a server: what a service counts is counted once.
#[derive(Debug, Default)]
pub(crate) struct AllCounters {
    pub(crate) services: Vec<Arc<Counters>>,
    pub(crate) buffered_bytes: Counter,
}

impl Counters {
    fn snapshot(&self) -> Stats {
        // A ticket ends after it was counted: so it is read first how many have ended.
        let ended = self.tickets_ended.get();
        let tickets = self.tickets.get();
        Stats {
            accepted: self.accepted.get(),
            outgoing: self.outgoing.get(),
            closed: self.closed.get(),
            refused: self.refused.get(),
            frames: self.frames.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            buffered_bytes: 0,
            tickets,
            open_tickets: tickets.saturating_sub(ended),
            dropped: self.dropped.get(),
            unasked: self.unasked.get(),
            unknown_ids: self.unknown_ids.get(),
            bad_lines: self.bad_lines.get(),
            panics: self.panics.get(),
            codec_defects: self.codec_defects.get(),
            defects: self.defects.get(),
        }
    }
}

impl AllCounters {
    pub(crate) fn of(services: usize) -> Self {
        Self {
            services: (0..services).map(|_| Arc::default()).collect(),
            buffered_bytes: Counter::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let stats = Stats { buffered_bytes: self.buffered_bytes.get(), ..Stats::default() };
        self.services.iter().fold(stats, |sum, service| sum.plus(&service.snapshot()))
    }

    pub(crate) fn snapshot_of(&self, service: usize) -> Option<Stats> {
        self.services.get(service).map(|service| service.snapshot())
    }
}
