//! The seam: the engine submits operations, a driver carries them out and reports completions.
//!
//! ```text
//!            submit(Op)                      wait(sink)
//!  engine ───────────────▶ driver ───────────────────────▶ engine
//!                          poll    tries at once, waits where it would block
//!                          uring   the kernel does, where it can (Linux)
//!                          sim     seeded, without a kernel, time that jumps
//! ```
//!
//! A driver knows nothing of frames, limits or handlers. What it promises, and
//! the suite in `contract` checks for each of them, the simulated one included:
//!
//! 1. A send's buffer travels with the operation and comes back once, in a [`Sent`]: from
//!    [`send`](Driver::send), or from a later wait and before [`Closed`](Completion::Closed). At
//!    most one send per token is in flight.
//! 2. Received bytes are lent until the sink returns. A token is given at most `read_max` bytes
//!    per wait. A connection that has more comes again, after the others. After receiving is
//!    turned off, one more piece may come, or the end.
//! 3. [`Op::Close`] stops whatever is in flight, and [`Closed`](Completion::Closed) is the last
//!    word about a token. Tokens carry a generation: a late report cannot reach another
//!    connection.
//! 4. Of those that share a listener and accept, at least one is told when a peer connects. Whoever
//!    turns accepting on, or asks for it again, is told what waits by then.
//! 5. An attempt to connect brings a socket or an error, once, and nothing after it was abandoned.
//! 6. A driver never retries what failed and never waits on purpose; that is policy. An accept
//!    that fails turns accepting off until the engine turns it on again.

mod accepting;
mod connecting;
#[cfg(test)]
mod contract;
pub(crate) mod poll;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
#[path = "uring/queue.rs"]
mod queue;
pub(crate) mod sim;
pub(crate) mod socket;
mod turns;
mod urgent;
#[cfg(target_os = "linux")]
pub(crate) mod uring;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    thread::{self, ThreadId},
    time::Duration,
};

pub(crate) use rustix::time::ClockId;
use rustix::{io::Errno, time::clock_gettime};
use slotmap::new_key_type;

use self::socket::Listener;
use crate::{
    address::{Address, Peer, PeerCredentials},
    conn::buffer::Buffer,
    exec::Program,
};

new_key_type! {
    /// A connection's slot: index and generation.
    pub(crate) struct Token;
}

/// A listener's index, in the order in which they were opened.
pub(crate) type ListenerId = usize;

/// The number of an attempt to connect. The engine counts them.
pub(crate) type AttemptId = u32;

/// Where to connect to: what a name has led to.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Address(Address),
    Program(Program),
}

/// What the engine asks for.
#[derive(Debug)]
pub(crate) enum Op<S> {
    /// Accept connections, or stop doing so.
    Accept { listener: ListenerId, on: bool },
    /// Close a listener. What waits in its backlog is refused.
    Unlisten { listener: ListenerId },
    /// Connect to `to`. Whether urgent bytes are wanted is as for a listener.
    Connect { attempt: AttemptId, to: Destination, urgent: bool },
    /// Forget an attempt to connect. Nothing is reported about it afterwards.
    Abandon { attempt: AttemptId },
    /// From now on `socket` is known by `token`.
    Adopt { token: Token, socket: S },
    /// Receive, or stop doing so.
    Receive { token: Token, on: bool },
    /// Tell the peer that nothing more will be sent.
    ShutdownWrite { token: Token },
    /// Close, with a reset if `reset`. Nothing is asked for this token afterwards.
    Close { token: Token, reset: bool },
}

