//! What a handler holds during one call: its connection, and what it may ask for.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, Instant},
};

use slotmap::{Key, SlotMap};

use crate::{
    address::Peer,
    codec::{Codec, Encode, EncodeError},
    conn::{
        buffer::Buffer,
        deadlines::Kind,
        outbound::{Outbound, Watermarks},
    },
    driver::Token,
    engine::{
        core::{Core, MemberKey, Slot},
        pool::Pool,
        replies::Replies,
    },
    error::{CloseReason, NotConnected},
};

/// Names a connection for as long as the server runs. An id that has closed never names another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(Token);

impl ConnId {
    pub(crate) const fn new(token: Token) -> Self {
        Self(token)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.data().as_ffi();
        // Generations are odd while a slot is taken: 1, 3, 5.
        write!(f, "{}.{}", bits & 0xffff_ffff, bits >> 33)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// What a service keeps for one of its connections.
#[derive(Debug)]
pub(crate) struct Member<C, S> {
    /// It is lent while callbacks run: see [`Replies`].
    pub(crate) codec: Option<C>,
    pub(crate) session: S,
}

pub(crate) type Members<C, S> = SlotMap<MemberKey, Member<C, S>>;

/// Who asks for output: a reply to a request may be as large as it is, a push may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Reply,
    Push,
}

/// One connection, for the duration of a callback.
///
/// What is sent is queued, and leaves in one write when the callbacks of this turn are done. To
/// send never blocks and never fails: if the connection ends meanwhile,
/// [`Handler::closed`](crate::Handler::closed) tells so.
///
/// As [`io::Write`] it takes raw bytes that are sent as they are, without the codec's framing.
pub struct Conn<'c, C: Codec, S = ()> {
    pub(crate) core: &'c mut Core,
    pub(crate) members: &'c mut Members<C, S>,
    pub(crate) token: Token,
    pub(crate) member: MemberKey,
    pub(crate) replies: &'c mut Replies<C>,
    pub(crate) origin: Origin,
}

impl<C: Codec, S> Conn<'_, C, S> {
    /// Queues a reply, framed by the codec.
    ///
    /// A reply that the codec cannot frame ends the connection with
    /// [`CloseReason::Encode`]. Nothing is queued once the connection is closing.
    #[inline]
    pub fn send<R>(&mut self, reply: R)
    where
        C: Encode<R>,
    {
        self.replies.replies += 1;
        self.push(|codec, out| codec.encode(reply, out));
    }

    /// Queues a reply to another connection of the same handler.
    ///
    /// If the peer there does not keep up, so that more than
    /// [`Limits::output_cap`](crate::Limits::output_cap) beyond the high watermark is queued for
    /// it, *that* connection is closed.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if the connection has closed or takes no more replies because it closes, its
    /// own included; or if it belongs to another handler.
    ///
    /// # Examples
    ///
    /// Hand every line to whoever sent the first one:
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let mut first = None;
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), move |conn, line| {
    ///     let first = *first.get_or_insert(conn.id());
    ///     conn.send_to(first, line)
    /// });
    /// # let _ = server;
    /// ```
    pub fn send_to<R>(&mut self, id: ConnId, reply: R) -> Result<(), NotConnected>
    where
        C: Encode<R>,
    {
        if id.0 == self.token {
            if self.replies.is_closed() {
                return Err(NotConnected);
            }
            self.send(reply);
            return Ok(());
        }
        let service = self.core.slots[self.token].service;
        let slot = self.core.slots.get(id.0).ok_or(NotConnected)?;
        if slot.service != service || !slot.conn.state().handles() {
            return Err(NotConnected);
        }
        let member = self.members.get_mut(slot.member).ok_or(NotConnected)?;
        let codec = member.codec.as_mut().ok_or(NotConnected)?;
        self.core.push_to(id.0, |out| codec.encode(reply, out));
        Ok(())
    }

    /// Closes the connection after what is queued has been sent. No more frames are handled.
    ///
    /// The peer really gets the last bytes: the close lingers until the peer has closed too,
    /// bounded by [`Limits::linger_timeout`](crate::Limits::linger_timeout).
    pub fn close(&mut self) {
        let reason = match self.slot().told_end {
            true => CloseReason::PeerFinished,
            false => CloseReason::ByHandler,
        };
        self.core.close(self.token, reason);
        self.replies.close();
    }

    /// Ends the connection at once. What is queued is lost and the peer sees a reset.
    pub fn abort(&mut self) {
        self.core.fail(self.token, CloseReason::Aborted, true);
        self.replies.close();
    }

    /// Handles no more frames until [`resume`](Self::resume), and soon reads no more either, so
    /// that the peer has to wait.
    pub fn pause(&mut self) {
        self.slot().conn.paused = true;
        self.replies.pause(true);
        self.core.mark_dirty(self.token);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.slot().conn.paused = false;
        self.replies.pause(false);
        self.core.is_active(self.token);
        self.core.mark_dirty(self.token);
        self.core.mark_runnable(self.token);
    }

    /// Ends the [`pause`](Self::pause) of another connection of the same server.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if the connection has closed, or handles nothing more because it closes.
    pub fn resume_other(&mut self, id: ConnId) -> Result<(), NotConnected> {
        let slot = self.core.slots.get_mut(id.0).ok_or(NotConnected)?;
        if !slot.conn.state().handles() {
            return Err(NotConnected);
        }
        if id.0 == self.token {
            self.resume();
            return Ok(());
        }
        slot.conn.paused = false;
        self.core.is_active(id.0);
        self.core.mark_dirty(id.0);
        self.core.mark_runnable(id.0);
        Ok(())
    }

    /// Has [`Handler::timer`](crate::Handler::timer) called once, `after` from this call. A
    /// connection has one such timer: to set it again replaces it.
    ///
    /// It is never early. On an idle machine it is late by less than 0.2 ms, and by as long as
    /// handlers take that run when it is due.
    pub fn set_timer(&mut self, after: Duration) {
        if self.slot().conn.state().handles() {
            self.core.set_timer(self.token, after);
        }
    }

    /// Forgets the timer.
    pub fn clear_timer(&mut self) {
        self.slot().conn.deadlines.clear(Kind::User);
    }

    /// The connection's id, to be [sent to](Self::send_to) from other callbacks.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        ConnId(self.token)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.core.slots[self.token].peer.peer()
    }

    /// What the handler remembers for this connection.
    #[must_use]
    pub fn session(&self) -> &S {
        &self.members[self.member].session
    }

    /// What the handler remembers for this connection, to be changed.
    pub fn session_mut(&mut self) -> &mut S {
        &mut self.members[self.member].session
    }

    /// How many bytes are queued for the peer or in flight to it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.replies.queued()
    }

    /// The time of this call, which in a simulation is not the system's.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.instant()
    }

    /// Queues what `fill` appends, and raises pressure or closes the connection if that is too
    /// much. Should it panic, the whole callback's output is taken back.
    #[inline]
    fn push(&mut self, fill: impl FnOnce(&mut C, &mut Vec<u8>) -> Result<(), EncodeError>) {
        if self.replies.is_closed() {
            return;
        }
        let mark = self.replies.len();
        let (codec, out) = self.replies.parts();
        if let Err(error) = fill(codec, out) {
            self.cannot_encode(mark, error);
        } else if self.replies.is_much() {
            self.much_is_queued(mark);
        }
    }

    /// Takes half a reply back.
    #[cold]
    fn cannot_encode(&mut self, mark: usize, error: EncodeError) {
        self.replies.take_back_to(mark);
        self.core.close(self.token, CloseReason::Encode(error));
        self.replies.close();
    }

    /// A reply may take as much room as it needs, a push only if there is nothing before it.
    #[cold]
    fn much_is_queued(&mut self, mark: usize) {
        self.core.pool.give_space(self.replies.parts().1);
        // The account is settled between two turns, and then somebody may have to go.
        let others = self.core.memory.used().saturating_sub(self.slot().accounted);
        if others.saturating_add(self.replies.queued()) > self.core.memory.budget() {
            self.replies.end_turn();
        }
        if self.replies.queued() <= self.core.marks.high {
            return;
        }
        self.replies.raise_pressure();
        let is_first = self.replies.queued() == self.replies.len() && mark == 0;
        let much = !is_first && self.replies.queued() > self.core.marks.cap;
        if self.origin == Origin::Push && much {
            self.core.fail(self.token, CloseReason::OutputOverflow, true);
            self.replies.close();
        }
    }

    fn slot(&mut self) -> &mut Slot {
        &mut self.core.slots[self.token]
    }
}

