//! What becomes of a send, which may be done at once.
//!
//! ```text
//!  flush ── send ──▶ done ────────────────────────────▶ sent
//!             │                                         ▲
//!             ├────▶ in flight: await_sent ── reported ─┤
//!             └────▶ failed ────────────────────────────┴▶ send_failed: again later, or the end
//! ```

use std::{io, time::Duration};

use super::{core::Core, slot::Slot, throttle::Notice};
use crate::{
    conn::{buffer::Buffer, deadlines::Kind},
    error::CloseReason,
};

/// How long the kernel is left alone when it had no buffers for a send.
const RETRY: Duration = Duration::from_millis(50);

impl Core {
    /// The kernel took `count` bytes of `batch`.
    #[inline(always)]
    pub(super) fn sent(&mut self, slot: &mut Slot, count: usize, batch: Buffer) {
        slot.rules.counters.sent_bytes.add(count);
        if slot.sent(count) {
            self.watch_sent(slot, count);
        }
        if let Some(spare) = slot.conn.sent(count, batch) {
            self.pool.put(spare);
        }
        if slot.is_relieved() {
            self.mark_runnable(slot);
        }
    }

    /// The kernel took nothing of `batch`.
    #[cold]
    pub(super) fn send_failed(&mut self, slot: &mut Slot, error: io::Error, batch: Buffer) {
        slot.conn.sent(0, batch);
        if is_out_of_buffers(&error) && slot.conn.sends_records() {
            // No edge will come when there are buffers again.
            if let Some(left_out) = self.notice(Notice::Send) {
                let peer = slot.peer();
                tracing::warn!(%peer, left_out, "the kernel is out of buffers: {error}");
            }
            self.arm(slot, Kind::Retry, RETRY);
        } else {
            self.fail(slot, CloseReason::Broken(error), false);
        }
    }

    /// Bytes went out on a connection on which more than usual depends on that.
    #[inline(never)]
    fn watch_sent(&mut self, slot: &mut Slot, count: usize) {
        self.is_active(slot);
        slot.watch_sent(count);
        if slot.conn.is_encrypted() && slot.is_unused() {
            // Now it may be unused.
            self.mark_dirty(slot);
        }
    }

    /// A send is in flight: from now on the peer has to take some of it in time. It is soon asked
    /// what the peer's kernel has not acknowledged, and from then on the time runs.
    pub(super) fn await_sent(&mut self, slot: &mut Slot) {
        if let Some(timeout) = slot.rules().write_timeout {
            self.arm(slot, Kind::Write, timeout / 16);
        }
    }
}

/// Whether the kernel lacks memory, which passes.
fn is_out_of_buffers(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::OutOfMemory || Errno::from_io_error(error) == Some(Errno::NOBUFS)
}
