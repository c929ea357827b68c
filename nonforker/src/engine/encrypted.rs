//! Connections whose pipe is TLS: their bytes on the way in and out, and their handshakes.
//!
//! ```text
//!  received ──▶ decrypt, a record ──▶ service ──▶ again, until no record is complete
//!                 │ said                             │ before the next record:
//!                 ▼                                  ▼ what is queued is sealed
//!               sealed ◀────────────────────────── pending        flush: at most 64 KiB at a time
//! ```
//!
//! A handshake takes a tenth of a millisecond, in which nobody else is served. So a turn has at most
//! [`STEPS_MAX`] steps of them; the others wait for the next turns, and are not received from meanwhile.
//! How many handshakes may be under way is bounded too: beyond it the oldest goes, and no client waits
//! until the silence of others has been long enough.

use std::collections::VecDeque;

use super::{
    core::{COLLECTED_MAX, Core},
    shard::Shard,
    slot::Slot,
    table::{Entry, Table},
};
use crate::{
    conn::{buffer::Buffer, deadlines::Kind, encrypted::Step, state::State},
    driver::Token,
    error::CloseReason,
    tls::{Tls, TlsError},
};

/// The most steps of handshakes in a turn.
const STEPS_MAX: usize = 4;

/// A reply takes so many bytes more when it is sealed, at most, for each 16 KiB.
const OVERHEAD: usize = 64;

/// The handshakes of a shard.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// How many are under way.
    open: usize,
    /// Those, and some that are not any more: the oldest first.
    queue: VecDeque<Token>,
    /// The steps of the present turn.
    steps: usize,
}

impl Handshakes {
    /// A turn begins.
    pub(super) const fn begin_turn(&mut self) {
        self.steps = 0;
    }

    /// Whether one more step fits in this turn.
    const fn take_step(&mut self) -> bool {
        self.steps += 1;
        self.steps <= STEPS_MAX
    }

    /// How many are under way.
    pub(super) const fn open(&self) -> usize {
        self.open
    }
}

/// What decrypting needs for a moment.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    plain: Vec<u8>,
    said: Vec<u8>,
    spares: Vec<Buffer>,
}

/// The plaintext of a record: more is not kept.
const SCRATCH_MAX: usize = 32 << 10;

impl<S> Shard<S> {
    /// Bytes of a connection whose pipe is TLS.
    #[inline(never)]
    pub(super) fn received_encrypted(&mut self, entry: &mut Entry, bytes: &mut [u8]) {
        let (slot, core) = (&mut entry.slot, &mut self.core);
        let state = slot.conn.state();
        if state.discards() {
            return core.discarded(slot, bytes.len());
        }
        // What follows a close_notify is to be ignored.
        if !state.handles() && state != State::Arriving || slot.conn.is_deaf() {
            return;
        }
        slot.conn.hand_over_kept();
        if slot.conn.has_unread_records()
            || slot.conn.defers_records()
            || slot.conn.shakes() && !core.handshakes.take_step()
        {
            return core.shake_later(slot, bytes);
        }
        self.decrypt(entry, bytes);
    }

    /// Records that had to wait are opened: of a handshake, in its turn, or behind frames that are handled
    /// by now.
    pub(super) fn open_records(&mut self, token: Token) {
        let Some(mut entry) = self.table.take(token) else { return };
        let slot = &mut entry.slot;
        slot.conn.hand_over_kept();
        slot.conn.releases_records();
        if slot.conn.has_unread_records() && !slot.conn.defers_records() {
            if !slot.conn.shakes() || self.core.handshakes.take_step() {
                self.decrypt(&mut entry, &mut []);
            } else {
                self.core.shake_later(slot, &[]);
            }
        }
        let ends = entry.slot.conn.takes_end_behind();
        self.table.put_back(entry);
        if ends {
            self.end_of_stream(token);
        }
    }

