//! Ending a server from outside: from another thread, or by a signal.

use std::{fmt, sync::Arc};

use crate::{
    driver::Waker,
    engine::{
        drain::Request,
        stats::{AllCounters, Stats},
    },
};

/// Ends a server, and tells its counters, from any thread.
#[derive(Clone)]
pub struct Handle {
    request: Arc<Request>,
    waker: Waker,
    counters: Arc<AllCounters>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) const fn new(
        request: Arc<Request>,
        waker: Waker,
        counters: Arc<AllCounters>,
    ) -> Self {
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

    /// What one service has counted so far: the first that was given to the server is number 0.
    /// `None` if there are not so many.
    ///
    /// [`Stats::buffered_bytes`] is 0, since the buffers of all services have one account.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let server = Server::new()
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, _line| conn.send("healthy"))
    ///     .bind()?;
    /// let health = server.handle().service_stats(1).expect("it is the second");
    /// println!("{} are connected to it", health.accepted - health.closed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn service_stats(&self, service: usize) -> Option<Stats> {
        self.counters.snapshot_of(service)
    }
}
