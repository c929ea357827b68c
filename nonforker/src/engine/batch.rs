//! A batch of bytes: its frames are found and handled one after the other, until something stops it.
//!
//! ```text
//!  bytes ──▶ decode ──▶ handler.frame(conn, frame) ──┐
//!              ▲                                     │ until nothing is complete,
//!              └─────────────────────────────────────┘ or the connection may not go on
//! ```
//!
//! Within a batch everything is static and at hand: see [`Replies`](super::replies::Replies).

use std::{
    any::{Any, type_name},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    core::{Core, NOT_ASKED},
    service::Typed,
    throttle::Notice,
};
use crate::{
    codec::{Codec, Decoded, FrameError},
    conn::deadlines::Kind,
    context::{Conn, Origin},
    driver::Token,
    error::CloseReason,
    handler::Handler,
};

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
    /// The codec took `consumed` of `have` bytes, which cannot be.
    Miscounted {
        consumed: usize,
        have: usize,
    },
}

impl<C: Codec, H: Handler<C>> Typed<C, H> {
    /// Handles what the driver lends, in place. Keeps what no frame took.
    #[inline(always)]
    pub(super) fn handle_lent(&mut self, core: &mut Core, token: Token, bytes: &[u8]) {
        let (rest, stop) = self.frames(core, token, bytes);
        if rest.is_empty() && matches!(stop, Stop::Incomplete) {
            return;
        }
        if matches!(stop, Stop::Incomplete | Stop::Held | Stop::Budget) {
            core.keep(token, rest);
        }
        self.stopped(core, token, rest.len() < bytes.len(), stop);
    }

    /// Handles what was kept, after more of it arrived or after it was held.
    #[inline(never)]
    pub(super) fn handle_kept(&mut self, core: &mut Core, token: Token) {
        let Some(slot) = core.slots.get_mut(token) else { return };
        let Some(kept) = slot.conn.inbound.take() else { return };
        let (rest, stop) = self.frames(core, token, kept.bytes());
        let consumed = kept.len() - rest.len();
        let Some(slot) = core.slots.get_mut(token) else { return };
        if let Some(spare) = slot.conn.inbound.give_back(kept, consumed) {
            core.pool.put(spare);
        }
        self.stopped(core, token, consumed > 0, stop);
    }

    /// Handles the frames in `input`. Returns what no frame took, and why it stopped.
    #[inline(always)]
    fn frames<'a>(&mut self, core: &mut Core, token: Token, input: &'a [u8]) -> (&'a [u8], Stop) {
        let Self { members, handler, .. } = self;
        let Some(mut replies) = core.lend(members, token) else { return (&[], Stop::Held) };
        let member = replies.member;
        let origin = Origin::Reply;
        let began = core.callback_begins();
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let replies = &mut replies;
            handle(handler, Conn { core, members, token, member, replies, origin }, input)
        }));
        core.counters.frames.add(replies.frames);
        // After a panic the connection closes, and nobody asks for the rest.
        let handled = handled.unwrap_or_else(|payload| {
            replies.take_back();
            (&[], Stop::Panicked(payload))
        });
        core.settle(members, token, replies);
        core.callback_ends(token, "frame", began);
        handled
    }

    /// Decides how a connection goes on after a batch.
    #[inline(never)]
    fn stopped(&mut self, core: &mut Core, token: Token, is_new: bool, stop: Stop) {
        match stop {
            Stop::Incomplete => core.await_frame(token, is_new),
            Stop::Held | Stop::Budget => core.hold(token, matches!(stop, Stop::Budget)),
            Stop::Rejected(error) => self.reject(core, token, error),
            Stop::Failed(error) => core.handler_failed(token, error),
            Stop::Panicked(payload) => core.handler_panicked(token, "frame", &*payload),
            Stop::Miscounted { consumed, have } => {
                core.codec_miscounted(token, type_name::<C>(), consumed, have);
            }
        }
    }
}

