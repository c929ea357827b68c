//! Connections that handlers ask for.

use std::{rc::Rc, sync::Arc};

use crate::{
    alarms::Alarms,
    connections::Connections,
    context::{Conn, ConnId, Member},
    engine::{desk::find, slot::Slot, table::Entry},
    error::{CloseReason, ConnectError, NotConnected},
    handler::Handler,
    relay_faults::RelayFaults,
    target::Target,
};

impl<H: Handler> Connections<'_, H> {
    /// Connects to `target`, as a client, in the loop of this server: the connection belongs to the
    /// service with the handler `S`, and is served as one that was accepted is. Returns at once.
    ///
    /// The service may have a listener, or [none](crate::Server::service). When the connection stands,
    /// its [`open`](Handler::open) is called, and from then on it is found among its connections. If it
    /// cannot be made, [`closed`](Handler::closed) is called with
    /// [`CloseReason::ConnectFailed`]: the only case of `closed`
    /// without `open`. Both have this `session`, and neither is called from here. It has
    /// [`Limits::connect_timeout`](crate::Limits::connect_timeout) to succeed.
    ///
    /// What holds for connections that were accepted holds for this one: limits, places (without one it
    /// fails at once), the memory budget, fairness, timeouts. These differ:
    ///
    /// - [`unused_timeout`](crate::Limits::unused_timeout) does not end it, and it does not go to make
    ///   room for others. [`idle_timeout`](crate::Limits::idle_timeout), if there is one, does end it.
    /// - [`max_connections_per_ip`](crate::Limits::max_connections_per_ip) does not count it.
    /// - A [drain](crate::Handle::drain) ends it, as it ends others, but only after the last connection
    ///   that was accepted has closed: an answer may depend on it. Until then it may also be asked for.
    /// - [`Stats::outgoing`](crate::Stats::outgoing) counts it, and `accepted` does not.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if `target` is none, if no service has such a handler, or several have, or if the
    /// server ends and no client is left.
    ///
    /// # Examples
    ///
    /// Each line goes to a server behind this one, by a connection of its own:
    ///
    /// ```
    /// use nonforker::{CloseReason, Conn, ConnId, Handler, Outcome, Server, codec::Lines};
    ///
    /// struct Front;
    ///
    /// impl Handler for Front {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         let call = Call { client: Some(conn.id()), question: line.to_vec() };
    ///         conn.connect::<Back>("127.0.0.1:7", call)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// #[derive(Default)]
    /// struct Call {
    ///     client: Option<ConnId>,
    ///     question: Vec<u8>,
    /// }
    ///
    /// struct Back;
    ///
    /// impl Back {
    ///     fn answer(conn: &mut Conn<'_, Self>, answer: &[u8]) -> Outcome {
    ///         if let Some(client) = conn.session_mut().client.take()
    ///             && let Ok(mut client) = conn.service::<Front>()?.get(client)
    ///         {
    ///             client.send(answer);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handler for Back {
    ///     type Codec = Lines;
    ///     type Session = Call;
    ///
    ///     fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
    ///         let question = std::mem::take(&mut conn.session_mut().question);
    ///         conn.send(&question[..]);
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         conn.close();
    ///         Self::answer(conn, line)
    ///     }
    ///
    ///     fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
    ///         let _ = Self::answer(conn, b"no answer");
    ///     }
    /// }
    ///
    /// let server = Server::new()
    ///     .serve_with("127.0.0.1:0", Lines::new(), Front)
    ///     .service(Lines::new(), Back);
    /// # let _ = server;
    /// ```
    pub fn connect<S: Handler>(
        &mut self,
        target: impl TryInto<Target, Error: Into<ConnectError>>,
        session: S::Session,
    ) -> Result<ConnId, ConnectError> {
        self.begin_to_connect::<S>(target.try_into().map_err(Into::into)?, None, session)
    }

    /// The same for a service that was given this [name](crate::Server::name).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if `target` is none, or if no service has this name and such a handler.
    pub fn connect_named<S: Handler>(
        &mut self,
        name: &str,
        target: impl TryInto<Target, Error: Into<ConnectError>>,
        session: S::Session,
    ) -> Result<ConnId, ConnectError> {
        self.begin_to_connect::<S>(target.try_into().map_err(Into::into)?, Some(name), session)
    }

    fn begin_to_connect<S: Handler>(
        &mut self,
        target: Target,
        name: Option<&str>,
        session: S::Session,
    ) -> Result<ConnId, ConnectError> {
        let Self { core, table, .. } = self;
        if core.is_ending(table.len()) {
            return Err(ConnectError::Ending);
        }
        let services = core.desks.iter().map(|desk| (desk.handler, desk.name.as_deref()));
        let service = find::<S, _>(services, name)?;
        let desk = &core.desks[service as usize];
        let rules = Rc::clone(&desk.rules);
        let prototype: &Rc<S::Codec> =
            desk.prototype.downcast_ref().expect("a service is found by the type of its handler");
        let codec = S::Codec::clone(prototype);
        let member = Member::<S> { codec, session, alarms: Alarms::default() };
        let token = table.insert(|token| {
            let slot = core.connect(token, rules, target);
            Box::new(Entry { slot, member })
        });
        Ok(ConnId::new(core.shard, token))
    }

    /// Gives up a connection that was [asked for](Self::connect) and does not stand yet. Returns whether
    /// it was one: then [`closed`](Handler::closed) is called for it, later.
    pub fn give_up(&mut self, id: ConnId) -> bool {
        let token = id.token_on(self.core.shard);
        let Some(slot) = token.and_then(|token| self.table.get_mut(token)) else { return false };
        let gives_up = slot.is_connecting();
        if gives_up {
            self.core.fail(slot, CloseReason::Aborted, false);
        }
        gives_up
    }
}

