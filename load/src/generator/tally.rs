//! What is counted within the window.

use hdrhistogram::Histogram;

/// Longer latencies count as this: an hour, in nanoseconds.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// What is counted within the window.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tally {
    /// Replies to the normal connections, or deliveries of a broadcast.
    pub messages: u64,
    /// Replies to the flooding connections.
    pub flooding: u64,
    /// Bytes that connections which never read, or trickle, could send since they were opened.
    pub slow_bytes: u64,
    /// Such connections that the server has closed since then.
    pub slow_closed: u64,
    /// Nanoseconds from request to reply, for the normal connections. What is unanswered counts
    /// with the time that it has waited.
    pub latencies: Histogram<u64>,
    /// What the slowest reply took since the run began, in nanoseconds; None before the first one.
    pub slowest: Option<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX, LATENCY_DIGITS);
        Self {
            messages: 0,
            flooding: 0,
            slow_bytes: 0,
            slow_closed: 0,
            latencies: latencies.expect("the bounds are valid"),
            slowest: None,
        }
    }

    /// Counts replies that took so long.
    pub(super) fn record(&mut self, nanos: u64, count: usize) {
        self.saw(nanos);
        self.charge(nanos, count);
    }

    /// Notes that a reply took so long.
    pub(super) fn saw(&mut self, nanos: u64) {
        self.slowest = self.slowest.max(Some(nanos));
    }

    /// Counts requests that have waited so long.
    pub(super) fn charge(&mut self, nanos: u64, count: usize) {
        self.latencies.saturating_record_n(nanos, count as u64);
    }

    /// The window begins: forgets what was before.
    pub(crate) fn clear(&mut self) {
        self.messages = 0;
        self.flooding = 0;
        self.latencies.reset();
    }
}
