//! Every limit, with its unit, its default and its reason.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    bounds::BUDGET_MIN,
    conn::outbound::Watermarks,
    memory_limit::{self, Source},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Descriptors kept free for what is not a connection: listeners, logs, the handler's own files.
/// Redis keeps as many.
const DESCRIPTOR_RESERVE: usize = 32;

/// A server without a limit of its own warns if there are descriptors for fewer connections than this.
const CONNECTIONS_FEW: usize = 64;

/// The default bounds in a simulation.
const SIMULATED_CONNECTIONS: usize = 10_000;
const SIMULATED_MEMORY: usize = 1 << 30;

/// The bounds a server keeps to, whatever its peers do.
///
/// Sizes are in bytes. Every default is a number somebody runs in production; the reason is at
/// each setter. What a limit may be set to is at [`check`](Self::check). The bound on a *frame* belongs to the codec, see
/// [`Lines::with_max`](crate::codec::Lines::with_max).
///
/// # Examples
///
/// A server for many devices that speak rarely, and hold little memory each:
///
/// ```
/// use std::time::Duration;
/// use nonforker::Limits;
///
/// let limits = Limits::new()
///     .high_watermark(8 * 1024)
///     .idle_timeout(Some(Duration::from_secs(3600)));
/// # let _ = limits;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) high_watermark: usize,
    pub(crate) low_watermark: Option<usize>,
    pub(crate) output_cap: usize,
    pub(crate) read_per_turn: usize,
    pub(crate) frames_per_turn: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_connections_per_ip: Option<usize>,
    pub(crate) max_connections_per_net: Option<usize>,
    pub(crate) net_prefix: (u8, u8),
    pub(crate) accept_rate: Option<usize>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) drain_spread: Duration,
    pub(crate) memory_budget: Option<usize>,
    pub(crate) frame_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) unused_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_count: u32,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshakes_max: usize,
    pub(crate) linger_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) slow_handler: Option<Duration>,
    pub(crate) backlog: u16,
    pub(crate) busy_poll: Option<Duration>,
    pub(crate) remote_max: usize,
    pub(crate) tickets_max: usize,
    pub(crate) answer_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            high_watermark: 64 * KIB,
            low_watermark: None,
            output_cap: MIB,
            read_per_turn: 64 * KIB,
            frames_per_turn: 1024,
            max_connections: None,
            max_connections_per_ip: None,
            max_connections_per_net: None,
            net_prefix: (24, 64),
            accept_rate: None,
            max_age: None,
            drain_spread: Duration::ZERO,
            memory_budget: None,
            frame_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            unused_timeout: Some(Duration::from_secs(60)),
            keepalive: Some(Duration::from_secs(60)),
            keepalive_interval: Duration::from_secs(10),
            keepalive_count: 6,
            tcp_user_timeout: None,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            handshakes_max: 1024,
            linger_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            slow_handler: Some(Duration::from_millis(100)),
            backlog: 1024,
            busy_poll: None,
            remote_max: 10_000,
            tickets_max: 10_000,
            answer_timeout: Some(Duration::from_secs(60)),
        }
    }
}

impl Limits {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Above this many bytes queued for a peer, its requests wait and nothing more is read from
    /// it. Default: 64 KiB, as in asyncio and Netty.
    #[must_use]
    pub const fn high_watermark(mut self, bytes: usize) -> Self {
        self.high_watermark = bytes;
        self
    }

    /// At this many queued bytes a connection that was held back goes on. At most the high
    /// watermark; default: a quarter of it, 16 KiB of 64 KiB, so that it does not flap.
    #[must_use]
    pub const fn low_watermark(mut self, bytes: usize) -> Self {
        self.low_watermark = Some(bytes);
        self
    }

    /// How far above the high watermark the queue may grow through what others push at the
    /// peer, before it is closed with
    /// [`OutputOverflow`](crate::CloseReason::OutputOverflow). Default: 1 MiB.
    ///
    /// The replies to one request are not cut off by it: they may be larger, and the next request
    /// then waits.
    #[must_use]
    pub const fn output_cap(mut self, bytes: usize) -> Self {
        self.output_cap = bytes;
        self
    }

