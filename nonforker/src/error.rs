//! What can go wrong, by audience: [`enum@Error`] for the code that starts the server,
//! [`CloseReason`] for the handler of a connection, [`NotConnected`] for a handler that sends to a
//! connection by its id.
//!
//! What ends a single frame is in [`codec`](crate::codec).

use std::{convert::Infallible, fmt, io};

use thiserror::Error;

use crate::{
    address::{Address, AddressError},
    codec::{EncodeError, FrameError},
    handler::Failure,
    networks::NetworksError,
    target::TargetError,
    tls::TlsError,
};

/// The result of starting or running a server.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server could not start, had to stop, or could not end in order.
///
/// What goes wrong on one connection is never the cause: it ends that one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// An address could not be understood.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The target of a [relay](crate::Server::relay) could not be understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The networks of proxies could not be understood.
    #[error(transparent)]
    Networks(#[from] NetworksError),
    /// Certificates, keys or what else TLS needs cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {hint}")]
    Listen {
        /// Where it should have listened.
        address: Address,
        /// What to do about it, in a phrase.
        hint: String,
        /// What the system said.
        source: io::Error,
    },
    /// A listener that was given to [`Server::serve_on`](crate::Server::serve_on) cannot be served.
    #[error("the listener that was given cannot be served")]
    GivenListener(#[source] io::Error),
    /// A limit is out of its bounds, which [`Limits::check`](crate::Limits::check) lists.
    #[error("{limit}: {value} is {bound}")]
    Limits {
        /// The setter of the limit: `"read_per_turn"`.
        limit: &'static str,
        /// What it was set to, in words: `"1TiB"`.
        value: String,
        /// What it may be, and why: `"out of bounds: at most 64MiB, since …"`.
        bound: String,
    },
    /// There is nothing to serve: [`Server::serve`](crate::Server::serve) was never called.
    #[error("nothing to serve: give the server an address, a codec and a handler")]
    NothingToServe,
    /// [`Handle::set_limits`](crate::Handle::set_limits) was called before the server was bound.
    #[error("the server is not bound yet: set its limits with Server::limits")]
    NotBound,
    /// A [`Handle`](crate::Handle) was asked to change a listener that does not exist.
    #[error("there is no listener {listener}: there are {listeners}, counted from 0")]
    NoListener {
        /// The index.
        listener: usize,
        /// How many there are.
        listeners: usize,
    },
    /// The kernel's event queue could not be created, or failed.
    #[error("the event queue failed")]
    Driver(#[source] io::Error),
    /// io_uring was asked for, and this system does not have it, or not what is needed of it.
    #[error("io_uring cannot be used here; use the poll driver")]
    NoUring(#[source] io::Error),
    /// The signals could not be taken over.
    #[error("cannot take over the signals")]
    Signals(#[source] io::Error),
    /// The thread for [`Server::spawn`](crate::Server::spawn) could not be started.
    #[error("the server's thread could not be started")]
    Thread(#[source] io::Error),
    /// A server that was made for a [shard](crate::Shards) is not like that of the first shard.
    #[error("shard {shard} is made differently: {what}")]
    ShardDiffers {
        /// The number of the shard, from 1 on.
        shard: usize,
        /// What differs, in words.
        what: String,
    },
    /// A [shard](crate::Shards) panicked outside of a handler: when its server was made, or by a
    /// defect.
    #[error("shard {shard} panicked: {message}")]
    ShardPanicked {
        /// The number of the shard, from 0 on.
        shard: usize,
        /// What the panic said.
        message: String,
    },
    /// [`Handler::started`](crate::Handler::started) returned an error, or panicked.
    #[error("the handler could not start: {0}")]
    Handler(Failure),
    /// The [workers](crate::Server::workers) of the server cannot be started, or end as soon as they are.
    #[error("the worker {worker} does not stay: {reason}")]
    WorkersFailed {
        /// The worker, as it was given.
        worker: String,
        /// How the last one ended.
        reason: String,
    },
    /// The server has ended, and took something from clients: its drain took longer than
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout), or it was
    /// [stopped](crate::Handle::stop).
    ///
    /// A connection is cut off if the server ended it with a complete request in hand that no
    /// handler had been given, with bytes that the kernel had not taken, or with an open
    /// [ticket](crate::Ticket). A request that a handler was given and for which it took no ticket
    /// counts as handled, also if the handler had yet to answer it. What the
    /// kernel had received and the server had not looked at is not counted.
    #[error("connections cut off with a request unhandled or bytes unsent: {connections}")]
    CutOff {
        /// How many connections were cut off: one or more.
        connections: usize,
    },
}

/// Why a connection ended. [`Handler::closed`](crate::Handler::closed) gets it, once.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer finished sending, and everything it asked for has been answered.
    PeerFinished,
    /// The connection that was [asked for](crate::Conn::connect) could not be made: nobody takes it, the
    /// name of the target cannot be resolved, there is no place for it, it was late, or the server
    /// ended meanwhile. [`open`](crate::Handler::open) was not called for it.
    ConnectFailed(io::Error),
    /// The connection broke: reset by the peer, unreachable, or another error of the network.
    Broken(io::Error),
    /// The peer broke the rules of TLS, or did not complete the handshake in time, or has nothing in
    /// common with this server. An alert told it so, if there is one for that.
    Tls(TlsError),
    /// The peer finished without the close_notify of TLS: somebody else may have cut its stream off. Its
    /// complete requests were answered; what began behind them is no request.
    Truncated,
    /// The peer's bytes could not be split into frames.
    Rejected(FrameError),
    /// A reply could not be turned into bytes.
    Encode(EncodeError),

    /// The handler called [`Conn::close`](crate::Conn::close).
    ByHandler,
    /// The handler called [`Conn::abort`](crate::Conn::abort).
    Aborted,
    /// The handler returned an error.
    HandlerFailed(Failure),
    /// The handler or the codec panicked. The payload went to the panic hook.
    Panicked,
    /// The codec took more bytes than there were, or none, which it must not: see
    /// [`Decoded`](crate::codec::Decoded). Nothing was handled that it gave with that.
    CodecDefect,

    /// A frame began to arrive and was not complete within
    /// [`Limits::frame_timeout`](crate::Limits::frame_timeout).
    FrameTimeout,
    /// The peer took nothing of what was queued for
    /// [`Limits::write_timeout`](crate::Limits::write_timeout).
    WriteTimeout,
    /// No request was ever completed, and nothing was ever sent, within
    /// [`Limits::unused_timeout`](crate::Limits::unused_timeout); or others waited for a place, and of
    /// all connections on which no request was ever completed this was the oldest.
    Unused,
    /// Nothing was received or sent for [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    IdleTimeout,
    /// A [ticket](crate::Ticket) was dropped and not answered.
    Unanswered,
    /// A [ticket](crate::Ticket) was not answered within
    /// [`Limits::answer_timeout`](crate::Limits::answer_timeout).
    AnswerTimeout,
    /// Others pushed more at the peer than it took, beyond
    /// [`Limits::output_cap`](crate::Limits::output_cap).
    OutputOverflow,
    /// It held the most memory when the server ran out of
    /// [`Limits::memory_budget`](crate::Limits::memory_budget); or that was short, others waited,
    /// and it took nothing of what it held.
    Evicted,

    /// The connection to which this one was [relayed](crate::Conn::relay_to) has ended, and not because
    /// both peers had finished.
    RelayEnded,

    /// The relay ended it on purpose, to see what becomes of that: see
    /// [`RelayFaults`](crate::RelayFaults).
    RelayFault,

    /// The server drained.
    Drained,
    /// The server stopped at once, or its drain took too long.
    Stopped,
    /// A defect in this crate: an event that cannot happen. Please report it.
    Defect,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerFinished => f.write_str("the peer has finished"),
            Self::ConnectFailed(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(error) => write!(f, "connection broken: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Truncated => f.write_str("the peer's stream was cut off: no close_notify"),
            Self::Rejected(error) => write!(f, "{error}"),
            Self::Encode(error) => write!(f, "{error}"),
            Self::ByHandler => f.write_str("closed by the handler"),
            Self::Aborted => f.write_str("aborted by the handler"),
            Self::HandlerFailed(error) => write!(f, "the handler failed: {error}"),
            Self::Panicked => f.write_str("the handler panicked"),
            Self::CodecDefect => f.write_str("a defect in the codec: it miscounted its bytes"),
            Self::FrameTimeout => f.write_str("a frame did not become complete in time"),
            Self::WriteTimeout => f.write_str("the peer did not take its replies in time"),
            Self::Unused => f.write_str("never used"),
            Self::IdleTimeout => f.write_str("idle for too long"),
            Self::Unanswered => f.write_str("a ticket was dropped and not answered"),
            Self::AnswerTimeout => f.write_str("a request was not answered in time"),
            Self::OutputOverflow => f.write_str("more was pushed at the peer than it took"),
            Self::Evicted => f.write_str("evicted: it held the most memory"),
            Self::RelayEnded => f.write_str("the other connection of the relay has ended"),
            Self::RelayFault => f.write_str("a fault of a relay, made on purpose"),
            Self::Drained => f.write_str("the server drained"),
            Self::Stopped => f.write_str("the server stopped"),
            Self::Defect => f.write_str("a defect in nonforker, please report it"),
        }
    }
}

/// Why a connection was not [asked for](crate::Conn::connect). What goes wrong later is a
/// [`CloseReason::ConnectFailed`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The target could not be understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No service has a handler of the type that was asked for, or several have.
    #[error(transparent)]
    NoSuchService(#[from] NoSuchService),
    /// The server ends, and nobody is left who may need the connection: it drains and has no client any
    /// more, or it has stopped.
    #[error("the server ends, and makes no more connections")]
    Ending,
}

impl From<Infallible> for ConnectError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The connection is gone, closes, or is not one of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such connection: it has closed, or belongs to another service")]
#[non_exhaustive]
pub struct NotConnected;

/// The connection of a [ticket](crate::Ticket) has closed, or the server has ended: nobody waits for
/// the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("nobody waits for this answer: the connection has closed")]
#[expect(clippy::exhaustive_structs, reason = "to be matched as `Err(Gone)`")]
pub struct Gone;

/// Why a service of the server cannot be found by the type of its handler, or by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoSuchService {
    /// None has a handler of this type, and this name if one was asked for.
    #[error("no service of this server has a handler of this type and name")]
    Unknown,
    /// More than one has. Two closures over one codec do: name the services.
    #[error("several services of this server have a handler of this type: name them")]
    Ambiguous,
}

/// Why a closure was not [posted](crate::Remote::post) to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PostError {
    /// As many closures as [`Limits::remote_max`](crate::Limits::remote_max) wait to be called.
    #[error("the server has not called as many closures as may wait")]
    Full,
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
}

/// Why a connection cannot [subscribe](crate::Conn::subscribe) to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It has subscribed to as many topics as a connection can: 1,000.
    #[error("too many topics: a connection can subscribe to {max}")]
    TooMany {
        /// How many there can be.
        max: usize,
    },
    /// The topic is longer than 256 bytes.
    #[error("topic too long: {length} bytes, at most {max}")]
    TooLong {
        /// The length of the topic, in bytes.
        length: usize,
        /// The longest that there can be, in bytes.
        max: usize,
    },
}

/// A connection has 16 timers, or a service 1,000, and cannot have another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many timers: at most {max} can wait")]
#[non_exhaustive]
pub struct TooManyTimers {
    /// How many there can be.
    pub max: usize,
}
