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
//! the suite in `contract` checks for each of them:
//!
//! 1. A send's buffer travels with the operation and comes back with
//!    [`Sent`](Completion::Sent), [`SendFailed`](Completion::SendFailed) or
//!    [`Closed`](Completion::Closed). At most one send per token is in flight.
//! 2. Received bytes are lent until the sink returns. A token is given at most `read_max` bytes
//!    per wait, in one [`Received`](Completion::Received) or several: whoever has more comes again
//!    after everybody else.
//! 3. [`Op::Close`] stops whatever is in flight, and [`Closed`](Completion::Closed) is the last
//!    word about a token. Tokens carry a generation: a late report cannot reach another
//!    connection.
//! 4. A driver never retries what failed and never waits on purpose; that is policy. An accept
//!    that fails turns accepting off until the engine turns it on again.

#[cfg(test)]
mod contract;
pub(crate) mod poll;
pub(crate) mod sim;
pub(crate) mod socket;
#[cfg(target_os = "linux")]
pub(crate) mod uring;

use std::{
    fmt, io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use slotmap::new_key_type;

use crate::{
    address::{Address, Peer},
    conn::outbound::Batch,
};

new_key_type! {
    /// A connection's slot: index and generation.
    pub(crate) struct Token;
}

/// A listener's index, in the order in which they were opened.
pub(crate) type ListenerId = usize;

/// What the engine asks for.
#[derive(Debug)]
pub(crate) enum Op<S> {
    /// Accept connections, or stop doing so.
    Accept { listener: ListenerId, on: bool },
    /// Close a listener. What waits in its backlog is refused.
    Unlisten { listener: ListenerId },
    /// From now on `socket` is known by `token`.
    Adopt { token: Token, socket: S },
    /// Receive, or stop doing so.
    Receive { token: Token, on: bool },
    /// Send this. Never while another send of the token is in flight.
    Send { token: Token, batch: Batch },
    /// Tell the peer that nothing more will be sent.
    ShutdownWrite { token: Token },
    /// Close, with a reset if `reset`. Nothing is asked for this token afterwards.
    Close { token: Token, reset: bool },
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Completion<'a, S> {
    /// Somebody connected. To drop `socket` is to refuse them.
    Accepted { listener: ListenerId, socket: S, peer: Peer },
    /// Accepting failed, and is off now.
    AcceptFailed { listener: ListenerId, error: io::Error },
    /// The peer sent this.
    Received { token: Token, bytes: &'a [u8] },
    /// The peer has finished sending. Receiving is off now.
    EndOfStream { token: Token },
    /// The peer sent an urgent byte, beside its stream.
    Urgent { token: Token, byte: u8 },
    /// The kernel took the first `count` unsent bytes of `batch`, at least one.
    Sent { token: Token, count: usize, batch: Batch },
    /// The kernel took nothing of `batch`.
    SendFailed { token: Token, error: io::Error, batch: Batch },
    /// The connection broke. What remains is to close it.
    Failed { token: Token, error: io::Error },
    /// The last word about `token`, with what was in flight.
    Closed { token: Token, unsent: Option<Batch> },
    /// Somebody used the [`Waker`].
    Woken,
    /// The driver may have slept: comes once per wait, before anything that it slept for.
    Awake,
}

/// What the sink wants after a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is work to do: deliver what is at hand, then return without sleeping.
    Return,
    /// There is none: [`Driver::wait`] may sleep.
    Sleep,
}

/// Where completions go.
pub(crate) type Sink<'a, S> = dyn FnMut(Completion<'_, S>) -> Next + 'a;

/// How a driver's listeners and connections are set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The most bytes of one [`Completion::Received`].
    pub(crate) read_max: usize,
    /// How many connections may wait in the kernel to be accepted.
    pub(crate) backlog: u16,
    /// The permissions of a Unix socket's file.
    pub(crate) unix_mode: u32,
}

/// Carries out operations and reports what became of them.
pub(crate) trait Driver {
    /// A connection that has not been adopted yet. To drop it is to close it.
    type Socket;

    /// Opens listener number `listener`, not accepting yet, and returns its actual address.
    fn listen(&mut self, listener: ListenerId, address: &Address) -> io::Result<Address>;

    /// Takes `op`. Its completion comes from a later [`wait`](Self::wait), never from here.
    fn submit(&mut self, op: Op<Self::Socket>);

    /// Passes completions to `sink`, sleeping up to `timeout` for the first.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut Sink<'_, Self::Socket>,
    ) -> io::Result<()>;

    /// The engine has no other clock.
    fn clock(&self) -> Clock;

    /// Ends a [`wait`](Self::wait) from another thread.
    fn waker(&self) -> Waker;
}

/// Tells the time. In a simulation time is a number that jumps.
#[derive(Clone)]
pub(crate) struct Clock(Rc<dyn Fn() -> Instant>);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the engine's clock")]
    pub(crate) fn system() -> Self {
        Self(Rc::new(Instant::now))
    }

    pub(crate) fn virtual_time(now: impl Fn() -> Instant + 'static) -> Self {
        Self(Rc::new(now))
    }

    pub(crate) fn now(&self) -> Instant {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// Ends a driver's wait, from any thread.
#[derive(Clone)]
pub(crate) struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    pub(crate) fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
