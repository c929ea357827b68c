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
    conn::{deadlines::Kind, output::Origin},
    context::Conn,
    engine::{core::Core, service::Scope, slot::Slot},
    handler::{Failure, Frames, Handler},
};

/// Why the handling of a batch of bytes stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Everything that is complete has been handled.
    Incomplete,
    /// The connection may not handle more now: pressure, a pause, or it closes.
    Held,
    /// It had its turn.
    TurnOver,
    /// One of the [`Trouble`]s.
    Trouble,
}

/// What ends a connection in the middle of a batch.
enum Trouble {
    Rejected(FrameError),
    Failed(Failure),
    Panicked(Box<dyn Any + Send>),
    /// The codec took `consumed` of `have` bytes, which cannot be.
    Miscounted {
        consumed: usize,
        have: usize,
    },
}

/// A batch, as far as it has been handled.
struct Batch<'a> {
    /// What no frame has taken yet.
    rest: &'a [u8],
    frames: usize,
    trouble: Option<Trouble>,
}

impl Batch<'_> {
    #[cold]
    fn ends(&mut self, trouble: Trouble) -> Stop {
        self.trouble = Some(trouble);
        Stop::Trouble
    }
}

impl<H: Handler, F: Frames<H>> Typed<H, F> {
    /// Handles what the driver lends, in place. Keeps what no frame took.
    #[inline(always)]
    pub(super) fn handle_lent(&mut self, mut scope: Scope<'_>, bytes: &[u8]) {
        let mut batch = Batch { rest: bytes, frames: 0, trouble: None };
        let stop = self.handle(scope.again(), &mut batch);
        if batch.rest.is_empty() && stop == Stop::Incomplete {
            return;
        }
        if stop != Stop::Trouble {
            scope.core.keep(&mut scope.entry.slot, batch.rest);
        }
        self.stopped(scope, batch.rest.len() < bytes.len(), stop, batch.trouble);
    }

    /// Handles what was kept, after more of it arrived or after it was held.
    #[inline(never)]
    pub(super) fn handle_kept(&mut self, mut scope: Scope<'_>) {
        let Some(kept) = scope.entry.slot.conn.take_kept() else { return };
        let mut batch = Batch { rest: kept.bytes(), frames: 0, trouble: None };
        let stop = self.handle(scope.again(), &mut batch);
        let consumed = kept.len() - batch.rest.len();
        let trouble = batch.trouble;
        if let Some(spare) = scope.entry.slot.conn.keep_rest(kept, consumed) {
            scope.core.pool.put(spare);
        }
        self.stopped(scope, consumed > 0, stop, trouble);
    }

    /// Handles the frames of a batch.
    #[inline(always)]
    fn handle(&mut self, scope: Scope<'_>, batch: &mut Batch<'_>) -> Stop {
        let Some(mut conn) = Conn::begin(scope, Origin::Reply) else { return Stop::Held };
        let began = conn.core.callback_begins(conn.slot);
        let stop =
            catch_unwind(AssertUnwindSafe(|| handle_frames(&mut self.frames, &mut conn, batch)));
        conn.slot.counters().frames.add(batch.frames);
        let stop = stop.unwrap_or_else(|payload| {
            conn.output.take_back();
            // The connection closes, and nobody asks for the rest.
            batch.rest = &[];
            batch.trouble = Some(Trouble::Panicked(payload));
            Stop::Trouble
        });
        let (core, slot) = conn.end(batch.frames);
        core.callback_ends(slot, "frame", began);
        stop
    }

    /// Decides how a connection goes on after a batch.
    #[inline(never)]
    fn stopped(&mut self, scope: Scope<'_>, is_new: bool, stop: Stop, trouble: Option<Trouble>) {
        let (core, slot) = (&mut *scope.core, &mut scope.entry.slot);
        match stop {
            Stop::Incomplete => await_frame(core, slot, is_new),
            Stop::Held | Stop::TurnOver => hold(core, slot, stop == Stop::TurnOver),
            Stop::Trouble => match trouble {
                Some(Trouble::Rejected(error)) => self.reject(scope, error),
                Some(Trouble::Failed(error)) => core.handler_failed(slot, error),
                Some(Trouble::Panicked(payload)) => core.handler_panicked(slot, "frame", &*payload),
                Some(Trouble::Miscounted { consumed, have }) => {
                    core.codec_miscounted(slot, type_name::<H::Codec>(), consumed, have);
                }
                None => {}
            },
        }
    }
}

fn handle_frames<H: Handler>(
    frames: &mut impl Frames<H>,
    conn: &mut Conn<'_, H>,
    batch: &mut Batch<'_>,
) -> Stop {
    for _ in 0..conn.slot.rules().frames_per_turn {
        let have = batch.rest.len();
        if have == 0 {
            return Stop::Incomplete;
        }
        conn.output.begin_callback(Origin::Reply);
        match conn.member.codec.decode(batch.rest) {
            Ok(Decoded::Frame { frame, consumed }) => {
                let Some(behind) = behind(batch.rest, consumed) else {
                    return batch.ends(Trouble::Miscounted { consumed, have });
                };
                batch.rest = behind;
                batch.frames += 1;
                if let Err(error) = frames.frame(conn, frame) {
                    return batch.ends(Trouble::Failed(error));
                }
            }
            Ok(Decoded::Skip(consumed)) => {
                let Some(behind) = behind(batch.rest, consumed) else {
                    return batch.ends(Trouble::Miscounted { consumed, have });
                };
                batch.rest = behind;
            }
            Ok(Decoded::Incomplete { .. }) => return Stop::Incomplete,
            Err(error) => return batch.ends(Trouble::Rejected(error)),
        }
        if !conn.slot.conn.bars().is_none() {
            return Stop::Held;
        }
        if conn.output.is_turn_over() {
            return Stop::TurnOver;
        }
    }
    Stop::TurnOver
}

/// What is behind a frame: it took at least a byte, and no more than there is, or the codec has a
/// defect. Nobody knows then where the next frame begins, nor whether this is one.
#[inline]
fn behind(bytes: &[u8], consumed: usize) -> Option<&[u8]> {
    if consumed == 0 { None } else { bytes.get(consumed..) }
}

/// The start of a frame is here and the rest is not, or nothing is.
fn await_frame(core: &mut Core, slot: &mut Slot, is_new: bool) {
    core.mark_dirty(slot);
    if is_new {
        slot.owes_nothing();
    }
    if slot.conn.kept().is_empty() {
        slot.conn.deadlines().clear(Kind::Frame);
    } else if let Some(timeout) = slot.rules().frame_timeout
        && (is_new || slot.conn.deadline(Kind::Frame).is_none())
    {
        core.arm(slot, Kind::Frame, timeout);
    }
}

/// Frames may be here that have to wait: for us, so the peer's deadline stops.
pub(super) fn hold(core: &mut Core, slot: &mut Slot, is_turn_over: bool) {
    core.mark_dirty(slot);
    slot.conn.deadlines().clear(Kind::Frame);
    if slot.conn.hold() && is_turn_over {
        core.mark_runnable(slot);
    }
}
