//! Where bytes become frames and frames become calls: a codec and a handler, their types erased.
//!
//! ```text
//!  received(bytes) ─┐                             ┌─▶ handler.frame(conn, frame)
//!                   ├─▶ frames(): decode, handle ─┤
//!  advance()  ──────┘   until something stops it  └─▶ why it stopped: Stop
//!   (what was kept)
//! ```
//!
//! The engine sees a [`Service`], one dynamic call per batch of bytes; within the batch
//! everything is static. Frames are decoded where the bytes lie, in the driver's memory if nothing
//! was kept.
//!
//! Codec and handler are the user's. Whatever they panic with ends the one connection they were
//! called for: each entry here catches it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::core::{Core, MemberKey};
use crate::{
    codec::{Codec, Decoded, FrameError},
    conn::deadlines::Kind,
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
    /// An urgent byte arrived.
    fn urgent(&mut self, core: &mut Core, token: Token, byte: u8);
    /// Pressure fell.
    fn relieved(&mut self, core: &mut Core, token: Token);
    /// The handler's timer is due.
    fn timer(&mut self, core: &mut Core, token: Token);
    /// The connection has ended. Its codec and its session go.
    fn closed(&mut self, core: &mut Core, token: Token, reason: &CloseReason);
}

/// Why the handling of a batch of bytes stopped.
enum Stop {
    /// Everything that is complete has been handled.
    Incomplete,
    /// The connection may not handle more now: pressure, a pause, or it closes.
    Held,
    /// It had its turn.
    Budget,
    Rejected(FrameError),
    Failed(Box<dyn std::error::Error + Send + Sync>),
    Panicked(Box<dyn Any + Send>),
}