impl ListenerShare {
    /// The socket, for a driver of sockets.
    fn socket(self) -> io::Result<Listener> {
        match self {
            Self::Socket(listener) => Ok(listener),
            Self::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// What became of a send.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The buffer that was sent from, as it was.
    pub(crate) batch: Buffer,
    /// How many of its first bytes the kernel took, at least one; or why it took none.
    pub(crate) result: io::Result<usize>,
}

impl Sent {
    /// A close came before the kernel took anything.
    pub(crate) fn cancelled(batch: Buffer) -> Self {
        Self { batch, result: Err(Errno::CANCELED.into()) }
    }
}

/// What became of an operation, or what a peer did.
#[derive(Debug)]
pub(crate) enum Completion<'a, S> {
    /// Somebody connected. To drop `socket` is to refuse them.
    Accepted { listener: ListenerId, socket: S, peer: Peer },
    /// Accepting failed, and is off now.
    AcceptFailed { listener: ListenerId, error: io::Error },
    /// An attempt has led to a connection. To drop `socket` is to close it.
    Connected { attempt: AttemptId, socket: S, peer: Peer },
    /// An attempt has failed.
    ConnectFailed { attempt: AttemptId, error: io::Error },
    /// The peer sent this. The sink may change the bytes, to decrypt them where they lie.
    Received { token: Token, bytes: &'a mut [u8] },
    /// The peer has finished sending. Receiving is off now.
    EndOfStream { token: Token },
    /// The peer sent an urgent byte, beside its stream.
    Urgent { token: Token, byte: u8 },
    /// A send is no longer in flight.
    Sent { token: Token, sent: Sent },
    /// The connection broke. What remains is to close it.
    Failed { token: Token, error: io::Error },
    /// The last word about `token`.
    Closed { token: Token },
    /// Somebody used the [`Waker`].
    Woken,
    /// The driver may have slept: comes before anything that it slept for, in every wait but those
    /// that only deliver the rest of one whose sink had [`Enough`](Next::Enough).
    Awake,
}

/// What the sink wants after a completion. The most that was wanted within a wait counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Next {
    /// There is no work to do: [`Driver::wait`] may sleep.
    Sleep,
    /// There is: deliver what is at hand, then return without sleeping.
    Return,
    /// There is much to do: return soon. What is at hand may be delivered by the next waits, which
    /// need not look for more before that.
    Enough,
}

/// Where completions go.
pub(crate) trait Sink<S> {
    /// Takes a completion. Returns what the driver is to do next.
    fn take(&mut self, completion: Completion<'_, S>) -> Next;

    /// The peer sent these bytes: a [`Completion::Received`], of which there are most.
    fn received(&mut self, token: Token, bytes: &mut [u8]) -> Next {
        self.take(Completion::Received { token, bytes })
    }

    /// The driver may have slept: a [`Completion::Awake`], of which each wait has one.
    fn awake(&mut self) {
        self.take(Completion::Awake);
    }
}

impl<S, F: FnMut(Completion<'_, S>) -> Next> Sink<S> for F {
    fn take(&mut self, completion: Completion<'_, S>) -> Next {
        self(completion)
    }
}

/// How a driver's listeners and connections are set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The most bytes of one [`Completion::Received`].
    pub(crate) read_max: usize,
    /// How many connections may wait in the kernel to be accepted.
    pub(crate) backlog: u16,
    /// The permissions of a Unix socket's file.
    pub(crate) unix_mode: u32,
    /// How TCP connections find out that their peer is gone.
    pub(crate) probing: Probing,
    /// Drivers of other shards have the same listeners.
    pub(crate) shared: bool,
}

/// A listener of one driver for the driver of another shard.
#[derive(Debug)]
pub(crate) enum ListenerShare {
    /// Another descriptor of the same socket.
    Socket(Listener),
    /// The listener of this number in the same simulated network.
    Simulated(ListenerId),
}

/// When a kernel takes the peer of a TCP connection for gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probing {
    /// It was silent, and answered none of some probes.
    pub(crate) keepalive: Option<Keepalive>,
    /// It acknowledged nothing of what was sent for so long.
    pub(crate) user_timeout: Option<Duration>,
}

/// Probes of a silent peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    /// The silence before the first probe.
    pub(crate) time: Duration,
    /// The time between two probes.
    pub(crate) interval: Duration,
    /// After this number of probes without an answer the connection ends.
    pub(crate) count: u32,
}

/// Carries out operations and reports what became of them.
pub(crate) trait Driver {
    /// A connection that has not been adopted yet. To drop it is to close it.
    type Socket;

    /// Opens listener number `listener`, not accepting yet, and returns its actual address.
    ///
    /// Urgent bytes that its connections get are reported if they are wanted: `urgent`. If not,
    /// they may be, or are dropped. They are never part of the stream.
    fn listen(
        &mut self,
        listener: ListenerId,
        address: &Address,
        urgent: bool,
    ) -> io::Result<Address>;

