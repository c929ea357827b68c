//! The output of one connection while its callbacks run.
//!
//! ```text
//!  connection ── lend ──▶ Replies { codec, out } ◀── conn.send(reply), per frame
//!      ▲                         │
//!      └──────── settle ─────────┘  once per batch of frames
//! ```
//!
//! A handler may answer a thousand frames of one batch. For each of them to find the connection,
//! its codec and its queue would cost more than the answer. So they are taken out once, and put
//! back once; in between they are at hand.
//!
//! Whatever the callbacks do to their connection that decides whether the next frame is handled is
//! noted here as well: [`stops`](Replies::stops).

use std::mem;

use super::core::Core;
use crate::{codec::Codec, conn::buffer::Buffer, context::Members, driver::Token};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Replies<C> {
    pub(crate) codec: C,
    /// What is queued and not in flight.
    pub(crate) out: Vec<u8>,
    /// Where `out` belongs.
    buffer: Buffer,
    in_flight: usize,
    /// Longer than this, `out` is above the high watermark.
    out_max: usize,
    /// The connection takes no more replies.
    pub(crate) closed: bool,
    pub(crate) paused: bool,
    pressured: bool,
}

impl<C> Replies<C> {
    /// Whether the connection may not be given another frame.
    pub(crate) const fn stops(&self) -> bool {
        self.closed | self.paused | self.pressured
    }

    /// How many bytes are queued or in flight.
    pub(crate) const fn queued(&self) -> usize {
        self.out.len() + self.in_flight
    }

    /// Something was written: raises pressure if that is much. Returns whether it did.
    #[inline]
    pub(crate) const fn written(&mut self) -> bool {
        let much = self.out.len() > self.out_max;
        self.pressured |= much;
        much
    }
}

impl Core {
    /// Takes the output of a connection and its codec out, for callbacks to write to.
    pub(crate) fn lend<C: Codec, S>(
        &mut self,
        members: &mut Members<C, S>,
        token: Token,
    ) -> Option<Replies<C>> {
        let slot = self.slots.get_mut(token)?;
        let codec = members.get_mut(slot.member)?.codec.take()?;
        let conn = &mut slot.conn;
        let in_flight = conn.outbound.in_flight();
        // Whether there will be a reply is not known, but a warm buffer costs nothing. While memory
        // is scarce nobody is to be blamed for one that is too large.
        let (hint, scarce) = (conn.outbound.hint(), self.memory.is_scarce());
        let pool = &mut self.pool;
        let take = || if scarce { pool.take(hint) } else { pool.take_warm(hint) };
        let mut buffer = conn.outbound.lend().unwrap_or_else(take);
        Some(Replies {
            codec,
            in_flight,
            out_max: self.marks.high.saturating_sub(in_flight),
            closed: !conn.state().handles(),
            paused: conn.paused,
            pressured: conn.outbound.is_pressured(),
            out: mem::take(buffer.vec()),
            buffer,
        })
    }

    /// Puts them back, and has the connection flushed if there is something to send.
    pub(crate) fn settle<C: Codec, S>(
        &mut self,
        members: &mut Members<C, S>,
        token: Token,
        replies: Replies<C>,
    ) {
        let Replies { codec, out, mut buffer, .. } = replies;
        self.collected += out.len();
        *buffer.vec() = out;
        let Some(slot) = self.slots.get_mut(token) else { return };
        if let Some(member) = members.get_mut(slot.member) {
            member.codec = Some(codec);
        }
        if let Some(empty) = slot.conn.outbound.give_back(buffer, &self.marks) {
            self.pool.put(empty);
        } else {
            slot.mark_dirty(token, &mut self.dirty);
        }
    }
}
