//! What a handler holds during one call: its connection, and what it may ask for.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, Instant},
};

use slotmap::Key;

use crate::{
    address::{Address, Peer},
    alarms::{Alarms, OF_CONNECTION, Run, TimerId},
    codec::{Encode, Raw},
    conn::{
        output::{Origin, Output},
        state::Incoming,
    },
    connections::Connections,
    driver::Token,
    engine::{
        core::Core,
        service::Scope,
        slot::Slot,
        table::{Entry, Table},
    },
    error::{CloseReason, Error, NoSuchService, TooManyTimers},
    handler::{Handler, IntoOutcome, Outcome},
    parts::{Parts, Replies},
    topics::Own,
};

/// Names a connection for as long as the server runs. An id that has closed never names another.
///
/// It also says on which [shard](crate::Shards) of the server the connection is. Shown, it is
/// `7.3`, and `2:7.3` on shard number 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    shard: u16,
    token: Token,
}

impl ConnId {
    pub(crate) const fn new(shard: u16, token: Token) -> Self {
        Self { shard, token }
    }

    /// The number of its shard.
    pub(crate) const fn shard(self) -> usize {
        self.shard as usize
    }

    /// The connection's token, if it is on this shard.
    pub(crate) const fn token_on(self, shard: u16) -> Option<Token> {
        if self.shard == shard { Some(self.token) } else { None }
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.token.data().as_ffi();
        // Generations are odd while a slot is taken: 1, 3, 5.
        if self.shard > 0 {
            write!(f, "{}:", self.shard)?;
        }
        write!(f, "{}.{}", bits & 0xffff_ffff, bits >> 33)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// What is called once for a connection, or again and again.
type Once<H> = Box<dyn FnOnce(&mut H, &mut Conn<'_, H>) -> Outcome>;
type Every<H> = Box<dyn FnMut(&mut H, &mut Conn<'_, H>) -> Outcome>;

/// What a service keeps for one of its connections.
#[derive(Debug)]
pub(crate) struct Member<H: Handler> {
    pub(crate) codec: H::Codec,
    pub(crate) session: H::Session,
    pub(crate) alarms: Alarms<Once<H>, Every<H>>,
}

impl<H: Handler> Member<H> {
    pub(crate) fn new(codec: H::Codec) -> Self {
        Self { codec, session: H::Session::default(), alarms: Alarms::default() }
    }
}

/// One connection, for the duration of a callback.
///
/// What is sent is queued, and leaves in one write when the callbacks of this turn are done. To
/// send never blocks and never fails: if the connection ends meanwhile,
/// [`Handler::closed`] tells so.
///
/// As [`io::Write`] it takes raw bytes that are sent as they are, without the codec's framing.
pub struct Conn<'c, H: Handler> {
    pub(crate) core: &'c mut Core,
    pub(crate) table: &'c mut Table,
    pub(crate) slot: &'c mut Slot,
    pub(crate) member: &'c mut Member<H>,
    pub(crate) output: Output,
}

impl<'c, H: Handler> Conn<'c, H> {
    /// Begins callbacks for a connection. Nothing if it has no session, since to make one panicked.
    #[inline(always)]
    pub(crate) fn begin(scope: &'c mut Scope<'_>, origin: Origin) -> Option<Self> {
        let Scope { core, table, entry: Entry { slot, member } } = scope;
        let member = member.downcast_mut::<Member<H>>()?;
        let output = core.begin_output(slot, origin);
        Some(Self { core, table, slot, member, output })
    }
}

impl<H: Handler> Conn<'_, H> {
    /// Queues a reply, framed by the codec.
    ///
    /// A reply that the codec cannot frame ends the connection with
    /// [`CloseReason::Encode`]. Nothing is queued once the connection is closing.
    #[inline]
    pub fn send<R>(&mut self, reply: R)
    where
        H::Codec: Encode<R>,
    {
        self.output.push(&mut self.slot.conn, &mut self.member.codec, reply);
    }

    /// Queues bytes that were framed before.
    pub(crate) fn pass_on(&mut self, framed: &[u8]) {
        self.output.push(&mut self.slot.conn, &mut Raw::new(), framed);
    }

    /// Closes the connection after what is queued has been sent and open
    /// [tickets](Self::defer) are answered. No more frames are handled.
    ///
    /// The peer really gets the last bytes: the close lingers until the peer has closed too,
    /// bounded by [`Limits::linger_timeout`](crate::Limits::linger_timeout).
    pub fn close(&mut self) {
        let reason = match self.slot.conn.incoming() {
            Incoming::Told => CloseReason::PeerFinished,
            _ => CloseReason::ByHandler,
        };
        self.core.close(self.slot, reason);
    }

    /// Ends the connection at once. What is queued is lost and the peer sees a reset.
    pub fn abort(&mut self) {
        self.core.fail(self.slot, CloseReason::Aborted, true);
    }

    /// Handles no more frames until [`resume`](Self::resume), and soon reads no more either, so
    /// that the peer has to wait.
    pub fn pause(&mut self) {
        self.core.pause(self.slot);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.core.resume(self.slot);
    }

    /// How long this connection may be silent in both directions, in place of
    /// [`Limits::idle_timeout`](crate::Limits::idle_timeout) or that of its service; `None` for ever.
    /// It counts from this call on.
    ///
    /// # Errors
    ///
    /// [`Error::Limits`] if it is longer than 100 years. Nothing changes then.
    ///
    /// # Examples
    ///
    /// Who has subscribed to something may be silent for an hour:
    ///
    /// ```
    /// use std::time::Duration;
    /// use nonforker::{Limits, Outcome, Server, codec::Lines};
    ///
    /// let server = Server::new()
    ///     .limits(Limits::new().idle_timeout(Some(Duration::from_secs(30))))
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| -> Outcome {
    ///         if line == b"subscribe" {
    ///             conn.set_idle_timeout(Some(Duration::from_secs(3600)))?;
    ///         }
    ///         Ok(())
    ///     });
    /// # let _ = server;
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.core.set_idle_timeout(self.slot, timeout)
    }

    /// Has a closure called once, `after` from this call, with the handler and this connection. Until
    /// then it can be [cancelled](Self::cancel).
    ///
    /// It is never early. On an idle machine it is late by less than 0.2 ms, and by as long as
    /// handlers take that run when it is due. It is not called once the connection closes, and it
    /// does not hold up a drain. An error that it returns, or a panic, ends the connection.
    ///
    /// # Errors
    ///
    /// [`TooManyTimers`] if 16 timers of this connection wait already.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use nonforker::{Outcome, Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| -> Outcome {
    ///     let line = line.to_vec();
    ///     conn.after(Duration::from_millis(100), move |_, conn| conn.send(line))?;
    ///     Ok(())
    /// });
    /// # let _ = server;
    /// ```
    pub fn after<F, R>(&mut self, after: Duration, call: F) -> Result<TimerId, TooManyTimers>
    where
        F: FnOnce(&mut H, &mut Conn<'_, H>) -> R + 'static,
        R: IntoOutcome,
    {
        let once: Once<H> = Box::new(move |handler, conn| call(handler, conn).into_outcome());
        self.set_timer(after, Run::Once(once))
    }

    /// Has a closure called again and again, each `period` from this call on, until it is
    /// [cancelled](Self::cancel) or the connection closes.
    ///
    /// It does not drift: a call that comes late does not put off the next. Calls that are missed,
    /// because a handler took longer than a period, are left out. A period below 1 ms counts as 1 ms.
    /// For the rest see [`after`](Self::after).
    ///
    /// # Errors
    ///
    /// [`TooManyTimers`] if 16 timers of this connection wait already.
    pub fn every<F, R>(&mut self, period: Duration, mut call: F) -> Result<TimerId, TooManyTimers>
    where
        F: FnMut(&mut H, &mut Conn<'_, H>) -> R + 'static,
        R: IntoOutcome,
    {
        let every: Every<H> = Box::new(move |handler, conn| call(handler, conn).into_outcome());
        self.set_timer(period, Run::Every(every))
    }

    fn set_timer(
        &mut self,
        after: Duration,
        run: Run<Once<H>, Every<H>>,
    ) -> Result<TimerId, TooManyTimers> {
        let at = self.core.timer_after(after);
        let set = &mut self.core.timers_set;
        let id = self.member.alarms.set(set, OF_CONNECTION, at, after, run)?;
        if let Some(at) = self.member.alarms.earliest()
            && self.slot.conn.state().handles()
        {
            self.core.arm_user(self.slot, Some(at));
        }
        Ok(id)
    }

    /// Forgets a timer of this connection. Returns whether it was still waiting.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        let was_waiting = self.member.alarms.cancel(timer);
        self.core.arm_user(self.slot, self.member.alarms.earliest());
        was_waiting
    }

    /// The connection's id, by which other callbacks [find](Connections::get) it.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        ConnId::new(self.core.shard, self.slot.token())
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.slot.peer()
    }

    /// The proxy through which the client came, on a listener that speaks the
    /// [PROXY protocol](crate::Server::proxy_protocol). Then [`peer`](Self::peer) is the client, or the
    /// proxy itself if it did not say who the client is.
    #[must_use]
    pub fn via(&self) -> Option<Peer> {
        self.slot.via()
    }

    /// The address of the listener that accepted this connection: one of
    /// [`Bound::addresses`](crate::Bound::addresses). `None` for a connection that this server opened.
    #[must_use]
    pub fn listener(&self) -> Option<&Address> {
        if self.slot.is_outgoing() {
            return None;
        }
        self.core.came_by.address(self.slot.token(), self.slot.service())
    }

    /// What the handler remembers for this connection.
    #[must_use]
    pub fn session(&self) -> &H::Session {
        &self.member.session
    }

    /// What the handler remembers for this connection, to be changed.
    pub fn session_mut(&mut self) -> &mut H::Session {
        &mut self.member.session
    }

    /// The connection's codec: its mode can change between two frames. What follows in bytes that
    /// have already been received is decoded in the new mode.
    pub fn codec(&mut self) -> &mut H::Codec {
        &mut self.member.codec
    }

    /// All other connections of this service.
    ///
    /// # Examples
    ///
    /// Everybody else hears what one says:
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| {
    ///     conn.others().for_each(|other| other.send(line));
    /// });
    /// # let _ = server;
    /// ```
    pub fn others(&mut self) -> Connections<'_, H> {
        let own = usize::from(self.is_counted());
        let service = self.slot.service();
        let Self { core, table, slot, member, output } = self;
        let here = Own { slot, output, member: &mut **member };
        Connections::new(core, table, service, own).with_own(here)
    }

    /// Whether the connection is counted as open: `closed` has not been called.
    const fn is_counted(&self) -> bool {
        self.slot.is_open()
    }

    /// The session, the output and the other connections, to be used at the same time.
    ///
    /// # Examples
    ///
    /// What the session has collected goes to everybody else, without a copy:
    ///
    /// ```
    /// use nonforker::{Conn, Handler, Outcome, Parts, codec::Lines};
    ///
    /// struct Relay;
    ///
    /// impl Handler for Relay {
    ///     type Codec = Lines;
    ///     type Session = Vec<u8>;
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         let Parts { session, mut output, mut others, .. } = conn.parts();
    ///         session.extend_from_slice(line);
    ///         others.for_each(|other| other.send(&session[..]));
    ///         output.send("passed on");
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Relay);
    /// ```
    pub fn parts(&mut self) -> Parts<'_, H> {
        let own = usize::from(self.is_counted());
        let service = self.slot.service();
        let Member { codec, session, .. } = self.member;
        let output = Replies::new(codec, &mut self.output, &mut self.slot.conn);
        Parts { session, output, others: Connections::new(self.core, self.table, service, own) }
    }

    /// The connections of another service of this server, found by the type of its handler.
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has such a handler, or if several do: two closures over one
    /// codec are of one type. Then give them [names](crate::Server::name).
    pub fn service<S: Handler>(&mut self) -> Result<Connections<'_, S>, NoSuchService> {
        self.others().service()
    }

    /// The same for a service that was given this [name](crate::Server::name).
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has this name and such a handler, or if several do.
    pub fn service_named<S: Handler>(
        &mut self,
        name: &str,
    ) -> Result<Connections<'_, S>, NoSuchService> {
        self.others().service_named(name)
    }

    /// How many bytes are queued for the peer or in flight to it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.output.queued()
    }

    /// The time of this call, which in a simulation is not the system's.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.instant()
    }
}

impl<H: Handler> Write for Conn<'_, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.push(&mut self.slot.conn, &mut Raw::new(), bytes);
        Ok(bytes.len())
    }

    /// Does nothing: what is queued leaves by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<H: Handler> fmt::Debug for Conn<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).field("peer", &self.peer()).finish()
    }
}
