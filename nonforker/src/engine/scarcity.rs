//! What is done when memory for buffers becomes scarce, and when there is enough again.

use super::Engine;
use crate::{conn::state::State, driver::Driver, error::CloseReason};

impl<D: Driver> Engine<D> {
    /// Judges the memory account: gives connections up, or lets them receive again.
    pub(super) fn balance_memory(&mut self) {
        let core = &mut self.core;
        core.counters.buffered_bytes.set(core.memory.used());
        if let Some(before) = core.memory.judge() {
            let scarcity = core.memory.scarcity();
            let now = core.tick;
            if let Some(left_out) = core.throttles.memory.pass(now) {
                let used = core.memory.used();
                tracing::warn!(used, left_out, "memory for buffers: {scarcity:?} after {before:?}");
            }
            if !core.stops_reading() {
                for token in std::mem::take(&mut core.starved) {
                    if let Some(slot) = core.slots.get_mut(token) {
                        slot.starved = false;
                        core.mark_dirty(token);
                    }
                }
            }
        }
        if core.memory.excess() > 0 {
            self.evict();
        }
    }

    /// Ends the connections that hold the most, until the rest fits the budget.
    fn evict(&mut self) {
        // What those hold that are leaving already is as good as given back.
        let slots = self.core.slots.values();
        let leaving = slots.filter(|slot| slot.conn.state() == State::Closing);
        let leaving: usize = leaving.map(|slot| slot.accounted).sum();
        let mut excess = self.core.memory.excess().saturating_sub(leaving);
        while excess > 0 {
            let fattest = self
                .core
                .slots
                .iter()
                .filter(|(_, slot)| slot.conn.state() != State::Closing)
                .max_by_key(|(_, slot)| slot.accounted);
            let Some((token, slot)) = fattest else { return };
            let held = slot.accounted;
            if held == 0 {
                return;
            }
            tracing::warn!(peer = %slot.peer.peer(), held, "out of memory for buffers: evicting");
            self.core.fail(token, CloseReason::Evicted, true);
            excess = excess.saturating_sub(held);
        }
    }
}
