//! How far a run has come, for a person at a terminal.

use std::time::Duration;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The server is loaded, and nothing is measured yet.
    WarmUp,
    /// The server is loaded and measured.
    Measuring,
    /// Nothing new is asked: the load waits for the replies that are due.
    Draining,
    /// Idle connections are held.
    Holding,
}

impl Phase {
    /// What to call it, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Measuring => "measuring",
            Self::Draining => "draining",
            Self::Holding => "holding",
        }
    }
}

/// Gets the progress of a run. `()` ignores it.
///
/// The load calls it between two looks at the connections, so it must not block.
pub trait Progress {
    /// A phase begins. It ends after `length`, if that is known.
    fn begin(&mut self, phase: Phase, length: Option<Duration>);

    /// This much of the phase has passed, with this many messages. About ten times a second.
    fn show(&mut self, passed: Duration, messages: u64);
}

impl Progress for () {
    fn begin(&mut self, _phase: Phase, _length: Option<Duration>) {}

    fn show(&mut self, _passed: Duration, _messages: u64) {}
}