fn handle<'a, C: Codec, H: Handler<C>>(
    handler: &mut H,
    mut conn: Conn<'_, C, H::Session>,
    mut rest: &'a [u8],
) -> (&'a [u8], Stop) {
    for _ in 0..conn.core.limits.frames_per_turn {
        if rest.is_empty() {
            return (rest, Stop::Incomplete);
        }
        conn.replies.begin_callback();
        match conn.replies.codec.decode(rest) {
            Ok(Decoded::Frame { frame, consumed }) => {
                let Some(behind) = behind(rest, consumed) else {
                    return (rest, Stop::Miscounted { consumed, have: rest.len() });
                };
                rest = behind;
                conn.replies.frames += 1;
                if let Err(error) = handler.frame(&mut conn, frame) {
                    return (rest, Stop::Failed(error));
                }
            }
            Ok(Decoded::Skip(consumed)) => {
                let Some(behind) = behind(rest, consumed) else {
                    return (rest, Stop::Miscounted { consumed, have: rest.len() });
                };
                rest = behind;
            }
            Ok(Decoded::Incomplete { .. }) => return (rest, Stop::Incomplete),
            Err(error) => return (rest, Stop::Rejected(error)),
        }
        if conn.replies.stops() {
            let stop = if conn.replies.had_its_turn() { Stop::Budget } else { Stop::Held };
            return (rest, stop);
        }
    }
    (rest, Stop::Budget)
}

/// What is behind a frame: it took at least a byte, and no more than there is, or the codec has a
/// defect. Nobody knows then where the next frame begins, nor whether this is one.
#[inline]
fn behind(bytes: &[u8], consumed: usize) -> Option<&[u8]> {
    if consumed == 0 { None } else { bytes.get(consumed..) }
}

impl Core {
    /// The start of a frame is here and the rest is not, or nothing is.
    fn await_frame(&mut self, token: Token, is_new: bool) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.mark_dirty(token, &mut self.dirty);
        if is_new {
            slot.owed = NOT_ASKED;
        }
        if slot.conn.inbound.is_empty() {
            slot.conn.deadlines.clear(Kind::Frame);
        } else if let Some(timeout) = self.limits.frame_timeout
            && (is_new || slot.conn.deadlines.get(Kind::Frame).is_none())
        {
            self.arm(token, Kind::Frame, timeout);
        }
    }

    /// Frames may be here that have to wait: for us, so the peer's deadline stops.
    pub(super) fn hold(&mut self, token: Token, had_its_turn: bool) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.mark_dirty(token, &mut self.dirty);
        slot.conn.deadlines.clear(Kind::Frame);
        slot.conn.inbound.held = slot.conn.state().handles() && !slot.conn.inbound.is_empty();
        if slot.conn.inbound.held && had_its_turn {
            self.mark_runnable(token);
        }
    }

    pub(super) fn handler_failed(
        &mut self,
        token: Token,
        error: Box<dyn std::error::Error + Send + Sync>,
    ) {
        let now = self.tick();
        if let Some(left_out) = self.throttles.pass(Notice::Handler, now)
            && let Some(slot) = self.slots.get(token)
        {
            tracing::warn!(peer = %slot.peer.peer(), left_out, "the handler failed: {error}");
        }
        self.close(token, CloseReason::HandlerFailed(error));
    }

    pub(super) fn handler_panicked(
        &mut self,
        token: Token,
        callback: &str,
        payload: &(dyn Any + Send),
    ) {
        self.counters.panics.add(1);
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        if let Some(slot) = self.slots.get(token) {
            tracing::error!(peer = %slot.peer.peer(), callback, "the handler panicked: {message}");
        }
        self.close(token, CloseReason::Panicked);
    }

    /// The codec broke the contract of [`Decoded`].
    #[cold]
    fn codec_miscounted(&mut self, token: Token, codec: &str, consumed: usize, have: usize) {
        self.counters.codec_defects.add(1);
        let now = self.tick();
        if let Some(left_out) = self.throttles.pass(Notice::Codec, now)
            && let Some(slot) = self.slots.get(token)
        {
            tracing::error!(
                peer = %slot.peer.peer(), codec, left_out,
                "the codec has a defect: it took {consumed} of {have} bytes"
            );
        }
        self.close(token, CloseReason::CodecDefect);
    }
}
