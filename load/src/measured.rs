//! What was measured, and the numbers that follow from it.

use std::time::Duration;

use crate::{
    faults::Faults,
    generator::Tally,
    load::{Load, Mode},
    process::Usage,
};

/// How much of the wanted rate has to be there for it to count as reached.
const REACHED: f64 = 0.99;

/// How busy we may be before we might be what limits.
const BUSY: f64 = 0.95;

/// What was measured in a run, and what failed in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measured {
    pub(crate) load: Load,
    /// What the connections did.
    pub mode: Mode,
    /// Connections that are open in the end.
    pub open: usize,
    /// How long was measured.
    pub time: Duration,
    /// What was counted in that time.
    pub tally: Tally,
    /// Requests without a reply in the end; those of failed connections, too.
    pub unanswered: usize,
    /// Connections that failed.
    pub faults: Faults,
    /// What the server used meanwhile; with [`Mode::Idle`], since before the first connection. None
    /// without [`Load::pid`], or if it has ended.
    pub server: Option<Usage>,
    /// What this process used meanwhile; None with [`Mode::Idle`], and where it cannot be read.
    pub own: Option<Usage>,
    /// Whether the run was interrupted, so that the time is shorter than it was to be.
    pub interrupted: bool,
}

impl Measured {
    /// Messages per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.per_second(self.tally.messages)
    }

    /// This count as a rate per second of the time that was measured.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// Millions of bytes per second, in one direction.
    #[must_use]
    pub fn megabytes(&self) -> f64 {
        self.rate() * self.load.size as f64 / 1e6
    }

    /// CPU time per message in microseconds, of [`server`](Self::server) or [`own`](Self::own); None if
    /// there was no message. The flooding connections'
    /// messages are messages, too.
    #[must_use]
    pub fn cpu_us_per_message(&self, usage: &Usage) -> Option<f64> {
        let messages = self.tally.messages + self.tally.flooding;
        (messages > 0).then(|| usage.cpu.as_secs_f64() * 1e6 / messages as f64)
    }

    /// Whether as many requests were answered as were wanted; None in a closed loop.
    #[must_use]
    pub fn is_rate_reached(&self) -> Option<bool> {
        let due = self.load.rate? * self.time.as_secs_f64();
        // One may be under way at either end.
        Some(self.tally.messages as f64 >= due * REACHED - 1.0)
    }

    /// The rate of an open loop, if it was so low that no request was due while it was measured.
    #[must_use]
    pub fn rate_without_requests(&self) -> Option<f64> {
        let is_empty = self.tally.messages == 0 && self.tally.latencies.is_empty();
        self.load.rate.filter(|_| is_empty && self.faults.first.is_none())
    }

    /// How much of one processor we used ourselves, if that is high enough that we may be the limit.
    #[must_use]
    pub fn busy_share(&self) -> Option<f64> {
        let used = self.own?.cpu.as_secs_f64() / self.time.as_secs_f64().max(1e-9);
        let load = &self.load;
        (used >= BUSY && load.rate.is_none() && !load.spin).then_some(used)
    }

    /// What the server's memory has grown by for each connection that it holds, in bytes.
    #[must_use]
    pub fn rss_per_connection(&self) -> Option<f64> {
        let usage = self.server.filter(|_| self.mode == Mode::Idle && self.open > 0)?;
        Some((usage.rss_after as f64 - usage.rss_before as f64) / self.open as f64)
    }
}
