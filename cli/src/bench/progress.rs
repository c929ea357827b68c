//! The progress of a run, with its rate, on a terminal only.

use std::{cell::Cell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that fills with time.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    last: Cell<(Duration, u64)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix:9} {bar:30} {msg}") {
            bar.set_style(style);
        }
        Self { bar, last: Cell::default() }
    }

    /// Names the phase that follows.
    pub(crate) fn name(&self, phase: &'static str) {
        self.bar.set_prefix(phase);
    }

    /// A phase of this length begins.
    pub(crate) fn begin(&self, time: Duration) {
        self.bar.set_length(millis(time));
        self.bar.set_position(0);
        self.last.set((Duration::ZERO, 0));
    }

    /// So much of the phase has passed, with so many messages.
    pub(crate) fn show(&self, passed: Duration, messages: u64) {
        let (before, count) = self.last.replace((passed, messages));
        let rate = messages.saturating_sub(count) as f64
            / passed.saturating_sub(before).as_secs_f64().max(1e-3);
        self.bar.set_position(millis(passed));
        self.bar.set_message(format!("{rate:.0} msgs/s"));
    }

    /// Leaves the terminal as it was.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
