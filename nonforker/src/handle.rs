//! Ending a server from outside: from another thread, or by a signal.

use std::{fmt, sync::Arc};

use crate::{
    driver::Waker,
    engine::{
        drain::Request,
        stats::{Counters, Stats},
    },
};

/// Ends a server, and tells its counters, from any thread.
#[derive(Clone)]
pub struct Handle {
    request: Arc<Request>,
    waker: Waker,
    counters: Arc<Counters>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) const fn new(request: Arc<Request>, waker: Waker, counters: Arc<Counters>) -> Self {
        Self { request, waker, counters }
    }

    /// Takes nothing new, answers what has arrived, closes everybody and ends the server.
    ///
    /// Returns at once. What is not done within
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout) ends then. If that leaves a request
    /// unhandled or bytes unsent, [`Bound::run`](crate::Bound::run) returns
    /// [`Error::CutOff`](crate::Error::CutOff).
    pub fn drain(&self) {
        self.request.drain();
        self.waker.wake();
    }

    /// Ends every connection at once, and the server with them.
    ///
    /// If that leaves a request unhandled or bytes unsent, [`Bound::run`](crate::Bound::run)
    /// returns [`Error::CutOff`](crate::Error::CutOff).
    pub fn stop(&self) {
        self.request.stop();
        self.waker.wake();
    }

    /// What the server has counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }
}
