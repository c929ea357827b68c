//! The progress of a run, with its rate, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nonforker_load::{Phase, Progress};

/// A bar that fills with time, until it is dropped: then the terminal is as it was.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    last: (Duration, u64),
}

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix:9} {bar:30} {msg}") {
            bar.set_style(style);
        }
        Self { bar, last: Default::default() }
    }
}

impl Progress for Bar {
    fn begin(&mut self, phase: Phase, length: Option<Duration>) {
        self.bar.set_prefix(phase.name());
        if let Some(length) = length {
            self.bar.set_length(millis(length));
            self.bar.set_position(0);
            self.last = (Duration::ZERO, 0);
        }
    }

    fn show(&mut self, passed: Duration, messages: u64) {
        let (before, count) = std::mem::replace(&mut self.last, (passed, messages));
        let rate = messages.saturating_sub(count) as f64
            / passed.saturating_sub(before).as_secs_f64().max(1e-3);
        self.bar.set_position(millis(passed));
        self.bar.set_message(format!("{rate:.0} msgs/s"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
