//! What came of a run, as numbers; `text` and `json` say it to people and programs.

use std::time::Duration;

use super::{
    faults::Faults,
    flags::{BenchArgs, Mode},
    load::Tally,
    process::Usage,
};

/// How much of the wanted rate has to be there for it to count as reached.
const REACHED: f64 = 0.99;

/// How busy we may be before we might be what limits.
const BUSY: f64 = 0.95;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) args: &'a BenchArgs,
    /// Connections that are open in the end.
    pub(crate) open: usize,
    /// How long was measured.
    pub(crate) time: Duration,
    pub(crate) tally: Tally,
    /// Requests without a reply in the end; those of failed connections, too.
    pub(crate) unanswered: usize,
    pub(crate) faults: Faults,
    /// What the server used meanwhile; in idle mode, since before the first connection.
    pub(crate) server: Option<Usage>,
    /// What we used meanwhile.
    pub(crate) own: Option<Usage>,
    pub(crate) interrupted: bool,
}

impl Report<'_> {
    /// Messages per second.
    pub(crate) fn rate(&self) -> f64 {
        self.per_second(self.tally.messages)
    }

    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// Millions of bytes per second, in one direction.
    pub(crate) fn megabytes(&self) -> f64 {
        self.rate() * self.args.load.size as f64 / 1e6
    }

    /// CPU time per message in microseconds; None if there was none. The flooding connections'
    /// messages are messages, too.
    pub(crate) fn per_message(&self, usage: &Usage) -> Option<f64> {
        let messages = self.tally.messages + self.tally.flooding;
        (messages > 0).then(|| usage.cpu.as_secs_f64() * 1e6 / messages as f64)
    }

    /// Whether as many requests were answered as were wanted; None in a closed loop.
    pub(crate) fn is_rate_reached(&self) -> Option<bool> {
        let due = self.args.load.rate? * self.time.as_secs_f64();
        // One may be under way at either end.
        Some(self.tally.messages as f64 >= due * REACHED - 1.0)
    }

    /// The rate of an open loop, if it was so low that no request was due while it was measured.
    pub(crate) fn rate_without_requests(&self) -> Option<f64> {
        let is_empty = self.tally.messages == 0 && self.tally.latencies.is_empty();
        self.args.load.rate.filter(|_| is_empty && self.faults.first.is_none())
    }

    /// How much of one processor we used ourselves, if that is so much that we may be the limit.
    pub(crate) fn is_busy(&self) -> Option<f64> {
        let used = self.own?.cpu.as_secs_f64() / self.time.as_secs_f64().max(1e-9);
        let load = &self.args.load;
        (used >= BUSY && load.rate.is_none() && !load.spin).then_some(used)
    }

    /// What the server's memory has grown by for each connection that it holds, in bytes.
    pub(crate) fn rss_per_connection(&self) -> Option<f64> {
        let usage = self.server.filter(|_| self.args.load.mode == Mode::Idle && self.open > 0)?;
        Some((usage.rss_after as f64 - usage.rss_before as f64) / self.open as f64)
    }
}
