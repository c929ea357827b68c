//! The connections of a service, for its own handler and for those of other services.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use crate::{
    address::Peer,
    alarms::{Alarms, OF_SERVICE, Run, TimerId},
    codec::{Encode, Raw},
    conn::output::Origin,
    context::{ConnId, Member},
    engine::{
        core::Core,
        desk::find,
        slot::{ServiceId, Slot},
        table::{Entry, Table},
    },
    error::{CloseReason, Error, NoSuchService, NotConnected, TooManyTimers},
    handler::{Handler, IntoOutcome, Outcome},
    topics::Own,
};

/// What is called once for a service, or again and again.
type Once<H> = Box<dyn FnOnce(&mut H, &mut Connections<'_, H>) -> Outcome>;
type Every<H> = Box<dyn FnMut(&mut H, &mut Connections<'_, H>) -> Outcome>;

/// The timers of a service.
pub(crate) type ServiceAlarms<H> = Alarms<Once<H>, Every<H>>;

/// The connections of one service: [all others](crate::Conn::others) than the one whose callback this
/// is, or all where there is none.
///
/// A connection is found here from [`Handler::open`] on, and until it closes.
pub struct Connections<'a, H: Handler> {
    pub(crate) core: &'a mut Core,
    pub(crate) table: &'a mut Table,
    pub(crate) service: ServiceId,
    /// How many of those that are counted are not among them: the one whose callback this is.
    own_count: usize,
    /// That connection, unless its output is lent or it is of another service.
    pub(crate) own: Option<Own<'a>>,
    handler: PhantomData<fn(H)>,
}

impl<'a, H: Handler> Connections<'a, H> {
    pub(crate) const fn new(
        core: &'a mut Core,
        table: &'a mut Table,
        service: ServiceId,
        own_count: usize,
    ) -> Self {
        Self { core, table, service, own_count, own: None, handler: PhantomData }
    }

    /// The same with the connection whose callback this is at hand.
    pub(crate) fn with_own(self, own: Own<'a>) -> Self {
        Self { own: Some(own), ..self }
    }

    /// The connections of another service of this server, found by the type of its handler.
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has such a handler, or if several do.
    pub fn service<S: Handler>(self) -> Result<Connections<'a, S>, NoSuchService> {
        self.find(None)
    }

    /// The same for a service that was given this [name](crate::Server::name).
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has this name and such a handler, or if several do.
    pub fn service_named<S: Handler>(
        self,
        name: &str,
    ) -> Result<Connections<'a, S>, NoSuchService> {
        self.find(Some(name))
    }

    fn find<S: Handler>(self, name: Option<&str>) -> Result<Connections<'a, S>, NoSuchService> {
        let services = self.core.desks.iter().map(|desk| (desk.handler, desk.name.as_deref()));
        let service = find::<S, _>(services, name)?;
        let (own_count, own) =
            if service == self.service { (self.own_count, self.own) } else { (0, None) };
        Ok(Connections { own, ..Connections::new(self.core, self.table, service, own_count) })
    }
}

