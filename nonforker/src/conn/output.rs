//! The queue of a connection while it is written to.
//!
//! ```text
//!  connection ────── lend ───────▶ Output ◀── push(reply), one after the other
//!      ▲                            │
//!      └──────── take_back ─────────┘  once per batch of frames
//! ```
//!
//! A handler may answer a thousand frames of one batch. To find the queue again for each of them
//! would cost more than the answer, so it is taken out once. Whoever makes a reply, it comes into
//! the queue by [`push`](Output::push).

use super::{Connection, bars::Bars, buffer::Buffer};
use crate::{
    codec::{Encode, EncodeError},
    error::CloseReason,
};

/// Who makes output: a reply to a request may be as large as it is, a push may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Reply,
    Push,
    /// A push from the callback of another connection, which waits for no ticket.
    Other,
}

/// What output is measured against, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Above this many queued bytes the connection is pressured.
    pub(crate) high: usize,
    /// Beyond this many queued bytes a push closes the connection.
    pub(crate) cap: usize,
    /// Output that has become as long as this gets room to become `space` bytes long.
    pub(crate) spacious: usize,
    pub(crate) space: usize,
    /// With more than this many queued bytes the memory budget may be exceeded.
    pub(crate) room: usize,
}

impl Bounds {
    /// Gives output that has become long the space to become longer without being copied. Output
    /// that was long from the start is a single reply: to copy it would take more than it may save.
    #[cold]
    pub(crate) fn give_space(&self, out: &mut Vec<u8>) {
        if (self.spacious..=self.space / 4).contains(&out.len()) && out.capacity() < self.space {
            // Without it, it grows as any other.
            let _ = out.try_reserve_exact(self.space - out.len());
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Output {
    /// What is queued and not in flight.
    buffer: Buffer,
    /// How many bytes are in flight, or go ahead of the queue, or wait behind tickets.
    elsewhere: usize,
    /// Where the output of the present callback begins, to be taken back if it panics.
    mark: usize,
    /// When more than this is queued, there is something to decide.
    much: usize,
    bounds: Bounds,
    origin: Origin,
    /// How many replies were made.
    replies: u32,
    /// So much was made that the rest of the batch waits for the next turn.
    turn_over: bool,
}

impl Output {
    #[inline]
    pub(crate) fn new(
        mut buffer: Buffer,
        elsewhere: usize,
        bounds: Bounds,
        origin: Origin,
    ) -> Self {
        let much = bounds.high.saturating_sub(elsewhere).min(bounds.spacious);
        // What is lent begins at the front of its vector.
        let mark = buffer.vec().len();
        Self { buffer, elsewhere, mark, much, bounds, origin, replies: 0, turn_over: false }
    }

    /// The buffer with all that is queued, and how many replies were made.
    #[inline]
    pub(crate) fn into_parts(self) -> (Buffer, u32) {
        (self.buffer, self.replies)
    }

    /// Takes out what is queued, for a message to be queued behind it: to be
    /// [put back](Self::put_queue).
    pub(super) fn take_queue(&mut self) -> Option<Buffer> {
        if self.buffer.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.buffer, Buffer::with_capacity(0)))
    }

    /// Puts the queue back. Its last bytes are `of_callback`, and so many are `elsewhere`.
    pub(super) fn put_queue(
        &mut self,
        queue: Option<Buffer>,
        elsewhere: usize,
        of_callback: usize,
    ) {
        if let Some(queue) = queue {
            self.buffer = queue;
        }
        self.set_elsewhere(elsewhere);
        self.mark = self.buffer.len().saturating_sub(of_callback);
    }

    /// How many bytes the present callback has queued.
    pub(crate) fn since_mark(&self) -> usize {
        self.buffer.len() - self.mark
    }

    fn set_elsewhere(&mut self, elsewhere: usize) {
        self.elsewhere = elsewhere;
        self.much = self.bounds.high.saturating_sub(elsewhere).min(self.bounds.spacious);
    }

    /// How many bytes are queued or in flight, or wait behind tickets.
    pub(crate) fn queued(&self) -> usize {
        self.buffer.len() + self.elsewhere
    }

    /// Whether the rest of the batch waits for the next turn.
    #[inline]
    pub(crate) const fn is_turn_over(&self) -> bool {
        self.turn_over
    }

    /// What is appended from now on is of another callback.
    #[inline]
    pub(crate) const fn begin_callback(&mut self) {
        // What is lent begins at the front of its vector.
        self.mark = self.buffer.vec().len();
    }

    /// Takes back what the present callback has appended.
    pub(crate) fn take_back(&mut self) {
        self.buffer.vec().truncate(self.mark);
    }

    /// Queues a reply as `codec` frames it, and raises pressure or closes the connection if that is
    /// too much. Nothing is queued once it closes or our side has finished, and behind a ticket it has
    /// to wait. Should the codec panic, the whole callback's output is to be
    /// [taken back](Self::take_back).
    #[inline(always)]
    pub(crate) fn push<C: Encode<R>, R>(&mut self, conn: &mut Connection, codec: &mut C, reply: R) {
        let reply = match conn.bars.has(Bars::NOT_AT_ONCE) {
            false => reply,
            true => match self.push_behind(conn, codec, reply) {
                Some(reply) => reply,
                None => return,
            },
        };
        self.replies += 1;
        let out = self.buffer.vec();
        let before = out.len();
        match codec.encode(reply, out) {
            Err(error) => self.cannot_encode(conn, before, error),
            Ok(()) if out.len() > self.much => self.much_is_queued(conn, before),
            Ok(()) => {}
        }
    }

    /// Queues a reply behind a ticket, or in its place; or drops it, if the connection closes or our
    /// side has finished. Returns it if it need not wait.
    #[cold]
    fn push_behind<C: Encode<R>, R>(
        &mut self,
        conn: &mut Connection,
        codec: &mut C,
        reply: R,
    ) -> Option<R> {
        if !conn.takes_reply(self.origin) {
            return None;
        }
        let Some((behind, held)) = conn.behind(self.origin) else { return Some(reply) };
        self.replies += 1;
        let (before, is_first) = (behind.len(), self.queued() == 0);
        if let Err(error) = codec.encode(reply, behind) {
            behind.truncate(before);
            conn.close(CloseReason::Encode(error));
            return None;
        }
        let grown = behind.len() - before;
        *held += grown;
        self.set_elsewhere(self.elsewhere + grown);
        self.judge(conn, is_first);
        None
    }

    /// What waited behind a ticket comes into the queue. It is counted already.
    pub(super) fn push_held(&mut self, held: &[u8]) {
        self.buffer.vec().extend_from_slice(held);
        self.set_elsewhere(self.elsewhere.saturating_sub(held.len()));
    }

    /// Takes half a reply back.
    #[cold]
    fn cannot_encode(&mut self, conn: &mut Connection, before: usize, error: EncodeError) {
        self.buffer.vec().truncate(before);
        conn.close(CloseReason::Encode(error));
    }

    /// A reply may take as much room as it needs, a push only if there is nothing before it.
    #[cold]
    fn much_is_queued(&mut self, conn: &mut Connection, before: usize) {
        self.bounds.give_space(self.buffer.vec());
        self.judge(conn, self.elsewhere == 0 && before == 0);
    }

    fn judge(&mut self, conn: &mut Connection, is_first: bool) {
        // The account is settled between two turns, and then a connection may have to go.
        if self.queued() > self.bounds.room {
            self.turn_over = true;
        }
        if self.queued() <= self.bounds.high {
            return;
        }
        conn.bars.set(Bars::PRESSURED, true);
        if self.origin != Origin::Reply && !is_first && self.queued() > self.bounds.cap {
            conn.fail(CloseReason::OutputOverflow, true);
        }
    }
}
