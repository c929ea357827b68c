//! Programs of the user behind a port: each client's requests go to one of a few workers, and the replies
//! come back.
//!
//! ```text
//!  client ── frame ──▶ clients.rs ──▶ queue.rs: who is next ──▶ pool.rs: the least busy worker
//!                                                                  │ one connection for each
//!  client ◀── its ticket, in order ◀── queue.rs ◀── conns.rs ◀── frame ── worker
//! ```
//!
//! A worker is at the other end of a connection that the server has [asked for](crate::Conn::connect):
//! the loop serves it as any other, with limits of its own. All workers belong to shard 0; requests of
//! other shards are [posted](channel) there, and tickets take the replies back. Which clients may ask is
//! said by the [gate] of their shard. With the [tagged] protocol there are no replies, and a
//! [book] of clients takes the place of the queue.

mod book;
mod channel;
mod clients;
mod conns;
mod gate;
mod lines;
mod pool;
mod queue;
mod tagged;

use std::{cell::RefCell, rc::Rc, time::Duration};

use pool::Pool;

use crate::{
    address::{Address, AddressError},
    codec::{Codec, Decoded, Encode, EncodeError, FrameError},
    error::Error,
    server::Server,
    service_limits::ServiceLimits,
    target::{Target, TargetError},
    workers::{clients::WorkerClients, conns::WorkerConns},
};

/// More than may be queued for any connection: what is given to a worker has a bound of its own.
const OUTPUT_MAX: usize = i32::MAX as usize / 4;

/// How many workers there may be.
const WORKERS_MAX: usize = 256;

/// A codec whose frames are bytes, and that sends bytes: [`Lines`](crate::codec::Lines) is one.
///
/// It is implemented for all that are. Of a client that is [held back](Workers::queue), it is asked for
/// the same frame again later.
pub trait BytesCodec: for<'f> Codec<Frame<'f> = &'f [u8]> + for<'r> Encode<&'r [u8]> {}

impl<C> BytesCodec for C where C: for<'f> Codec<Frame<'f> = &'f [u8]> + for<'r> Encode<&'r [u8]> {}

/// When a worker that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// Always, but if five in a row end within a second of their start and before they were given a
    /// request, the server drains, and ends with
    /// [`Error::WorkersFailed`].
    #[default]
    UnlessFast,
    /// Always.
    Always,
}

/// How clients and a worker speak to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// A request is a frame, and the next frame of the worker is the reply.
    #[default]
    Plain,
    /// The worker knows its clients, and may speak to any of them at any time.
    ///
    /// It reads `open ID ADDRESS` (or `unix` for the address), `data ID PAYLOAD` for each request and
    /// `close ID REASON`, where the reason is `end`, `reset`, `timeout`, `limit`, `drain` or `worker`. It
    /// writes `data ID PAYLOAD`, which goes to that client, and `close ID`, which closes it. Each is one
    /// frame. One blank ends the ID, the rest is the payload, byte for byte.
    ///
    /// - A client stays with one worker: that with the fewest as it comes. IDs are never given twice, and
    ///   behind each `open` comes exactly one `close`. If the worker ends, its clients are closed.
    /// - `close ID end` says that the client has finished sending. What the worker writes for it is still
    ///   delivered until it writes `close ID`, or until [`Workers::timeout`]. Every other reason says that
    ///   the client is gone.
    /// - A client that does not take what is written for it is closed at
    ///   [`output_cap`](crate::Limits::output_cap): it never keeps the worker waiting. While a worker takes
    ///   nothing, [`Workers::queue`] lines wait for it, and then clients are held back; after
    ///   [`Workers::timeout`] the worker is replaced.
    /// - What is written for an ID that the worker does not have (any more) is dropped, and so is what is no
    ///   such frame: see [`Stats::unknown_ids`](crate::Stats::unknown_ids) and
    ///   [`Stats::bad_lines`](crate::Stats::bad_lines).
    ///
    /// [`Workers::in_flight`] and [`Workers::error`] have no meaning here.
    Tagged,
}

/// What a client gets if its request is not answered, since the worker ended or took too long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerError {
    /// A reply with this payload.
    Reply(Vec<u8>),
    /// It is closed, behind the replies to earlier requests.
    Close,
}