impl<H: Handler> Connections<'_, H> {
    /// The same connections, for a call that takes them.
    pub(crate) fn again(&mut self) -> Connections<'_, H> {
        Connections::new(self.core, self.table, self.service, self.own_count)
    }

    /// The number of the [shard](crate::Shards) that these connections are of, from 0 on; 0 without
    /// shards. [`Remote::shard`](crate::Remote::shard) reaches the others.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.core.shard.into()
    }

    /// How many connections there are, those included that close just now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.desks[self.service as usize].open - self.own_count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of all connections that are not closing: a list of its own, so that one may act while
    /// going through it. In the order of the places that they have taken.
    pub fn ids(&mut self) -> Vec<ConnId> {
        let mut ids = Vec::with_capacity(self.len());
        self.for_each(|other| ids.push(other.id()));
        ids
    }

    /// Calls a closure with each connection that is not closing, without an allocation.
    pub fn for_each(&mut self, mut call: impl FnMut(&mut Other<'_, H>)) {
        let core = &mut *self.core;
        for entry in self.table.of_service(self.service) {
            if let Ok(mut other) = Other::new(core, entry) {
                call(&mut other);
            }
        }
    }

    /// One connection.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if it has closed, or takes no more replies because it closes; if it is the one
    /// whose callback this is; or if it belongs to another service.
    pub fn get(&mut self, id: ConnId) -> Result<Other<'_, H>, NotConnected> {
        let entry = id
            .token_on(self.core.shard)
            .and_then(|token| self.table.entry(token))
            .ok_or(NotConnected)?;
        if entry.slot.service() != self.service {
            return Err(NotConnected);
        }
        Other::new(self.core, entry)
    }

    /// Has a closure called once, `after` from this call, with the handler and all connections.
    /// Until then it can be [cancelled](Self::cancel).
    ///
    /// It is never early, and does not hold up a drain; it is not called once the server has ended. An
    /// error that it returns is logged, and so is a panic. No connection ends for either.
    ///
    /// # Errors
    ///
    /// [`TooManyTimers`] if 1,000 timers of this service wait already.
    pub fn after<F, R>(&mut self, after: Duration, call: F) -> Result<TimerId, TooManyTimers>
    where
        F: FnOnce(&mut H, &mut Connections<'_, H>) -> R + 'static,
        R: IntoOutcome,
    {
        let once: Once<H> = Box::new(move |handler, all| call(handler, all).into_outcome());
        self.set_timer(after, Run::Once(once))
    }

    /// Has a closure called again and again, each `period` from this call on, until it is
    /// [cancelled](Self::cancel).
    ///
    /// It does not drift: a call that comes late does not put off the next. Calls that are missed,
    /// because a handler took longer than a period, are left out. A period below 1 ms counts as 1 ms.
    /// For the rest see [`after`](Self::after).
    ///
    /// # Errors
    ///
    /// [`TooManyTimers`] if 1,000 timers of this service wait already.
    ///
    /// # Examples
    ///
    /// A game that moves twenty times a second, also without players:
    ///
    /// ```
    /// use std::time::Duration;
    /// use nonforker::{Conn, Connections, Handler, Outcome, codec::Lines};
    ///
    /// #[derive(Default)]
    /// struct Game {
    ///     moves: u64,
    /// }
    ///
    /// impl Handler for Game {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
    ///         all.every(Duration::from_millis(50), |game, all| {
    ///             game.moves += 1;
    ///             all.for_each(|player| player.send(game.moves.to_string()));
    ///         })?;
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Game::default());
    /// ```
    pub fn every<F, R>(&mut self, period: Duration, mut call: F) -> Result<TimerId, TooManyTimers>
    where
        F: FnMut(&mut H, &mut Connections<'_, H>) -> R + 'static,
        R: IntoOutcome,
    {
        let every: Every<H> = Box::new(move |handler, all| call(handler, all).into_outcome());
        self.set_timer(period, Run::Every(every))
    }

    fn set_timer(
        &mut self,
        after: Duration,
        run: Run<Once<H>, Every<H>>,
    ) -> Result<TimerId, TooManyTimers> {
        let at = self.core.timer_after(after);
        let mut set = self.core.timers_set;
        let id = self.alarms().set(&mut set, OF_SERVICE, at, after, run);
        self.core.timers_set = set;
        self.note_earliest();
        id
    }

    /// Forgets a timer of this service. Returns whether it was still waiting.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        let was_waiting = self.alarms().cancel(timer);
        self.note_earliest();
        was_waiting
    }

    /// A callback for no connection failed, or panicked.
    pub(crate) fn service_failed(
        &mut self,
        callback: &str,
        failed: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        self.core.service_failed(self.service, callback, failed);
    }

    pub(crate) fn alarms(&mut self) -> &mut ServiceAlarms<H> {
        let desk = &mut self.core.desks[self.service as usize];
        desk.timers.downcast_mut().expect("a service is found by the type of its handler")
    }

    /// Tells the engine when the first timer is due.
    pub(crate) fn note_earliest(&mut self) {
        let due = self.alarms().earliest();
        self.core.desks[self.service as usize].due = due;
        self.core.timers_moved = true;
    }

    /// The time of this call, which in a simulation is not the system's.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.instant()
    }
}