    /// The same with a listener that somebody else opened and that others may hold as well.
    fn take_over(
        &mut self,
        listener: ListenerId,
        given: OwnedFd,
        urgent: bool,
    ) -> io::Result<Address> {
        let _ = (listener, given, urgent);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A share of a listener, for the driver of another shard.
    fn share_of(&self, listener: ListenerId) -> io::Result<ListenerShare> {
        let _ = listener;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens listener number `listener` where another shard listens.
    fn share(
        &mut self,
        listener: ListenerId,
        other: ListenerShare,
        urgent: bool,
    ) -> io::Result<Address> {
        let _ = (listener, other, urgent);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes `op`. Its completion comes from a later [`wait`](Self::wait), never from here.
    fn submit(&mut self, op: Op<Self::Socket>);

    /// Sends `batch`. Never while another send of the token is in flight.
    ///
    /// It is what is asked for most, and where a driver tries at once, it knows at once: so this
    /// operation may be done when it returns. `None` is one that is in flight: a later
    /// [`wait`](Self::wait) reports it.
    ///
    /// If it is `awaited`, something follows from its end, and no wait may sleep on that. Of one
    /// that is not awaited a driver may tell a moment later, or when something else ends the wait.
    fn send(&mut self, token: Token, batch: Buffer, awaited: bool) -> Option<Sent>;

    /// Passes completions to `sink`, sleeping up to `timeout` for the first. The sleep may be up to a
    /// millisecond shorter than that, but is no longer than the kernel makes it.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut impl Sink<Self::Socket>,
    ) -> io::Result<()>;

    /// Whether the last look is not delivered completely: the next wait goes on with it. What a
    /// look found in excess of a connection's share does not count, see [`unread`](Self::unread).
    fn is_behind(&self) -> bool;

    /// How many bytes have arrived for `token` and are not delivered, as far as that can be known.
    fn unread(&self, token: Token) -> usize;

    /// How many bytes the kernel took for `token` that the peer's kernel has not acknowledged.
    /// `None` where that cannot be known.
    fn unacknowledged(&self, token: Token) -> Option<usize>;

    /// The process at the other end of a Unix socket, if the system says which.
    fn credentials(&self, token: Token) -> Option<PeerCredentials> {
        let _ = token;
        None
    }

    /// The engine has no other clock.
    fn clock(&self) -> Clock;

    /// Ends a [`wait`](Self::wait) from another thread.
    fn waker(&self) -> Waker;
}

/// Tells the time, counted from some moment before the server started. In a simulation it is a
/// number that jumps.
#[derive(Clone)]
pub(crate) enum Clock {
    System,
    Virtual(Rc<dyn Fn() -> Duration>),
}

impl Clock {
    pub(crate) const EXACT: ClockId = ClockId::Monotonic;

    /// The clock that costs a tenth, and is as old as the kernel's last tick: some milliseconds.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) const COARSE: ClockId = ClockId::MonotonicCoarse;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) const COARSE: ClockId = ClockId::Monotonic;

    pub(crate) fn virtual_time(now: impl Fn() -> Duration + 'static) -> Self {
        Self::Virtual(Rc::new(now))
    }

    /// The time in nanoseconds, which is enough for five hundred years.
    pub(crate) fn now(&self) -> u64 {
        self.read(Self::EXACT)
    }

    /// The same as a duration.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.now())
    }

    /// What the exact clock shows, or the coarse one.
    #[inline]
    pub(crate) fn read(&self, clock: ClockId) -> u64 {
        match self {
            Self::System => {
                let time = clock_gettime(clock);
                let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
                seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
            }
            Self::Virtual(now) => nanos(now()),
        }
    }
}

/// In nanoseconds, at most as many as can be counted.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.time()).finish()
    }
}

/// Ends a driver's wait, from any thread.
#[derive(Clone)]
pub(crate) struct Waker {
    wake: Arc<dyn Fn() + Send + Sync>,
    /// The only thread from which mail may come, in a simulation.
    home: Option<ThreadId>,
}

impl Waker {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wake: Arc::new(wake), home: None }
    }

    /// One for a driver to which no mail may come from another thread than this.
    pub(crate) fn at_home(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wake: Arc::new(wake), home: Some(thread::current().id()) }
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// Panics if mail must not come from this thread.
    pub(crate) fn check_thread(&self) {
        if let Some(home) = self.home {
            assert!(
                home == thread::current().id() || thread::panicking(),
                "a simulated server got mail from another thread, so the run would depend on more \
                 than its seed: in a simulation use Conn::offload or Net::post, or answer tickets in \
                 the script"
            );
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