/// The workers of [`Server::workers`]: what they are, how many, and what they may do.
///
/// # Examples
///
/// Lines of clients are answered by two workers at the other end of Unix sockets:
///
/// ```
/// use std::time::Duration;
/// use nonforker::{Server, Workers, codec::Lines};
///
/// # fn main() -> nonforker::Result<()> {
/// let workers = Workers::at("unix:/run/classify.sock", Lines::new())?
///     .count(2)
///     .timeout(Some(Duration::from_secs(5)));
/// let server = Server::new().workers("127.0.0.1:0", Lines::new(), workers);
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Workers<W, C> {
    target: Target,
    codec: W,
    replies: Option<C>,
    protocol: Protocol,
    count: usize,
    in_flight: usize,
    queue: usize,
    timeout: Option<Duration>,
    error: WorkerError,
    restart: Restart,
}

impl<W: BytesCodec, C: BytesCodec> Workers<W, C> {
    /// One worker at this target, with the defaults of the setters below. `codec` splits what it writes
    /// into replies, and frames the requests that it reads.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if it is none.
    pub fn at<T>(target: T, codec: W) -> Result<Self, TargetError>
    where
        T: TryInto<Target, Error: Into<TargetError>>,
    {
        Ok(Self::to(target.try_into().map_err(Into::into)?, codec))
    }

    /// The same for a target that is known to be one: a [`Program`](crate::Program), for example.
    ///
    /// ```
    /// use nonforker::{Program, Server, Workers, codec::Lines};
    ///
    /// let program = Program::new("python3").args(["-u", "classify.py"]);
    /// let workers = Workers::to(program, Lines::new()).count(4);
    /// let server = Server::new().workers("127.0.0.1:0", Lines::new(), workers);
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn to(target: impl Into<Target>, codec: W) -> Self {
        Self {
            target: target.into(),
            codec,
            replies: None,
            protocol: Protocol::Plain,
            count: 1,
            in_flight: 64,
            queue: 1024,
            timeout: Some(Duration::from_secs(30)),
            error: WorkerError::Reply(b"error: the worker ended".to_vec()),
            restart: Restart::UnlessFast,
        }
    }

    /// The codec of the clients with another limit: what a reply has to be a frame of. Default: the codec of
    /// the clients, with its limit.
    #[must_use]
    pub fn replies(mut self, codec: C) -> Self {
        self.replies = Some(codec);
        self
    }

    /// How clients and workers speak to each other. Default: [`Protocol::Plain`].
    ///
    /// # Examples
    ///
    /// A program that says to everybody what one says:
    ///
    /// ```
    /// use nonforker::{Program, Protocol, Server, Workers, codec::Lines};
    ///
    /// let program = Program::new("python3").args(["-u", "chat.py"]);
    /// let workers = Workers::to(program, Lines::new()).protocol(Protocol::Tagged);
    /// let server = Server::new().workers("127.0.0.1:0", Lines::new(), workers);
    /// # let _ = server;
    /// ```
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// How many workers there are, for all shards together: from 1 to 256. Default: 1.
    #[must_use]
    pub const fn count(mut self, workers: usize) -> Self {
        self.count = workers;
        self
    }

    /// How many requests a worker is given before it has answered the first of them: at least 1.
    /// Default: 64. It is given no more either while those that it has take more than 1 MiB.
    #[must_use]
    pub const fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = requests;
        self
    }

    /// How many requests wait for a worker: while there are as many, a client whose next request comes is
    /// held back with that request, which stays where it was received, and is not received from. Default:
    /// 1,024. They have at most a sixteenth of the [memory budget](crate::Limits::memory_budget), one
    /// request aside. With [shards](crate::Shards) each has its part of both, and one request at least.
    #[must_use]
    pub const fn queue(mut self, requests: usize) -> Self {
        self.queue = requests;
        self
    }

    /// How long a worker may take, counted from when a request became the oldest that it has not answered.
    /// Then the worker is replaced. Default: 30 s. `None` is for ever.
    #[must_use]
    pub const fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// What a client gets instead of a reply if the worker that has its request ends, is too slow, or
    /// writes what is no frame. Default: the reply `error: the worker ended`.
    #[must_use]
    pub fn error(mut self, error: WorkerError) -> Self {
        self.error = error;
        self
    }

    /// When a worker that has ended is started again. Default: [`Restart::UnlessFast`]. It waits before,
    /// as a [`Reconnect`](crate::Reconnect) does, from 100 ms to 10 s.
    #[must_use]
    pub const fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// What is out of bounds, if anything is.
    fn mistake(&self) -> Option<Error> {
        let refuse = |limit, value: usize, bound: &str| {
            Some(crate::bounds::refuse(limit, value, bound.to_owned()))
        };
        match self {
            Self { count, .. } if !(1..=WORKERS_MAX).contains(count) => {
                refuse("workers", *count, "from 1 to 256")
            }
            Self { in_flight: 0, .. } => refuse("in_flight", 0, "at least 1"),
            Self { queue: 0, .. } => refuse("queue", 0, "at least 1"),
            _ => None,
        }
    }
}