    /// The most bytes received from one connection before all the others had their turn. From 1
    /// to 64 MiB; default: 64 KiB, gnet's bound. One buffer of this size is shared by all.
    #[must_use]
    pub const fn read_per_turn(mut self, bytes: usize) -> Self {
        self.read_per_turn = bytes;
        self
    }

    /// The most frames of one connection that are handled before all the others had their turn,
    /// empty ones included. At least 1; default: 1024, what 64 KiB of 64-byte lines hold.
    #[must_use]
    pub const fn frames_per_turn(mut self, frames: usize) -> Self {
        self.frames_per_turn = frames;
        self
    }

    /// The most connections at a time. Further ones wait in the kernel's backlog. At
    /// least 1; default (`None`): the soft limit of descriptors less 32.
    #[must_use]
    pub const fn max_connections(mut self, connections: Option<usize>) -> Self {
        self.max_connections = connections;
        self
    }

    /// The most connections at a time from one IP address. Further ones are closed at once.
    /// At least 1; default: `None`, no such bound.
    #[must_use]
    pub const fn max_connections_per_ip(mut self, connections: Option<usize>) -> Self {
        self.max_connections_per_ip = connections;
        self
    }

    /// The most bytes that the buffers of all connections may take. Default (`None`): a quarter of
    /// the memory of the machine, or of the tightest limit of the cgroups that the process is in
    /// (`memory.max`; version 1: `memory.limit_in_bytes`) if that is less. The log says at the start
    /// how much it is and where it comes from, at the level `info`.
    ///
    /// From 80 % on, until it is 70 % again, a connection that holds more than its share is not read
    /// from; from 90 % on no connection is accepted, or a few in a second. While others wait for memory,
    /// a connection that took nothing of what it holds for a second is closed with
    /// [`Evicted`](crate::CloseReason::Evicted), those that hold the most first. Beyond the budget
    /// the connection that holds the most is closed at once. The budget should be many times as large
    /// as the largest reply.
    ///
    /// While buffers grow, the process takes at most about a third more than the budget. When they are
    /// freed, memory goes back to the allocator. The allocator decides when it goes back to the
    /// system: that of glibc may keep all of it after a burst of buffers below 32 MiB. If that matters
    /// to you, set another one in your program. With jemalloc, its background thread and a decay of
    /// 50 ms (`background_thread:true,dirty_decay_ms:50,muzzy_decay_ms:0`), as in the program
    /// `nonforker`, it goes back within a second and costs a message nothing.
    ///
    /// What the kernel buffers is its own account and not counted here. Less than 4 KiB is refused by
    /// [`Server::bind`](crate::Server::bind).
    #[must_use]
    pub const fn memory_budget(mut self, bytes: Option<usize>) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// How long a frame may take from its first byte to its last; `None` for ever. Default: 30 s,
    /// against clients that send a byte a minute to hold a connection (slowloris).
    #[must_use]
    pub const fn frame_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.frame_timeout = timeout;
        self
    }

    /// How long a peer may take nothing of what is queued for it; `None` for ever. Default: 30 s
    /// *without progress*: a slow but steady download is not an attack.
    ///
    /// Progress is what the peer's kernel has acknowledged (on Linux and macOS; elsewhere, what ours
    /// took). A kernel acknowledges in steps: some 24 KiB with packets of 1500 bytes, up to 95 KiB on
    /// loopback. So a peer is safe whose steps take at most half of this time, and one that takes
    /// nothing is cut off at the latest after twice this time.
    #[must_use]
    pub const fn write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// How long a connection may be silent in both directions. Default: `None`, for ever: a quiet
    /// peer is not a fault.
    #[must_use]
    pub const fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long a connection may be open without one complete request and without anything sent to
    /// it; `None` for ever. Default: 60 s, so that clients which connect and say nothing cannot take
    /// every place.
    ///
    /// Half a request does not count, and the time does not run while the handler has
    /// [paused](crate::Conn::pause) the connection. A client that only listens is safe as soon as
    /// anything was sent to it. A server that greets nobody and has news less often than this sets
    /// it to `None` or longer, or sends something to each client as it connects.
    ///
    /// Unless it is `None`: when the server is [full](Self::max_connections) and a client waits, the
    /// oldest connection without a complete request goes at once, from its second second on. What
    /// was sent to it as it [opened](crate::Handler::open) does not save it then; what was sent later
    /// does.
    #[must_use]
    pub const fn unused_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.unused_timeout = timeout;
        self
    }

    /// How long what comes before the first request may take: a PROXY header, see
    /// [`Server::proxy_protocol`](crate::Server::proxy_protocol), and a TLS handshake together; or a
    /// handshake that begins later. Default: 10 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a connection that is [asked for](crate::Conn::connect) may take to stand, the look-up of
    /// a name included. Default: 10 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The most TLS handshakes that are under way at a time. With one more the oldest of them ends. At
    /// least 1; default: 1024. Shards have an equal part of it each.
    ///
    /// A client that stops in the middle of its handshake costs about 4 KiB until then.
    #[must_use]
    pub const fn handshakes_max(mut self, handshakes: usize) -> Self {
        self.handshakes_max = handshakes;
        self
    }

    /// How long a closed connection waits for its peer to close too, so that the last reply is
    /// not destroyed by a reset; a fifth of it if the peer is silent. Default: 5 s. nginx calls
    /// this a lingering close.
    #[must_use]
    pub const fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// How long a drain may take before what is left is cut off; [`Duration::MAX`] for ever.
    /// Default: 10 s, the shutdown timeout of Redis.
    #[must_use]
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long the handler may take for what one read brought before a warning names the
    /// connection. `None`: no warning; default: 100 ms.
    #[must_use]
    pub const fn slow_handler(mut self, threshold: Option<Duration>) -> Self {
        self.slow_handler = threshold;
        self
    }

    /// How many connections may wait in the kernel to be accepted. Default: 1024; the kernel has
    /// a cap of its own.
    #[must_use]
    pub const fn backlog(mut self, connections: u16) -> Self {
        self.backlog = connections;
        self
    }

    /// How long to look for new requests without sleeping before the server sleeps, at most 1 s.
    /// `None`, the default: not at all.
    ///
    /// 20 to 50 µs make replies to one busy client about twice as fast, because to be woken takes
    /// that long. The price is a processor that is never idle while clients keep asking; a server
    /// with nothing to do still sleeps, that much later.
    #[must_use]
    pub const fn busy_poll(mut self, time: Option<Duration>) -> Self {
        self.busy_poll = time;
        self
    }

    /// How many closures that other threads [post](crate::Remote::post) may wait to be called.
    /// At least 1; default: 10,000.
    #[must_use]
    pub const fn remote_max(mut self, closures: usize) -> Self {
        self.remote_max = closures;
        self
    }

    /// How many [tickets](crate::Ticket) may be open at a time. At least 1; default: 10,000.
    ///
    /// While as many are open, further requests to services that have ever taken one wait, and other
    /// services go on. Requests that were being handled still get theirs.
    #[must_use]
    pub const fn tickets_max(mut self, tickets: usize) -> Self {
        self.tickets_max = tickets;
        self
    }

    /// How long a [ticket](crate::Ticket) may be open before its connection closes; `None` for ever.
    /// Default: 60 s, since most clients have given up by then.
    #[must_use]
    pub const fn answer_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.answer_timeout = timeout;
        self
    }

    pub(crate) const fn watermarks(&self) -> Watermarks {
        Watermarks {
            high: self.high_watermark,
            low: match self.low_watermark {
                Some(low) => low,
                None => self.high_watermark / 4,
            },
            cap: self.high_watermark.saturating_add(self.output_cap),
        }
    }

    /// Works out what is not set from the machine.
    pub(crate) fn fill_in(&mut self) {
        self.max_connections = Some(self.connections());
        self.memory_budget = Some(self.budget().0);
    }

    /// Sets what would be worked out from the machine: in a simulation it is the same everywhere.
    pub(crate) fn simulate(&mut self) {
        self.max_connections.get_or_insert(SIMULATED_CONNECTIONS);
        self.memory_budget.get_or_insert(SIMULATED_MEMORY);
    }

    /// The bound on connections, the default worked out from the descriptors there are.
    pub(crate) fn connections(&self) -> usize {
        self.max_connections.unwrap_or_else(|| connections_that_fit(descriptor_limit()))
    }

    /// What is wrong with so few descriptors, if they are too few for the connections that were
    /// asked for, or for any server.
    pub(crate) fn lack_of_descriptors(&self, descriptors: usize) -> Option<String> {
        let fit = connections_that_fit(descriptors);
        let wanted = self.max_connections.unwrap_or(CONNECTIONS_FEW);
        (fit < wanted).then(|| {
            let s = if fit == 1 { "" } else { "s" };
            let most = self.max_connections.map(|max| format!(" of {max}")).unwrap_or_default();
            format!(
                "there are descriptors for {fit} connection{s}{most} only, the others have to \
                 wait: the limit of descriptors is {descriptors}, and {DESCRIPTOR_RESERVE} are \
                 kept for other things; raise it with ulimit -n, or with LimitNOFILE= in a \
                 systemd unit"
            )
        })
    }

    /// The memory budget, the default worked out from the memory there is, and where it comes from
    /// in words.
    pub(crate) fn budget(&self) -> (usize, &'static str) {
        if let Some(budget) = self.memory_budget {
            return (budget, "as set");
        }
        let (memory, source) = memory_limit::memory();
        let source = match source {
            Source::Cgroup => "a quarter of the limit of the cgroup",
            Source::Machine => "a quarter of the memory of the machine",
            Source::Unknown => "a guess: the system does not say how much memory there is",
        };
        ((memory / 4).max(BUDGET_MIN), source)
    }
}

