//! A batch of bytes: its frames are found and handled one after the other, until something stops it.
//!
//! ```text
//!  bytes ──▶ decode ──▶ frames.frame(conn, frame) ──┐
//!              ▲                                     │ until nothing is complete,
//!              └─────────────────────────────────────┘ or the connection may not go on
//! ```

use std::{
    any::{Any, type_name},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::Typed;
use crate::{
    codec::{Codec, Decoded, FrameError},
    conn::output::Origin,
    context::Conn,
    engine::{core::Core, service::Scope, slot::Slot},
    handler::{Failure, Frames, Handler, NotYet},
};

/// Why the handling of a batch of bytes stopped.
pub(super) enum Stop {
    /// Everything that is complete has been handled.
    Incomplete,
    /// The connection may not handle more now: pressure, a pause, or it closes.
    Held,
    /// It had its turn.
    TurnOver,
    /// Something ends the connection.
    Trouble(Box<Trouble>),
}

/// What ends a connection in the middle of a batch.
pub(super) enum Trouble {
    Rejected(FrameError),
    Failed(Failure),
    Panicked(Box<dyn Any + Send>),
    /// The codec took `consumed` of `have` bytes, which cannot be.
    Miscounted {
        consumed: usize,
        have: usize,
    },
}

impl Trouble {
    #[cold]
    fn stop(self) -> Stop {
        Stop::Trouble(Box::new(self))
    }
}

/// A batch, as far as it has been handled.
pub(super) struct Batch<'a> {
    /// What no frame has taken yet.
    pub(super) rest: &'a [u8],
    pub(super) frames: usize,
    /// The stream ends behind it, and that may end a frame.
    pub(super) is_tail: bool,
}

impl<H: Handler, F: Frames<H>> Typed<H, F> {
    /// Handles what was kept, after more of it arrived or after it was held.
    #[inline(never)]
    pub(super) fn handle_kept(&mut self, mut scope: Scope<'_>) {
        let Some(kept) = scope.entry.slot.conn.take_kept() else { return };
        let mut batch = Batch { rest: kept.bytes(), frames: 0, is_tail: false };
        let stop = self.handle(&mut scope, &mut batch);
        let consumed = kept.len() - batch.rest.len();
        if let Some(spare) = scope.entry.slot.conn.keep_rest(kept, consumed) {
            scope.core.pool.put(spare);
        }
        self.stopped(scope, consumed > 0, stop);
    }

    /// Handles the frames of a batch.
    #[inline(always)]
    pub(super) fn handle(&mut self, scope: &mut Scope<'_>, batch: &mut Batch<'_>) -> Stop {
        let Some(mut conn) = Conn::begin(scope, Origin::Reply) else { return Stop::Held };
        let began = conn.core.callback_begins(conn.slot);
        let stop =
            catch_unwind(AssertUnwindSafe(|| handle_frames(&mut self.frames, &mut conn, batch)));
        conn.slot.rules.counters.frames.add(batch.frames);
        let stop = stop.unwrap_or_else(|payload| {
            conn.output.take_back();
            // The connection closes, and nobody asks for the rest.
            batch.rest = &[];
            Trouble::Panicked(payload).stop()
        });
        let Conn { core, slot, output, .. } = conn;
        core.end_output(slot, output, batch.frames);
        core.callback_ends(slot, "frame", began);
        stop
    }

    /// Decides how a connection goes on after a batch.
    #[inline(never)]
    pub(super) fn stopped(&mut self, scope: Scope<'_>, is_new: bool, stop: Stop) {
        let (core, slot) = (&mut *scope.core, &mut scope.entry.slot);
        match stop {
            Stop::Incomplete => await_frame(core, slot, is_new),
            Stop::Held => core.hold(slot, false),
            Stop::TurnOver => core.hold(slot, true),
            Stop::Trouble(trouble) => match *trouble {
                Trouble::Rejected(error) => self.reject(scope, error),
                Trouble::Failed(error) => core.handler_failed(slot, error),
                Trouble::Panicked(payload) => core.handler_panicked(slot, "frame", &*payload),
                Trouble::Miscounted { consumed, have } => {
                    core.codec_miscounted(slot, type_name::<H::Codec>(), consumed, have);
                }
            },
        }
    }
}

#[inline(always)]
fn handle_frames<H: Handler>(
    frames: &mut impl Frames<H>,
    conn: &mut Conn<'_, H>,
    batch: &mut Batch<'_>,
) -> Stop {
    let mut rest = batch.rest;
    let mut left = conn.slot.rules.frames_per_turn;
    let stop = loop {
        if left == 0 {
            break Stop::TurnOver;
        }
        if rest.is_empty() {
            break Stop::Incomplete;
        }
        left -= 1;
        conn.output.begin_callback();
        let codec = &mut conn.member.codec;
        let decoded = if batch.is_tail { decode_tail(codec, rest) } else { codec.decode(rest) };
        let (frame, consumed) = match decoded {
            Ok(Decoded::Frame { frame, consumed }) => (Some(frame), consumed),
            Ok(Decoded::Skip(consumed)) => (None, consumed),
            Ok(Decoded::Incomplete { .. }) => break Stop::Incomplete,
            Err(error) => break Trouble::Rejected(error).stop(),
        };
        // It took at least a byte, and no more than there is, or the codec has a defect. Nobody knows
        // then where the next frame begins, nor whether this is one.
        match rest.get(consumed..) {
            Some(behind) if consumed > 0 => rest = behind,
            _ => break Trouble::Miscounted { consumed, have: rest.len() }.stop(),
        }
        if let Some(frame) = frame {
            batch.frames += 1;
            if let Err(error) = frames.frame(conn, frame) {
                if error.is::<NotYet>() {
                    batch.frames -= 1;
                    rest = last(batch.rest, rest.len() + consumed);
                    break Stop::Held;
                }
                break Trouble::Failed(error).stop();
            }
        }
        if !conn.slot.conn.bars().is_none() {
            break Stop::Held;
        }
        if conn.output.is_turn_over() {
            break Stop::TurnOver;
        }
    };
    batch.rest = rest;
    stop
}

/// The last bytes, so many.
#[cold]
fn last(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(bytes.len() - count..).unwrap_or_default()
}

/// Decodes what is left when the peer has finished.
#[cold]
fn decode_tail<'a, C: Codec>(
    codec: &mut C,
    tail: &'a [u8],
) -> Result<Decoded<C::Frame<'a>>, FrameError> {
    let frame = codec.decode_end(tail)?;
    Ok(match frame {
        Some(frame) => Decoded::Frame { frame, consumed: tail.len() },
        None => Decoded::Incomplete { need: 1 },
    })
}

/// The start of a frame is here and the rest is not, or nothing is.
fn await_frame(core: &mut Core, slot: &mut Slot, is_new: bool) {
    core.mark_dirty(slot);
    if is_new {
        slot.owes_nothing();
    }
    core.await_rest(slot, !slot.conn.kept().is_empty(), is_new);
}
