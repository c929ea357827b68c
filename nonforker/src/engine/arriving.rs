//! Connections that have been accepted and are not open yet: their pipe has to be opened up.
//!
//! ```text
//!  accepted ── from a listed proxy? ──▶ Arriving ── header complete ──▶ the client's limits ──▶ open
//!                     │ no                 │ refused, late, gone               │ too many
//!                     └────────────────────┴───────────────────────────────────┴──▶ closed
//! ```
//!
//! The handler never hears of a connection that does not get to the end of this, and the limit per
//! address counts the client and not its proxy.

use std::io;

use super::{core::Core, shard::Shard, slot::Slot, table::Entry, throttle::Notice};
use crate::{
    conn::{deadlines::Kind, pipe::Opening, state::Event},
    error::CloseReason,
};

impl<S> Shard<S> {
    /// Bytes of a connection that is not open yet.
    #[cold]
    pub(super) fn arriving(&mut self, entry: &mut Entry, bytes: &[u8]) {
        let slot = &mut entry.slot;
        if slot.conn.kept().is_empty() {
            // All of it in one segment, which is what proxies do: nothing is copied.
            match slot.conn.open_up(bytes) {
                Opening::Incomplete => self.core.keep(slot, bytes),
                Opening::Refused(why) => self.core.refuse_arriving(slot, &why),
                Opening::Opened { consumed, source } => {
                    slot.arrived_as(source);
                    if !self.is_let_in(entry) {
                        // It closes.
                    } else if entry.slot.conn.is_encrypted() {
                        self.received_encrypted(entry, &mut bytes[consumed..].to_vec());
                    } else {
                        self.opens(entry);
                        let rest = &bytes[consumed..];
                        if entry.slot.conn.takes_frames_in_place() {
                            self.call_entry(entry, |service, scope| service.received(scope, rest));
                        } else {
                            self.received_aside(entry, rest);
                        }
                    }
                }
            }
        } else {
            self.core.keep(slot, bytes);
            let Some(kept) = slot.conn.take_kept() else { return };
            let opening = slot.conn.open_up(kept.bytes());
            let consumed = match opening {
                Opening::Opened { consumed, .. } => consumed,
                _ => 0,
            };
            if let Some(spare) = slot.conn.keep_rest(kept, consumed) {
                self.core.pool.put(spare);
            }
            match opening {
                Opening::Incomplete => {}
                Opening::Refused(why) => self.core.refuse_arriving(slot, &why),
                Opening::Opened { source, .. } => {
                    slot.arrived_as(source);
                    if !self.is_let_in(entry) {
                        // It closes.
                    } else if entry.slot.conn.is_encrypted() {
                        if let Some(rest) = entry.slot.conn.take_kept() {
                            self.received_encrypted(entry, &mut rest.bytes().to_vec());
                            self.core.pool.put(rest);
                        }
                    } else {
                        self.opens(entry);
                        entry.slot.conn.hold();
                        self.call_entry(entry, |service, scope| service.advance(scope));
                    }
                }
            }
        }
        self.core.mark_dirty(&mut entry.slot);
    }

    /// Counts a connection of which it is known now whose it is, if there may be another one of its
    /// client.
    fn is_let_in(&mut self, entry: &mut Entry) -> bool {
        let (slot, core) = (&mut entry.slot, &mut self.core);
        let peer = slot.peer();
        let listener = self.acceptor.arriving.remove(&slot.token()).unwrap_or_default();
        if let Some(why) = self.acceptor.refusal(listener, &peer, slot.rules(), core) {
            core.note_refusal(why, &peer, slot.rules());
            match self.busy_word(listener, why) {
                Some(word) => self.core.tell_busy(slot, &word),
                None => self.core.fail(slot, CloseReason::Aborted, false),
            }
            return false;
        }
        slot.is_let_in();
        true
    }

    /// Opens a connection whose pipe is open.
    pub(super) fn opens(&mut self, entry: &mut Entry) {
        let (slot, core) = (&mut entry.slot, &mut self.core);
        slot.conn.deadlines().clear(Kind::Handshake);
        slot.conn.apply(Event::Arrived);
        core.begins(slot);
        self.call_entry(entry, |service, scope| service.open(scope));
    }
}

impl Core {
    /// A connection does not open, since what it began with is not what has to come first.
    #[cold]
    pub(super) fn refuse_arriving(&mut self, slot: &mut Slot, why: &dyn std::fmt::Display) {
        slot.counters().refused.add(1);
        if let Some(left_out) = self.notice(Notice::Header) {
            let proxy = slot.peer();
            tracing::warn!(%proxy, left_out, "refused: {why}");
        }
        let error = io::Error::new(io::ErrorKind::InvalidData, why.to_string());
        self.fail(slot, CloseReason::Broken(error), true);
    }
}
