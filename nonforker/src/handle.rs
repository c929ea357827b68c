//! A server from outside: from another thread, or by a signal.

use std::{fmt, sync::Arc};

use crate::{
    config::{Limits, descriptor_limit},
    engine::{group::Group, stats::Stats},
    error::{NoSuchService, Result},
    handler::Handler,
    remote::Remote,
};

/// Ends a server, sets its limits, and tells its counters, from any thread.
///
/// It works at any time: before the server is [bound](crate::Server::bind), while it runs, from a
/// callback, and after the server has ended, when it does nothing. It is a handle of all
/// [shards](crate::Shards) of a server. Only
/// [`set_limits`](Self::set_limits) and [`service_stats`](Self::service_stats) need a server that was
/// bound.
#[derive(Clone)]
pub struct Handle {
    group: Arc<Group>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) const fn new(group: Arc<Group>) -> Self {
        Self { group }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Takes nothing new, answers what has arrived, closes everybody and ends the server.
    ///
    /// Returns at once. A server that is not bound yet ends as soon as it runs. What is not done within
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout) ends then. If that leaves a request
    /// unhandled or bytes unsent, [`Bound::run`](crate::Bound::run) returns
    /// [`Error::CutOff`](crate::Error::CutOff).
    pub fn drain(&self) {
        self.group.drain();
    }

    /// Ends every connection at once, and the server with them.
    ///
    /// If that leaves a request unhandled or bytes unsent, [`Bound::run`](crate::Bound::run)
    /// returns [`Error::CutOff`](crate::Error::CutOff).
    pub fn stop(&self) {
        self.group.stop();
    }

    /// Sets other limits while the server runs. It follows them as soon as it is woken, whatever the
    /// thread; this returns at once.
    ///
    /// - Connections that are there stay, though there may now be fewer. A timeout that is another
    ///   one than before counts from now on for those that are open; those that
    ///   [linger](Limits::linger_timeout), or whose PROXY header has not come, keep theirs.
    /// - What a service has [of its own](crate::ServiceLimits), or a connection by
    ///   [`set_idle_timeout`](crate::Conn::set_idle_timeout), stays.
    /// - A [`max_connections`](Limits::max_connections) or [`memory_budget`](Limits::memory_budget) of
    ///   `None` is worked out from the machine anew. If buffers take more than a lower budget, those
    ///   go that hold the most.
    /// - A drain that has begun keeps its [`drain_timeout`](Limits::drain_timeout).
    ///
    /// These count only at the start, and have to be what they were then:
    /// [`read_per_turn`](Limits::read_per_turn), [`backlog`](Limits::backlog),
    /// [`keepalive`](Limits::keepalive), [`keepalive_interval`](Limits::keepalive_interval),
    /// [`keepalive_count`](Limits::keepalive_count), [`tcp_user_timeout`](Limits::tcp_user_timeout).
    ///
    /// # Errors
    ///
    /// [`Error::NotBound`](crate::Error::NotBound) before the server is [bound](crate::Server::bind):
    /// its limits are then those of [`Server::limits`](crate::Server::limits).
    /// [`Error::Limits`](crate::Error::Limits), which names one of these if it is not what it was at
    /// the start, or a limit that is [out of its bounds](Limits::check). Nothing changes then.
    ///
    /// # Examples
    ///
    /// Under attack, silent clients have to go earlier:
    ///
    /// ```
    /// use std::time::Duration;
    /// use nonforker::{Limits, Server, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let limits = Limits::new().backlog(4096);
    /// let server = Server::new()
    ///     .limits(limits.clone())
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .bind()?;
    /// let handle = server.handle();
    /// handle.set_limits(limits.clone().idle_timeout(Some(Duration::from_secs(5))))?;
    ///
    /// let error = handle.set_limits(limits.backlog(100)).expect_err("it is too late for that");
    /// assert!(error.to_string().starts_with("backlog: 100 is not what it was at the start, 4096"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        let lack = limits.lack_of_descriptors(descriptor_limit());
        self.post_limits(limits)?;
        if let Some(lack) = lack {
            tracing::warn!("{lack}");
        }
        Ok(())
    }

    /// Posts to a service from other threads.
    pub(crate) fn remote<H: Handler>(
        &self,
        name: Option<&str>,
    ) -> std::result::Result<Remote<H>, NoSuchService> {
        let service = self.group.find::<H>(name)?;
        Ok(Remote::new(self.group.mailboxes(), 0, service))
    }

    /// The same, whatever the machine has.
    pub(crate) fn post_limits(&self, limits: Limits) -> Result<()> {
        self.group.post_limits(&limits)
    }

    /// What the server has counted so far: nothing before it is bound.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.group.stats()
    }

    /// What one service has counted so far: the first that was given to the server is number 0.
    /// `None` if there are fewer services, or before the server is [bound](crate::Server::bind).
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
        self.group.service_stats(service)
    }

    /// What one shard of the server has counted so far, from number 0 on: see
    /// [`Shards`](crate::Shards). A server without shards is shard 0. `None` if there are not so many.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, Shards, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let running = Shards::new(2, || {
    ///     Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    /// })
    /// .bind()?;
    /// let handle = running.handle();
    /// let of_each = (0..).map_while(|shard| handle.shard_stats(shard));
    /// assert_eq!(of_each.count(), 2);
    /// # running.drain_and_wait()
    /// # }
    /// ```
    #[must_use]
    pub fn shard_stats(&self, shard: usize) -> Option<Stats> {
        self.group.shard_stats(shard)
    }
}
