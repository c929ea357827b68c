//! Where bytes become frames and frames become calls: a codec and a handler, their types erased.
//!
//! ```text
//!  received(bytes) ─┐
//!                   ├─▶ batch: decode, handle ──▶ handler.frame(conn, frame)
//!  advance()  ──────┘
//!   (what was kept)
//! ```
//!
//! The engine sees a [`Service`], one dynamic call per batch of bytes; within the batch
//! everything is static. Frames are decoded where the bytes lie, in the driver's memory if nothing
//! was kept.
//!
//! Codec and handler are the user's. Whatever they panic with ends the one connection they were
//! called for: each entry here catches it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::core::{Core, Usage};
use crate::{
    codec::{Codec, Decoded, FrameError},
    conn::{deadlines::Kind, state::State},
    context::{Conn, Member, Members, Origin},
    driver::Token,
    error::CloseReason,
    handler::{Handler, Outcome},
};

/// A codec and a handler with their connections.
pub(crate) trait Service {
    /// A connection was accepted.
    fn open(&mut self, core: &mut Core, token: Token);
    /// Bytes arrived. They are lent.
    fn received(&mut self, core: &mut Core, token: Token, bytes: &[u8]);
    /// The connection may go on: with what is held, and with the end of the stream.
    fn advance(&mut self, core: &mut Core, token: Token);
    /// Whether the handler wants urgent bytes.
    fn wants_urgent(&self) -> bool;
    /// An urgent byte arrived.
    fn urgent(&mut self, core: &mut Core, token: Token, byte: u8);
    /// Pressure fell.
    fn relieved(&mut self, core: &mut Core, token: Token);
    /// The handler's timer is due.
    fn timer(&mut self, core: &mut Core, token: Token);
    /// Whether a complete frame is kept that the handler has not been given.
    fn holds_frame(&self, core: &Core, token: Token) -> bool;
    /// The connection has ended. Its codec and its session go.
    fn closed(&mut self, core: &mut Core, token: Token, reason: &CloseReason);
}

/// A [`Service`] whose types are known.
pub(crate) struct Typed<C: Codec, H: Handler<C>> {
    prototype: C,
    pub(super) handler: H,
    pub(super) members: Members<C, H::Session>,
}

impl<C: Codec, H: Handler<C>> Typed<C, H> {
    pub(crate) fn new(prototype: C, handler: H) -> Self {
        Self { prototype, handler, members: Members::with_key() }
    }

    /// Makes one callback and sees to what it answers.
    fn call(
        &mut self,
        core: &mut Core,
        token: Token,
        callback: &'static str,
        call: impl FnOnce(&mut H, &mut Conn<'_, C, H::Session>) -> Outcome,
    ) {
        let Self { handler, members, .. } = self;
        let Some(mut replies) = core.lend(members, token) else { return };
        let member = replies.member;
        let origin = Origin::Push;
        let began = core.callback_begins();
        let called = catch_unwind(AssertUnwindSafe(|| {
            let replies = &mut replies;
            call(handler, &mut Conn { core, members, token, member, replies, origin })
        }));
        if called.is_err() {
            replies.take_back();
        }
        core.settle(members, token, replies);
        core.callback_ends(token, callback, began);
        match called {
            Ok(Ok(())) => {}
            Ok(Err(error)) => core.handler_failed(token, error),
            Err(payload) => core.handler_panicked(token, callback, &*payload),
        }
    }

    pub(super) fn reject(&mut self, core: &mut Core, token: Token, error: FrameError) {
        self.call(core, token, "rejected", |handler, conn| {
            handler.rejected(conn, &error);
            Ok(())
        });
        core.close(token, CloseReason::Rejected(error));
    }

    /// All frames are handled and no more bytes will come.
    fn end(&mut self, core: &mut Core, token: Token) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        // The end of a stream may end a frame. To be cut off by a drain does not.
        if slot.conn.state() == State::HalfClosed
            && let Some(tail) = slot.conn.inbound.take()
        {
            slot.conn.deadlines.clear(Kind::Frame);
            self.end_tail(core, token, tail.bytes());
            core.pool.put(tail);
        }
        let Some(slot) = core.slots.get_mut(token) else { return };
        if slot.conn.state().handles() && !slot.conn.may_handle() {
            // The handler has not answered the last frame yet: the end comes behind the answer.
            return;
        }
        if slot.conn.cut {
            core.close(token, CloseReason::Drained);
            return;
        }
        if std::mem::replace(&mut slot.told_end, true) {
            return;
        }
        slot.conn.deadlines.clear(Kind::Frame);
        if slot.conn.state().handles() {
            self.call(core, token, "half_closed", Handler::half_closed);
        }
        core.mark_dirty(token);
    }

    /// The peer has finished behind bytes that are not a complete frame.
    fn end_tail(&mut self, core: &mut Core, token: Token, tail: &[u8]) {
        let mut rejected = None;
        self.call(core, token, "frame", |handler, conn| {
            conn.origin = Origin::Reply;
            match conn.replies.codec.decode_end(tail) {
                Ok(Some(frame)) => {
                    conn.core.counters.frames.add(1);
                    conn.replies.frames += 1;
                    handler.frame(conn, frame)
                }
                Ok(None) => Ok(()),
                Err(error) => {
                    rejected = Some(error);
                    Ok(())
                }
            }
        });
        if let Some(error) = rejected {
            self.reject(core, token, error);
        }
    }
}

