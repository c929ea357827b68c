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

use super::core::{Core, MemberKey};
use crate::{codec::Codec, conn::buffer::Buffer, context::Members, driver::Token};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Replies<C> {
    pub(crate) codec: C,
    /// Where `codec` belongs.
    pub(crate) member: MemberKey,
    /// What is queued and not in flight.
    out: Vec<u8>,
    /// Where `out` belongs.
    buffer: Buffer,
    in_flight: usize,
    /// Where the output of the present callback begins, to be taken back if it panics.
    mark: usize,
    /// How many frames the handler was given, and how many replies it made.
    pub(crate) frames: usize,
    pub(crate) replies: usize,
    /// Longer than this, the queue is above the high watermark.
    /// Longer than this, the queue is above the high watermark, or needs space.
    out_max: usize,
    bars: Bars,
}

/// Why a connection may not be given another frame, a bit each.
#[derive(Clone, Copy, Debug)]
struct Bars(u8);

impl Bars {
    /// It takes no more replies.
    const CLOSED: u8 = 1;
    const PAUSED: u8 = 1 << 1;
    const PRESSURED: u8 = 1 << 2;
    /// It made so many replies that the others come first: it goes on in the next turn.
    const HAD_ITS_TURN: u8 = 1 << 3;

    const fn set(&mut self, bar: u8, on: bool) {
        self.0 = if on { self.0 | bar } else { self.0 & !bar };
    }
}

impl<C> Replies<C> {
    /// Whether the connection may not be given another frame.
    #[inline]
    pub(crate) const fn stops(&self) -> bool {
        self.bars.0 != 0
    }

    /// Whether the connection takes no more replies.
    #[inline]
    pub(crate) const fn is_closed(&self) -> bool {
        self.bars.0 & Bars::CLOSED != 0
    }

    pub(crate) const fn close(&mut self) {
        self.bars.set(Bars::CLOSED, true);
    }

    pub(crate) const fn pause(&mut self, on: bool) {
        self.bars.set(Bars::PAUSED, on);
    }

    /// How many bytes are queued or in flight.
    pub(crate) const fn queued(&self) -> usize {
        self.len() + self.in_flight
    }

    /// How many bytes are queued and not in flight.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.out.len()
    }

    /// The codec, and where replies are appended.
    #[inline]
    pub(crate) const fn parts(&mut self) -> (&mut C, &mut Vec<u8>) {
        (&mut self.codec, &mut self.out)
    }

    /// What is appended from now on is of another callback.
    #[inline]
    pub(crate) const fn begin_callback(&mut self) {
        self.mark = self.out.len();
    }

    /// Takes back what the present callback has appended.
    pub(crate) fn take_back(&mut self) {
        self.out.truncate(self.mark);
    }

    /// Takes back what was appended since so many bytes were queued.
    pub(crate) fn take_back_to(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// Whether so much is queued that somebody has to see to it.
    #[inline]
    pub(crate) const fn is_much(&self) -> bool {
        self.len() > self.out_max
    }

    pub(crate) const fn raise_pressure(&mut self) {
        self.bars.set(Bars::PRESSURED, true);
    }

    /// The connection is given no more frames in this turn.
    pub(crate) const fn end_turn(&mut self) {
        self.bars.set(Bars::HAD_ITS_TURN, true);
    }

    /// Whether nothing but the end of its turn keeps the connection from the next frame.
    pub(crate) const fn had_its_turn(&self) -> bool {
        self.bars.0 == Bars::HAD_ITS_TURN
    }
}

impl Core {
    /// Takes the output of a connection and its codec out, for callbacks to write to.
    #[inline(always)]
    pub(crate) fn lend<C: Codec, S>(
        &mut self,
        members: &mut Members<C, S>,
        token: Token,
    ) -> Option<Replies<C>> {
        let slot = self.slots.get_mut(token)?;
        let member = slot.member;
        let codec = members.get_mut(member)?.codec.take()?;
        let conn = &mut slot.conn;
        let in_flight = conn.outbound.in_flight();
        // Whether there will be a reply is not known, but a warm buffer costs nothing. While memory
        // is scarce nobody is to be blamed for one that is too large.
        let (hint, scarce) = (conn.outbound.hint(), self.memory.is_scarce());
        let pool = &mut self.pool;
        let take = || if scarce { pool.take(hint) } else { pool.take_warm(hint) };
        let mut buffer = conn.outbound.lend().unwrap_or_else(take);
        let mut bars = Bars(0);
        bars.set(Bars::CLOSED, !conn.state().handles());
        bars.set(Bars::PAUSED, conn.paused);
        bars.set(Bars::PRESSURED, conn.outbound.is_pressured());
        let out_max = self.marks.high.saturating_sub(in_flight).min(self.pool.spacious());
        let out = mem::take(buffer.vec());
        Some(Replies {
            codec,
            member,
            mark: out.len(),
            out,
            buffer,
            in_flight,
            frames: 0,
            replies: 0,
            out_max,
            bars,
        })
    }

    /// Puts them back, and has the connection flushed if there is something to send.
    #[inline(always)]
    pub(crate) fn settle<C: Codec, S>(
        &mut self,
        members: &mut Members<C, S>,
        token: Token,
        replies: Replies<C>,
    ) {
        let Replies { codec, member, out, mut buffer, frames, replies, .. } = replies;
        if let Some(member) = members.get_mut(member) {
            member.codec = Some(codec);
        }
        self.collected += out.len();
        *buffer.vec() = out;
        let Some(slot) = self.slots.get_mut(token) else { return };
        if let Some(traffic) = &mut slot.traffic {
            traffic.frames += frames as u64;
            traffic.replies += replies as u64;
        }
        if frames > 0 {
            slot.is_used();
        }
        if let Some(empty) = slot.conn.outbound.give_back(buffer, &self.marks) {
            self.pool.put(empty);
        } else {
            slot.is_used();
            slot.mark_dirty(token, &mut self.dirty);
        }
    }
}