impl Server {
    /// Has the frames of clients at `address` answered by workers, whatever language they are written in:
    /// each frame goes to the least busy worker, and the next frame that this worker sends is the reply.
    ///
    /// - A client's next request may go to a worker before its last reply is there. Replies go back in the
    ///   order of its requests. Clients have their turns: one that asks much does not keep another waiting.
    /// - A request that was given to a worker is given to no other. If that worker ends, or does not answer
    ///   in time, the client gets the [error](Workers::error), and the worker is
    ///   [started again](Workers::restart). Requests that were not given to it wait.
    /// - What a worker sends while it has no request is dropped and counted: see
    ///   [`Stats::unasked`](crate::Stats::unasked).
    /// - A request that the worker's codec cannot frame as one frame is not passed on: a line feed inside of
    ///   a request, if the worker reads lines. So is a reply in the other direction. Both close the client.
    /// - Limits that are for clients hold; [`answer_timeout`](crate::Limits::answer_timeout) does not.
    ///   Each worker takes one of [`max_connections`](crate::Limits::max_connections), which is kept for it.
    ///
    /// What is called for the service given last is then called for that of the clients, but
    /// [`service_limits`](Self::service_limits) would replace its own.
    #[must_use]
    pub fn workers<A, C, W>(self, address: A, codec: C, workers: Workers<W, C>) -> Self
    where
        A: TryInto<Address, Error: Into<AddressError>>,
        C: BytesCodec,
        W: BytesCodec,
    {
        if let Some(mistake) = workers.mistake() {
            return self.with_mistake(mistake);
        }
        let name = format!("workers {}", self.services());
        let (count, own) = (workers.count, workers.codec.clone());
        // One that has no time of its own for each reply has one to read.
        let patience = workers.timeout.filter(|_| workers.protocol == Protocol::Tagged);
        let pool = Pool::new(workers, codec.clone(), name.clone());
        let pool = Rc::new(RefCell::new(pool));
        // Their requests and replies are bounded here, and their time, too.
        let of_workers = ServiceLimits::new()
            .reserved_connections(count)
            .max_connections(Some(count))
            .high_watermark(OUTPUT_MAX)
            .frame_timeout(None)
            .write_timeout(patience)
            .idle_timeout(None)
            .serve_clients();
        self.service(own, WorkerConns { pool: Rc::clone(&pool) })
            .name(name.clone())
            .service_limits(of_workers)
            .service(codec, WorkerClients::new(pool))
            .name(name)
            .service_limits(ServiceLimits::new().answer_timeout(None))
            .also_on(address)
    }
}

/// `payload` as one frame of this codec.
///
/// # Errors
///
/// [`EncodeError`] if it would not be exactly one to whoever reads it.
fn framed<C: BytesCodec>(prototype: &C, payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(payload.len() + 2);
    prototype.clone().encode(payload, &mut bytes)?;
    let unframeable = EncodeError::Unframeable { what: "the end of a frame" };
    if bytes.is_empty() {
        return Err(unframeable);
    }
    match prototype.clone().decode(&bytes) {
        Ok(Decoded::Frame { frame, consumed }) if frame == payload && consumed == bytes.len() => {}
        Err(FrameError::TooLong { max }) => {
            return Err(EncodeError::TooLong { len: payload.len(), max });
        }
        _ => return Err(unframeable),
    }
    Ok(bytes)
}