/// A [`Service`] whose types are known.
pub(crate) struct Typed<C: Codec, H: Handler<C>> {
    prototype: C,
    handler: H,
    members: Members<C, H::Session>,
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
        let Some(slot) = core.slots.get(token) else { return };
        let (member, mark) = (slot.member, slot.conn.outbound.mark());
        let Self { handler, members, .. } = self;
        let called = catch_unwind(AssertUnwindSafe(|| {
            call(handler, &mut Conn { core, members, token, member, origin: Origin::Push })
        }));
        match called {
            Ok(Ok(())) => {}
            Ok(Err(error)) => core.handler_failed(token, error),
            Err(payload) => core.handler_panicked(token, callback, mark, &*payload),
        }
    }

    /// Handles the frames in `input`. Returns how many bytes they took and why it stopped.
    fn frames(&mut self, core: &mut Core, token: Token, input: &[u8]) -> (usize, Stop) {
        let Some(slot) = core.slots.get(token) else { return (input.len(), Stop::Held) };
        let mut batch = Batch { input, at: 0, frames: 0, mark: slot.conn.outbound.mark() };
        let member = slot.member;
        let stop =
            catch_unwind(AssertUnwindSafe(|| self.handle_batch(core, token, member, &mut batch)));
        core.counters.frames.add(batch.frames);
        if stop.is_err()
            && let Some(slot) = core.slots.get_mut(token)
        {
            slot.conn.outbound.truncate(batch.mark);
        }
        (batch.at, stop.unwrap_or_else(Stop::Panicked))
    }

    fn handle_batch(
        &mut self,
        core: &mut Core,
        token: Token,
        member: MemberKey,
        batch: &mut Batch<'_>,
    ) -> Stop {
        for _ in 0..core.limits.frames_per_turn {
            let rest = &batch.input[batch.at..];
            if rest.is_empty() {
                return Stop::Incomplete;
            }
            let members = &mut self.members;
            match members[member].codec.decode(rest) {
                Ok(Decoded::Frame { frame, consumed }) => {
                    debug_assert!((1..=rest.len()).contains(&consumed), "see Decoded::Frame");
                    batch.at += consumed.clamp(1, rest.len());
                    batch.frames += 1;
                    let mut conn = Conn { core, members, token, member, origin: Origin::Reply };
                    if let Err(error) = self.handler.frame(&mut conn, frame) {
                        return Stop::Failed(error);
                    }
                }
                Ok(Decoded::Skip(count)) => {
                    debug_assert!((1..=rest.len()).contains(&count), "see Decoded::Skip");
                    batch.at += count.clamp(1, rest.len());
                }
                Ok(Decoded::Incomplete { .. }) => return Stop::Incomplete,
                Err(error) => return Stop::Rejected(error),
            }
            match core.slots.get(token) {
                Some(slot) if slot.conn.may_handle() => batch.mark = slot.conn.outbound.mark(),
                _ => return Stop::Held,
            }
        }
        Stop::Budget
    }

    /// Handles what was kept, after more of it arrived or after it was held.
    fn handle_kept(&mut self, core: &mut Core, token: Token) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        let opened = slot.conn.inbound.open();
        let (consumed, stop) = self.frames(core, token, opened.bytes());
        let Some(slot) = core.slots.get_mut(token) else { return };
        let spare = slot.conn.inbound.close(opened, consumed);
        core.pool.put(spare);
        self.stopped(core, token, consumed, stop);
    }

    /// Decides how a connection goes on after a batch.
    fn stopped(&mut self, core: &mut Core, token: Token, consumed: usize, stop: Stop) {
        core.mark_dirty(token);
        match stop {
            Stop::Incomplete => core.await_frame(token, consumed > 0),
            Stop::Held | Stop::Budget => core.hold(token, matches!(stop, Stop::Budget)),
            Stop::Rejected(error) => self.reject(core, token, error),
            Stop::Failed(error) => core.handler_failed(token, error),
            Stop::Panicked(payload) => {
                let mark = core.slots.get(token).map_or(0, |slot| slot.conn.outbound.mark());
                core.handler_panicked(token, "frame", mark, &*payload);
            }
        }
    }

    fn reject(&mut self, core: &mut Core, token: Token, error: FrameError) {
        self.call(core, token, "rejected", |handler, conn| {
            handler.rejected(conn, &error);
            Ok(())
        });
        core.close(token, CloseReason::Rejected(error));
    }

    /// All frames are handled and no more bytes will come.
    fn end(&mut self, core: &mut Core, token: Token) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        if slot.conn.cut {
            core.close(token, CloseReason::Drained);
            return;
        }
        if std::mem::replace(&mut slot.told_end, true) {
            return;
        }
        let tail = slot.conn.inbound.open();
        slot.conn.deadlines.clear(Kind::Frame);
        if !tail.bytes().is_empty() {
            self.end_tail(core, token, tail.bytes());
        }
        if let Some(slot) = core.slots.get_mut(token) {
            let length = tail.bytes().len();
            core.pool.put(slot.conn.inbound.close(tail, length));
            if core.slots[token].conn.state().handles() {
                self.call(core, token, "half_closed", Handler::half_closed);
            }
        }
        core.mark_dirty(token);
    }

    /// The peer has finished behind bytes that are not a complete frame.
    fn end_tail(&mut self, core: &mut Core, token: Token, tail: &[u8]) {
        let mut rejected = None;
        self.call(core, token, "frame", |handler, conn| {
            conn.origin = Origin::Reply;
            match conn.members[conn.member].codec.decode_end(tail) {
                Ok(Some(frame)) => {
                    conn.core.counters.frames.add(1);
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

/// One batch of bytes while it is handled.
struct Batch<'a> {
    input: &'a [u8],
    /// Where the next frame begins.
    at: usize,
    frames: usize,
    /// Where the output of the present callback begins, to be taken back if it panics.
    mark: usize,
}

impl<C: Codec, H: Handler<C>> Service for Typed<C, H> {
    fn open(&mut self, core: &mut Core, token: Token) {
        let Self { prototype, members, .. } = self;
        let made = catch_unwind(AssertUnwindSafe(|| {
            members.insert(Member { codec: prototype.clone(), session: Default::default() })
        }));
        match made {
            Ok(member) => {
                core.slots[token].member = member;
                self.call(core, token, "open", Handler::open);
            }
            Err(payload) => core.handler_panicked(token, "session", 0, &*payload),
        }
    }

    fn received(&mut self, core: &mut Core, token: Token, bytes: &[u8]) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        let may_handle = slot.conn.may_handle() && !slot.conn.inbound.held;
        if may_handle && slot.conn.inbound.is_empty() {
            let (consumed, stop) = self.frames(core, token, bytes);
            if matches!(stop, Stop::Incomplete | Stop::Held | Stop::Budget) {
                core.keep(token, &bytes[consumed..]);
            }
            self.stopped(core, token, consumed, stop);
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

    fn urgent(&mut self, core: &mut Core, token: Token, byte: u8) {
        self.call(core, token, "urgent", |handler, conn| handler.urgent(conn, byte));
    }

    fn relieved(&mut self, core: &mut Core, token: Token) {
        self.call(core, token, "relieved", Handler::relieved);
    }

    fn timer(&mut self, core: &mut Core, token: Token) {
        self.call(core, token, "timer", Handler::timer);
    }

    fn closed(&mut self, core: &mut Core, token: Token, reason: &CloseReason) {
        let member = core.slots[token].member;
        if !self.members.contains_key(member) {
            return;
        }
        self.call(core, token, "closed", |handler, conn| {
            handler.closed(conn, reason);
            drop(conn.members.remove(member));
            Ok(())
        });
        // Only if the callback panicked is it still there.
        let Some(member) = self.members.remove(member) else { return };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(member)));
    }
}

impl Core {
    /// The start of a frame is here and the rest is not, or nothing is.
    fn await_frame(&mut self, token: Token, is_new: bool) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        if slot.conn.inbound.is_empty() {
            slot.conn.deadlines.clear(Kind::Frame);
        } else if let Some(timeout) = self.limits.frame_timeout
            && (is_new || slot.conn.deadlines.get(Kind::Frame).is_none())
        {
            self.arm(token, Kind::Frame, timeout);
        }
    }

    /// Frames may be here that have to wait: for us, so the peer's deadline stops.
    fn hold(&mut self, token: Token, had_its_turn: bool) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.conn.deadlines.clear(Kind::Frame);
        slot.conn.inbound.held = slot.conn.state().handles() && !slot.conn.inbound.is_empty();
        if slot.conn.inbound.held && had_its_turn {
            self.mark_runnable(token);
        }
    }

    fn handler_failed(&mut self, token: Token, error: Box<dyn std::error::Error + Send + Sync>) {
        let now = self.tick();
        if let Some(left_out) = self.throttles.handler.pass(now)
            && let Some(slot) = self.slots.get(token)
        {
            tracing::warn!(peer = %slot.peer, left_out, "the handler failed: {error}");
        }
        self.close(token, CloseReason::HandlerFailed(error));
    }

    fn handler_panicked(
        &mut self,
        token: Token,
        callback: &str,
        mark: usize,
        payload: &(dyn Any + Send),
    ) {
        self.counters.panics.add(1);
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        if let Some(slot) = self.slots.get_mut(token) {
            slot.conn.outbound.truncate(mark);
            tracing::error!(peer = %slot.peer, callback, "the handler panicked: {message}");
        }
        self.close(token, CloseReason::Panicked);
    }
}
