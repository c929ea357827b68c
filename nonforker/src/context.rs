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
    conn::deadlines::Kind,
    driver::Token,
    engine::core::{Core, MemberKey, Slot},
    error::{CloseReason, NotConnected},
};

/// Names a connection for as long as the server runs. An id that has closed never names another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(Token);

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
    pub(crate) codec: C,
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
        let codec = &mut self.members[self.member].codec;
        self.core.push(self.token, self.origin, |out| codec.encode(reply, out));
    }

    /// Queues a reply to another connection of the same handler.
    ///
    /// If the peer there does not keep up, so that more than
    /// [`Limits::output_cap`](crate::Limits::output_cap) beyond the high watermark is queued for
    /// it, *that* connection is closed.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if the connection has closed, or belongs to another handler.
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
            self.send(reply);
            return Ok(());
        }
        let service = self.core.slots[self.token].service;
        let slot = self.core.slots.get(id.0).ok_or(NotConnected)?;
        if slot.service != service || !slot.conn.state().handles() {
            return Err(NotConnected);
        }
        let codec = &mut self.members.get_mut(slot.member).ok_or(NotConnected)?.codec;
        self.core.push(id.0, Origin::Push, |out| codec.encode(reply, out));
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
    }

    /// Ends the connection at once. What is queued is lost and the peer sees a reset.
    pub fn abort(&mut self) {
        self.core.fail(self.token, CloseReason::Aborted, true);
    }

    /// Handles no more frames until [`resume`](Self::resume), and soon reads no more either, so
    /// that the peer has to wait.
    pub fn pause(&mut self) {
        self.slot().conn.paused = true;
        self.core.mark_dirty(self.token);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.slot().conn.paused = false;
        self.core.mark_dirty(self.token);
        self.core.mark_runnable(self.token);
    }

    /// Ends the [`pause`](Self::pause) of another connection of the same server.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] if the connection has closed.
    pub fn resume_other(&mut self, id: ConnId) -> Result<(), NotConnected> {
        self.core.slots.get_mut(id.0).ok_or(NotConnected)?.conn.paused = false;
        self.core.mark_dirty(id.0);
        self.core.mark_runnable(id.0);
        Ok(())
    }

    /// Has [`Handler::timer`](crate::Handler::timer) called once, `after` from now, to the
    /// millisecond. A connection has one such timer: to set it again replaces it.
    pub fn set_timer(&mut self, after: Duration) {
        if self.slot().conn.state().handles() {
            self.core.arm(self.token, Kind::User, after);
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
        self.core.slots[self.token].peer
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
        self.core.slots[self.token].conn.outbound.queued()
    }

    /// The server's time, which in a simulation is not the system's.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.core.now
    }

    fn slot(&mut self) -> &mut Slot {
        &mut self.core.slots[self.token]
    }
}

impl<C: Codec, S> Write for Conn<'_, C, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.core.push(self.token, self.origin, |out| {
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

/// Takes half a reply back if the codec panics in the middle, and the buffer if the reply is empty.
/// It need not be for the connection whose callback this is, which is the one that ends.
struct Undo<'a> {
    out: &'a mut Vec<u8>,
    mark: usize,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.mark);
        if self.out.is_empty() {
            *self.out = Vec::new();
        }
    }
}

impl Core {
    /// Queues what `fill` appends for a connection, and raises pressure or closes it if that is
    /// too much.
    #[inline]
    fn push(
        &mut self,
        token: Token,
        origin: Origin,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        if !slot.conn.state().handles() {
            return;
        }
        let outbound = &mut slot.conn.outbound;
        let (mark, queued) = (outbound.mark(), outbound.queued());
        let mut undo = Undo { mark, out: outbound.pending(|least| self.pool.take_warm(least)) };
        let filled = fill(undo.out);
        undo.mark = usize::MAX;
        drop(undo);
        outbound.pushed(&self.marks);
        let over = origin == Origin::Push && queued > 0 && outbound.queued() > self.marks.cap;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(token);
        }
        if let Err(error) = filled {
            outbound.truncate(mark);
            self.close(token, CloseReason::Encode(error));
        } else if over {
            self.fail(token, CloseReason::OutputOverflow, true);
        }
    }
}