/// The soft limit of descriptors.
pub(crate) fn descriptor_limit() -> usize {
    let soft = getrlimit(Resource::Nofile).current;
    soft.and_then(|soft| usize::try_from(soft).ok()).unwrap_or(usize::MAX)
}

fn connections_that_fit(descriptors: usize) -> usize {
    descriptors.saturating_sub(DESCRIPTOR_RESERVE).max(1)
}

/// Raises the soft limit of descriptors to the hard one and returns it.
///
/// A server whose connections are bounded by the default of [`Limits::max_connections`] calls
/// this first: the soft limit is often 1024, from the days of `select`.
///
/// # Errors
///
/// What the system says if the limit cannot be raised.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|soft| soft < hard) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn too_few_descriptors_are_said() {
        let some = |max| Limits::new().max_connections(Some(max));
        for (limits, descriptors, connections) in [
            (Limits::new(), 96, None),
            (Limits::new(), 95, Some("63 connections only")),
            (Limits::new(), 40, Some("8 connections only")),
            (Limits::new(), 10, Some("1 connection only")),
            (some(8), 40, None),
            (some(9), 40, Some("8 connections of 9 only")),
            (some(5000), 1024, Some("992 connections of 5000 only")),
        ] {
            let said = limits.lack_of_descriptors(descriptors);
            assert_eq!(said.is_some(), connections.is_some(), "{descriptors}: {said:?}");
            if let (Some(said), Some(connections)) = (said, connections) {
                assert!(said.contains(connections), "{said}");
                assert!(
                    said.contains(&format!("limit of descriptors is {descriptors},")),
                    "{said}"
                );
            }
        }
    }

    #[test]
    fn a_budget_is_as_set_or_a_quarter_of_what_there_is() {
        assert_eq!(Limits::new().memory_budget(Some(5000)).budget(), (5000, "as set"));
        let (memory, _) = crate::memory_limit::memory();
        let (budget, source) = Limits::new().budget();
        assert_eq!(budget, memory / 4);
        assert!(source.contains("a quarter of"), "{source}");
    }
}