    /// Decrypts what is kept and `bytes`, record by record, and has the plaintext handled.
    fn decrypt(&mut self, entry: &mut Entry, mut bytes: &mut [u8]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = entry.slot.conn.kept_of_records();
        let mut has_plain = false;
        loop {
            let (slot, core) = (&mut entry.slot, &mut self.core);
            // What the next record makes TLS say comes behind it.
            core.seal_all(slot);
            if slot.conn.state().ends() {
                // It could not be sealed.
                break;
            }
            let pool = &mut core.pool;
            let Scratch { plain, said, spares } = &mut scratch;
            let mut allocate = |least| pool.take(least);
            let step = slot.conn.decrypt(&mut bytes, &mut allocate, spares, said, plain);
            spares.drain(..).for_each(|spare| core.pool.put(spare));
            core.say(slot, said);
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    core.session_failed(slot, error);
                    break;
                }
            };
            has_plain |= !plain.is_empty();
            if !self.goes_on(entry, step, plain) {
                break;
            }
            plain.clear();
            let (slot, core) = (&mut entry.slot, &mut self.core);
            if slot.conn.defers_records() && (!bytes.is_empty() || slot.conn.has_unread_records()) {
                core.keep_records(slot, bytes);
                bytes = &mut [];
                break;
            }
        }
        let (slot, core) = (&mut entry.slot, &mut self.core);
        core.collected += slot.conn.kept_of_records().saturating_sub(kept);
        if !slot.conn.state().discards() {
            core.await_record(slot, has_plain);
        } else if !bytes.is_empty() {
            core.discarded(slot, bytes.len());
        }
        core.mark_dirty(slot);
        scratch.plain.clear();
        scratch.plain.shrink_to(SCRATCH_MAX);
        self.scratch = scratch;
    }

    /// What follows from a step. Returns whether there may be another.
    fn goes_on(&mut self, entry: &mut Entry, step: Step, plain: &[u8]) -> bool {
        if step.is_secured && !self.secured(entry) {
            return false;
        }
        if !plain.is_empty() {
            if entry.slot.conn.takes_frames_in_place() {
                self.call_entry(entry, |service, scope| service.received(scope, plain));
            } else {
                self.received_aside(entry, plain);
            }
        }
        let state = entry.slot.conn.state();
        let is_arriving = state == State::Arriving;
        if !state.handles() && !is_arriving {
            return false;
        }
        if step.has_ended {
            if is_arriving || entry.slot.conn.shakes() {
                let error = TlsError::new("the peer ended the handshake");
                self.core.session_failed(&mut entry.slot, error);
            } else if state == State::Open {
                self.peer_finished(entry);
            }
        }
        !step.has_ended && !step.is_blocked
    }

    /// The handshake is done. Returns whether the connection goes on.
    fn secured(&mut self, entry: &mut Entry) -> bool {
        let (slot, core) = (&mut entry.slot, &mut self.core);
        slot.conn.deadlines().clear(Kind::Handshake);
        slot.conn.is_secured();
        core.is_shaken(slot);
        if slot.has_opened() {
            // What was sent meanwhile can leave, and what was held can be handled.
            core.mark_runnable(slot);
        } else if slot.is_outgoing() {
            self.stands(entry);
        } else {
            self.opens(entry);
        }
        entry.slot.conn.state().handles()
    }

    /// The peer has finished without a close_notify. Returns whether that ends the connection at once.
    pub(super) fn finished_on_the_wire(&mut self, slot_of: Token) -> bool {
        let Some(slot) = self.table.get_mut(slot_of) else { return true };
        let is_cut = slot.conn.finished_on_the_wire();
        let is_wanted = slot.conn.state().handles() || slot.is_connecting();
        if is_cut && slot.conn.shakes() && is_wanted {
            self.core.fail(slot, CloseReason::Truncated, false);
            return true;
        }
        // It was over before: a close_notify said so.
        let was_over = slot.conn.state().has_finished();
        if was_over {
            self.core.mark_dirty(slot);
        } else if let Some(kept) = slot.conn.drop_records() {
            self.core.pool.put(kept);
        }
        was_over
    }
}

impl Core {
    /// The handshake of a connection is under way: it is accepted, or has just called for it. The
    /// oldest of too many goes.
    pub(crate) fn begin_handshake(&mut self, table: &mut Table, slot: &mut Slot, tls: Tls) {
        slot.conn.encrypt(tls);
        slot.is_watched();
        let Self { handshakes, limits, group, .. } = self;
        handshakes.open += 1;
        handshakes.queue.push_back(slot.token());
        let max = limits.handshakes_max.div_ceil(group.shards());
        if handshakes.queue.len() > max.saturating_mul(2) {
            let own = slot.token();
            let shakes = |token: &Token| {
                *token == own || table.get(*token).is_some_and(|it| it.conn.is_counted_as_shaking())
            };
            handshakes.queue.retain(shakes);
        }
        while self.handshakes.open > max
            && let Some(oldest) = self.handshakes.queue.pop_front()
        {
            if let Some(slot) = table.get_mut(oldest)
                && self.is_shaken(slot)
            {
                slot.counters().refused.add(1);
                let error =
                    TlsError::new("there were too many handshakes, and this was the oldest");
                self.fail(slot, CloseReason::Tls(error), true);
            }
        }
    }

