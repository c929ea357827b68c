//! Ending a server from outside: from another thread, or by a signal.

use std::{fmt, sync::Arc};

use crate::engine::{remote::Remote, stats::Stats};

/// Ends a server, and tells its counters, from any thread.
///
/// It works at any time: before the server is [bound](crate::Server::bind), while it runs, from a
/// callback, and after the server has ended, when it does nothing.
#[derive(Clone)]
pub struct Handle {
    remote: Arc<Remote>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) const fn new(remote: Arc<Remote>) -> Self {
        Self { remote }
    }

    /// Takes nothing new, answers what has arrived, closes everybody and ends the server.
    ///
    /// Returns at once. A server that is not bound yet ends as soon as it runs. What is not done within
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout) ends then. If that leaves a request
    /// unhandled or bytes unsent, [`Bound::run`](crate::Bound::run) returns
    /// [`Error::CutOff`](crate::Error::CutOff).
    pub fn drain(&self) {
        self.remote.drain();
    }

    /// Ends every connection at once, and the server with them.
    ///
    /// If that leaves a request unhandled or bytes unsent, [`Bound::run`](crate::Bound::run)
    /// returns [`Error::CutOff`](crate::Error::CutOff).
    pub fn stop(&self) {
        self.remote.stop();
    }

    /// What the server has counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.remote.counters.snapshot()
    }
}