impl<H: Handler> Conn<'_, H> {
    /// Joins this connection with another one of this shard, of any service: from now on the bytes that
    /// arrive on the one go to the other, and no codec or handler sees them. Neither peer notices.
    ///
    /// The other one may be one that was [asked for](Self::connect) and does not stand yet: then what
    /// this peer sends waits until it does. What was queued on either before this call leaves first, and
    /// what was received behind the present frame goes to the other peer. A [pause](Self::pause) of
    /// either ends.
    ///
    /// - Backpressure: while more than the [high watermark](crate::Limits::high_watermark) is queued for
    ///   the one peer, the other is not received from. Each direction is held up by itself.
    /// - A peer that finishes sending is passed on as that, and the other direction goes on. When both
    ///   have finished and everything is sent, both connections close.
    /// - A connection that ends in another way ends the other, with
    ///   [`CloseReason::RelayEnded`]: if it broke or was aborted, the
    ///   other peer sees a reset.
    /// - A drain takes what this peer has sent by then for all that it sends, and goes on until the other
    ///   peer has finished. If that takes longer than the drain may, the connection counts as cut off.
    ///   A connection that was asked for is not cut.
    ///
    /// [`closed`](Handler::closed) is still called for both, and so are timers; of the callbacks for what
    /// a peer sends none but [`URGENT`](Handler::URGENT).
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if there is no such connection on this shard, or it closes, or is this one; or if
    /// either is relayed already, or this one closes.
    ///
    /// # Examples
    ///
    /// A proxy: whoever connects is joined with a connection to another server.
    ///
    /// ```
    /// use nonforker::{Conn, Frame, Handler, Outcome, Server, codec::Raw};
    ///
    /// struct Proxy;
    ///
    /// impl Handler for Proxy {
    ///     type Codec = Raw;
    ///     type Session = ();
    ///
    ///     fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
    ///         let server = conn.connect::<Behind>("127.0.0.1:6379", ())?;
    ///         conn.relay_to(server)?;
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Behind;
    ///
    /// impl Handler for Behind {
    ///     type Codec = Raw;
    ///     type Session = ();
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let server = Server::new()
    ///     .serve_with("127.0.0.1:0", Raw::new(), Proxy)
    ///     .service(Raw::new(), Behind);
    /// # let _ = server;
    /// ```
    pub fn relay_to(&mut self, id: ConnId) -> Result<(), NotConnected> {
        self.relay_with(id, None)
    }

    /// The same with faults that are made on purpose, of the connection with this number: bytes go from
    /// the client to this one.
    pub(crate) fn relay_with(
        &mut self,
        id: ConnId,
        faults: Option<(&Arc<RelayFaults>, u64)>,
    ) -> Result<(), NotConnected> {
        let Self { core, table, slot, .. } = self;
        let token = id.token_on(core.shard).ok_or(NotConnected)?;
        let other = table.get_mut(token).ok_or(NotConnected)?;
        let is_free = |slot: &Slot| slot.relay().is_none();
        let other_takes = other.conn.state().handles() || other.is_connecting();
        if !slot.conn.state().handles() || !other_takes || !is_free(slot) || !is_free(other) {
            return Err(NotConnected);
        }
        core.relay(slot, other);
        if let Some((faults, number)) = faults {
            core.impair(slot, other, faults, number);
        }
        Ok(())
    }

    /// Connects to `target`, as a client, in the loop of this server: see [`Connections::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if `target` is none, or if no service has such a handler, or several have.
    pub fn connect<S: Handler>(
        &mut self,
        target: impl TryInto<Target, Error: Into<ConnectError>>,
        session: S::Session,
    ) -> Result<ConnId, ConnectError> {
        self.others().connect::<S>(target, session)
    }

    /// The same for a service that was given this [name](crate::Server::name).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if `target` is none, or if no service has this name and such a handler.
    pub fn connect_named<S: Handler>(
        &mut self,
        name: &str,
        target: impl TryInto<Target, Error: Into<ConnectError>>,
        session: S::Session,
    ) -> Result<ConnId, ConnectError> {
        self.others().connect_named::<S>(name, target, session)
    }
}