impl<C: Codec, S> Write for Conn<'_, C, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(|_, out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        Ok(bytes.len())
    }

    /// Does nothing: what is queued leaves by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<C: Codec, S> fmt::Debug for Conn<'_, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).field("peer", &self.peer()).finish()
    }
}

/// The queue of a connection whose callback this is not. It goes back also when the codec panics,
/// without half a reply, and it is the calling connection that ends.
struct Lent<'a> {
    outbound: &'a mut Outbound,
    pool: &'a mut Pool,
    marks: &'a Watermarks,
    out: Option<Buffer>,
    mark: usize,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(mut out) = self.out.take() else { return };
        out.vec().truncate(self.mark);
        if let Some(empty) = self.outbound.give_back(out, self.marks) {
            self.pool.put(empty);
        }
    }
}

impl Core {
    /// Queues what `fill` appends for a connection other than the one whose callback this is.
    fn push_to(
        &mut self,
        token: Token,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) {
        let Self { slots, pool, marks, .. } = self;
        let Some(slot) = slots.get_mut(token) else { return };
        let outbound = &mut slot.conn.outbound;
        let (queued, hint) = (outbound.queued(), outbound.hint());
        let out = outbound.lend().unwrap_or_else(|| pool.take_warm(hint));
        let mut lent = Lent { mark: out.len(), outbound, pool, marks, out: None };
        let out = lent.out.insert(out);
        let filled = fill(out.vec());
        if filled.is_ok() {
            lent.mark = usize::MAX;
            if out.len() >= lent.pool.spacious() {
                lent.pool.give_space(out.vec());
            }
        }
        drop(lent);
        slot.is_used();
        if let Some(traffic) = &mut slot.traffic {
            traffic.replies += 1;
        }
        let over = queued > 0 && slot.conn.outbound.queued() > self.marks.cap;
        self.mark_dirty(token);
        if let Err(error) = filled {
            self.close(token, CloseReason::Encode(error));
        } else if over {
            self.fail(token, CloseReason::OutputOverflow, true);
        }
    }
}