impl<C: Codec, H: Handler<C>> Service for Typed<C, H> {
    fn open(&mut self, core: &mut Core, token: Token) {
        let Self { prototype, members, .. } = self;
        let made = catch_unwind(AssertUnwindSafe(|| {
            members.insert(Member { codec: Some(prototype.clone()), session: Default::default() })
        }));
        match made {
            Ok(member) => {
                core.slots[token].member = member;
                self.call(core, token, "open", Handler::open);
                if let Some(slot) = core.slots.get_mut(token) {
                    // A greeting does not keep a connection that others wait for.
                    slot.usage = slot.usage.min(Usage::Greeted);
                }
            }
            Err(payload) => core.handler_panicked(token, "session", &*payload),
        }
    }

    fn received(&mut self, core: &mut Core, token: Token, bytes: &[u8]) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        let may_handle = slot.conn.may_handle() && !slot.conn.inbound.held;
        if may_handle && slot.conn.inbound.is_empty() {
            self.handle_lent(core, token, bytes);
            return;
        }
        core.keep(token, bytes);
        if may_handle {
            self.handle_kept(core, token);
        } else {
            core.hold(token, false);
        }
    }

    fn advance(&mut self, core: &mut Core, token: Token) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        if slot.conn.may_handle() && std::mem::take(&mut slot.conn.inbound.held) {
            self.handle_kept(core, token);
        }
        if core.slots.get(token).is_some_and(|slot| slot.conn.is_at_end()) {
            self.end(core, token);
        }
    }

    fn wants_urgent(&self) -> bool {
        H::URGENT.is_some()
    }

    fn urgent(&mut self, core: &mut Core, token: Token, byte: u8) {
        if let Some(urgent) = H::URGENT {
            self.call(core, token, "urgent", |handler, conn| urgent(handler, conn, byte));
        }
    }

    fn relieved(&mut self, core: &mut Core, token: Token) {
        self.call(core, token, "relieved", Handler::relieved);
    }

    fn timer(&mut self, core: &mut Core, token: Token) {
        self.call(core, token, "timer", Handler::timer);
    }

    fn holds_frame(&self, core: &Core, token: Token) -> bool {
        let Some(slot) = core.slots.get(token) else { return false };
        let Some(member) = self.members.get(slot.member) else { return false };
        let is_finished = slot.conn.state() == State::HalfClosed;
        let kept = slot.conn.inbound.bytes();
        // A codec that panics over these bytes would have closed the connection without a frame.
        let found = catch_unwind(AssertUnwindSafe(|| {
            member.codec.clone().is_some_and(|codec| begins_with_frame(codec, kept, is_finished))
        }));
        found.unwrap_or(false)
    }

    fn closed(&mut self, core: &mut Core, token: Token, reason: &CloseReason) {
        let member = core.slots[token].member;
        if !self.members.contains_key(member) {
            return;
        }
        self.call(core, token, "closed", |handler, conn| {
            handler.closed(conn, reason);
            Ok(())
        });
        let Some(member) = self.members.remove(member) else { return };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(member))) {
            core.handler_panicked(token, "closed", &*payload);
        }
    }
}

/// Whether `bytes` hold a complete frame, behind what the codec skips. If the peer `is_finished`,
/// their end may be the end of one.
fn begins_with_frame<C: Codec>(mut codec: C, mut bytes: &[u8], is_finished: bool) -> bool {
    while !bytes.is_empty() {
        match codec.decode(bytes) {
            Ok(Decoded::Frame { .. }) => return true,
            Ok(Decoded::Skip(count)) => bytes = bytes.get(count.max(1)..).unwrap_or_default(),
            Ok(Decoded::Incomplete { .. }) => {
                return is_finished && matches!(codec.decode_end(bytes), Ok(Some(_)));
            }
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::begins_with_frame;
    use crate::codec::{Codec, Decoded, FrameError, Lines};

    /// Lines, of which the last needs no end.
    #[derive(Clone)]
    struct LastLine(Lines);

    impl Codec for LastLine {
        type Frame<'a> = &'a [u8];

        fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
            self.0.decode(input)
        }

        fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
            Ok(Some(tail))
        }
    }

    #[test]
    fn a_frame_is_found_where_it_is_complete() {
        for (bytes, complete, complete_at_end) in [
            (&b""[..], false, false),
            (b"half a requ", false, true),
            (b"one\nhalf", true, true),
            (b"\n", true, true),
            (b"too long to be a line", false, false),
        ] {
            let codec = || LastLine(Lines::with_max(12));
            assert_eq!(begins_with_frame(codec(), bytes, false), complete, "{bytes:?}");
            assert_eq!(begins_with_frame(codec(), bytes, true), complete_at_end, "{bytes:?}, end");
            assert_eq!(begins_with_frame(Lines::with_max(12), bytes, true), complete, "{bytes:?}");
        }
    }
}