    /// A handshake is not under way any more. Returns whether it was.
    pub(super) fn is_shaken(&mut self, slot: &mut Slot) -> bool {
        let was = slot.conn.is_shaken();
        self.handshakes.open -= usize::from(was);
        was
    }

    /// A handshake has to wait for its turn.
    fn shake_later(&mut self, slot: &mut Slot, bytes: &[u8]) {
        if bytes.is_empty() && !slot.conn.keeps_records() {
            return self.mark_runnable(slot);
        }
        let before = slot.conn.kept_of_records();
        self.keep_records(slot, bytes);
        self.collected += slot.conn.kept_of_records().saturating_sub(before);
        self.mark_dirty(slot);
        self.mark_runnable(slot);
    }

    fn keep_records(&mut self, slot: &mut Slot, bytes: &[u8]) {
        if let Some(outgrown) = slot.conn.keep_records(bytes, |least| self.pool.take(least)) {
            self.pool.put(outgrown);
        }
    }

    /// The peer broke the protocol, or has none of ours. An alert is sent, if there is one.
    fn session_failed(&mut self, slot: &mut Slot, error: TlsError) {
        slot.conn.session_failed();
        self.is_shaken(slot);
        if let Some(kept) = slot.conn.drop_records() {
            self.pool.put(kept);
        }
        if !slot.has_opened() && !slot.is_outgoing() {
            slot.counters().refused.add(1);
        }
        slot.conn.deadlines().clear(Kind::Handshake);
        self.close(slot, CloseReason::Tls(error));
    }

    /// The start of a record is here and the rest is not: it has as much time as a frame has.
    fn await_record(&mut self, slot: &mut Slot, is_new: bool) {
        let is_idle = slot.conn.kept().is_empty() && slot.conn.bars().is_none();
        if is_idle && !slot.conn.shakes() {
            self.await_rest(slot, slot.conn.keeps_records(), is_new);
        }
    }

    /// Queues what TLS has to say behind what is sealed. Behind our end it says nothing, no alert either.
    fn say(&mut self, slot: &mut Slot, said: &mut Vec<u8>) {
        if said.is_empty() || slot.conn.has_said_end() {
            return said.clear();
        }
        let sealed = slot.conn.take_sealed();
        let mut sealed = sealed.unwrap_or_else(|| self.pool.take(said.len()));
        sealed.vec().append(said);
        slot.conn.put_sealed(sealed);
        self.mark_dirty(slot);
    }

    /// Seals all that is queued.
    fn seal_all(&mut self, slot: &mut Slot) {
        if slot.conn.has_clear() {
            let mut into = self.sealed_of(slot);
            self.seal(slot, &mut into, usize::MAX);
            if into.is_empty() {
                self.pool.put(into);
            } else {
                slot.conn.put_sealed(into);
            }
        }
    }

    /// What is sealed already, or a buffer for what is to be sealed.
    fn sealed_of(&mut self, slot: &mut Slot) -> Buffer {
        match slot.conn.take_sealed() {
            Some(sealed) => sealed,
            None => {
                let clear = slot.conn.outbound().queued().min(COLLECTED_MAX);
                self.pool.take_warm(clear + (clear / (16 << 10) + 1) * OVERHEAD)
            }
        }
    }

    /// Seals up to `most` bytes of what is queued.
    fn seal(&mut self, slot: &mut Slot, into: &mut Buffer, mut most: usize) {
        while most > 0 {
            match slot.conn.seal_first(into.vec(), most) {
                Ok((0, _)) => return,
                Ok((count, spare)) => {
                    most -= count;
                    if let Some(spare) = spare {
                        self.pool.put(spare);
                    }
                }
                Err(error) => return self.session_failed(slot, error),
            }
        }
    }

    /// The next batch as it goes over the wire: nothing while one is in flight.
    #[inline(never)]
    pub(super) fn next_sealed(&mut self, slot: &mut Slot) -> Option<Buffer> {
        if !slot.conn.sends_records() {
            return None;
        }
        if slot.conn.outbound().is_in_flight() {
            return slot.conn.next_unsent();
        }
        if slot.conn.clear_is_lost()
            && let Some(lost) = slot.conn.discard_clear()
        {
            self.pool.put(lost);
        }
        let mut into = self.sealed_of(slot);
        if !slot.conn.shakes() {
            let most = COLLECTED_MAX.saturating_sub(into.len());
            self.seal(slot, &mut into, most);
            slot.conn.seal_end(into.vec());
        }
        if into.is_empty() {
            self.pool.put(into);
            return None;
        }
        slot.conn.departs(&into);
        Some(into)
    }
}