impl<H: Handler> fmt::Debug for Connections<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A connection other than the one whose callback this is.
pub struct Other<'a, H: Handler> {
    core: &'a mut Core,
    slot: &'a mut Slot,
    member: &'a mut Member<H>,
}

impl<'a, H: Handler> Other<'a, H> {
    fn new(core: &'a mut Core, entry: &'a mut Entry) -> Result<Self, NotConnected> {
        let Entry { slot, member } = entry;
        if !slot.conn.state().handles() {
            return Err(NotConnected);
        }
        let member = member.downcast_mut().ok_or(NotConnected)?;
        Ok(Self { core, slot, member })
    }

    /// Queues a reply, framed by the connection's own codec.
    ///
    /// If the peer there does not keep up, so that more than
    /// [`Limits::output_cap`](crate::Limits::output_cap) beyond the high watermark is queued for it,
    /// *that* connection is closed. So it is if the codec cannot frame the reply.
    pub fn send<R>(&mut self, reply: R)
    where
        H::Codec: Encode<R>,
    {
        let mut output = self.core.begin_output(self.slot, Origin::Other);
        // If the codec panics the queue goes back without half a reply, and it is the connection
        // whose callback this is that ends.
        let pushed = catch_unwind(AssertUnwindSafe(|| {
            output.push(&mut self.slot.conn, &mut self.member.codec, reply);
        }));
        if pushed.is_err() {
            output.take_back();
        }
        self.core.end_output(self.slot, output, 0);
        if let Err(payload) = pushed {
            resume_unwind(payload);
        }
    }

    /// Queues bytes that were framed before: a reply, however long.
    pub(crate) fn pass_on(&mut self, framed: &[u8]) {
        let mut output = self.core.begin_output(self.slot, Origin::Reply);
        output.push(&mut self.slot.conn, &mut Raw::new(), framed);
        self.core.end_output(self.slot, output, 0);
    }

    /// The same for bytes that the peer has not asked for, which close a connection that does not keep up.
    pub(crate) fn push_framed(&mut self, framed: &[u8]) {
        let mut output = self.core.begin_output(self.slot, Origin::Other);
        output.push(&mut self.slot.conn, &mut Raw::new(), framed);
        self.core.end_output(self.slot, output, 0);
    }

    /// Closes the connection since its handler cannot go on with it.
    pub(crate) fn fail(&mut self, why: &'static str) {
        self.core.handler_failed(self.slot, why.into());
    }

    /// Closes the connection since more was pushed at it than it takes.
    pub(crate) fn overflow(&mut self) {
        self.core.fail(self.slot, CloseReason::OutputOverflow, true);
    }

    /// Closes the connection after what is queued has been sent, as
    /// [`Conn::close`](crate::Conn::close) does.
    pub fn close(&mut self) {
        self.core.close(self.slot, CloseReason::ByHandler);
    }

    /// Ends the connection at once. What is queued is lost and the peer sees a reset.
    pub fn abort(&mut self) {
        self.core.fail(self.slot, CloseReason::Aborted, true);
    }

    /// Handles no more frames of it until [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.core.pause(self.slot);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.core.resume(self.slot);
    }

    /// How long the connection may be silent, as [`Conn::set_idle_timeout`](crate::Conn::set_idle_timeout)
    /// says.
    ///
    /// # Errors
    ///
    /// [`Error::Limits`] if it is longer than 100 years. Nothing changes then.
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.core.set_idle_timeout(self.slot, timeout)
    }

    /// The connection's id.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        ConnId::new(self.core.shard, self.slot.token())
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.slot.peer()
    }

    /// What the handler remembers for the connection.
    #[must_use]
    pub fn session(&self) -> &H::Session {
        &self.member.session
    }

    /// What the handler remembers for the connection, to be changed.
    pub fn session_mut(&mut self) -> &mut H::Session {
        &mut self.member.session
    }

    /// How many bytes are queued for the peer or in flight to it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.slot.conn.queued()
    }
}

impl<H: Handler> fmt::Debug for Other<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("id", &self.id()).field("peer", &self.peer()).finish()
    }
}
