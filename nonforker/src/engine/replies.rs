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

use super::core::Core;
use crate::{
    codec::Codec,
    conn::{buffer::Buffer, outbound::Watermarks},
    context::Members,
    driver::Token,
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Replies<C> {
    pub(crate) codec: C,
    /// What is queued and not in flight. There is none before the first reply.
    out: Option<Buffer>,
    in_flight: usize,
    /// The capacity that served last time, in bytes.
    hint: usize,
    high: usize,
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
    pub(crate) fn queued(&self) -> usize {
        self.mark() + self.in_flight
    }

    /// How much has been written, as a mark for [`truncate`](Self::truncate).
    #[inline]
    pub(crate) fn mark(&self) -> usize {
        self.out.as_ref().map_or(0, Buffer::len)
    }

    /// Takes back what was written since `mark`.
    pub(crate) fn truncate(&mut self, mark: usize) {
        if let Some(out) = &mut self.out {
            out.vec().truncate(mark);
        }
    }

    /// The codec, and where it writes.
    #[inline]
    pub(crate) fn writer(
        &mut self,
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> (&mut C, &mut Vec<u8>) {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(allocate(self.hint)),
        };
        (&mut self.codec, out.vec())
    }

    /// Something was written: raises pressure if that is much. Returns whether it did.
    #[inline]
    pub(crate) fn written(&mut self) -> bool {
        let much = self.queued() > self.high;
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
        let Watermarks { high, .. } = self.marks;
        let conn = &mut slot.conn;
        Some(Replies {
            codec,
            in_flight: conn.outbound.in_flight(),
            hint: conn.outbound.hint(),
            high,
            closed: !conn.state().handles(),
            paused: conn.paused,
            pressured: conn.outbound.is_pressured(),
            out: conn.outbound.lend(),
        })
    }

    /// Puts them back, and has the connection flushed if there is something to send.
    pub(crate) fn settle<C: Codec, S>(
        &mut self,
        members: &mut Members<C, S>,
        token: Token,
        replies: Replies<C>,
    ) {
        let Replies { codec, out, .. } = replies;
        let Some(slot) = self.slots.get_mut(token) else { return };
        if let Some(member) = members.get_mut(slot.member) {
            member.codec = Some(codec);
        }
        let Some(out) = out else { return };
        self.collected += out.len();
        if let Some(empty) = slot.conn.outbound.give_back(out, &self.marks) {
            self.pool.put(empty);
        } else if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(token);
        }
    }
}
