//! Who goes on, who has to wait and who goes, while memory for buffers is scarce.
//!
//! ```text
//!  holds at most its share ──▶ is read from, and served
//!  holds more             ──▶ is not read from
//!  took nothing of what it holds for a second, and others wait ──▶ goes, until memory is ample
//!  holds the most, and the budget is used up                   ──▶ goes at once
//! ```
//!
//! A share is the budget divided by those that hold any of it. Memory is held by those who do not
//! read, and not by those who are served: whoever asks, reads and asks again holds nothing between
//! two turns, so it notices nothing of a hundred others who do not read.
//!
//! A connection that goes on taking what is queued for it, however slowly, goes only if the budget
//! is used up and it holds the most. So that such connections do not keep out whoever comes, a few
//! are let in every second: they hold nothing so far.

use std::time::Duration;

use super::{
    Engine, core::Core, memory::Scarcity, shard::Shard, size::Size, slot::Slot, throttle::Notice,
};
use crate::{
    driver::{Driver, Token},
    error::CloseReason,
};

/// How often it is looked who is in the way. Whoever took nothing for so long may have to go.
const PATIENCE: Duration = Duration::from_secs(1);

impl<D: Driver> Engine<D> {
    /// Judges the memory account: gives connections up, or lets them receive again.
    pub(super) fn balance_memory(&mut self) {
        let shard = &mut self.shard;
        // As long as it is scarce, it is looked at in each turn.
        shard.unusual = true;
        if let Some(before) = shard.core.memory.judge() {
            shard.scarcity_changed(before);
        }
        if shard.core.memory.excess() > 0 {
            shard.evict_the_fattest();
        }
        if shard.core.memory.look_at.is_some_and(|at| at <= shard.core.judged()) {
            shard.look_who_is_in_the_way();
        }
        // Those that were evicted, or receive again.
        self.flush_all();
    }
}

impl Core {
    /// Says to the other shards what this one holds, if they know it too inexactly, and looks at what
    /// they hold.
    pub(super) fn report_memory(&mut self) {
        let known = self.memory.known();
        let (before, after) = self.memory.to_report().unwrap_or((known, known));
        let elsewhere = self.group.report_held(before, after);
        self.memory.reported(after, elsewhere);
    }
}

impl<S> Shard<S> {
    #[cold]
    fn scarcity_changed(&mut self, before: Scarcity) {
        if before == Scarcity::Ample {
            self.core.memory.begin(self.table.slots().map(Slot::holding));
            self.core.memory.look_at = Some(self.core.tick_after(PATIENCE));
            self.forget_progress();
            self.reconsider(self.core.memory.share());
        } else if !self.core.memory.is_scarce() {
            self.core.memory.look_at = None;
            self.reconsider(self.core.memory.share());
            self.core.memory.end();
        }
        if !self.core.alone && (before == Scarcity::Ample || !self.core.memory.is_scarce()) {
            self.core.group.wake_others(self.core.shard);
        }
        self.tell_scarcity();
    }

    /// Has those decided anew that hold more than so much: whether they are read from.
    fn reconsider(&mut self, more_than: usize) {
        let Core { memory, dirty, .. } = &mut self.core;
        for (token, _) in memory.holders().take_while(|&(_, held)| held > more_than) {
            if let Some(slot) = self.table.get_mut(token) {
                slot.mark_dirty(dirty);
            }
        }
    }

    /// From now on it counts who takes something.
    fn forget_progress(&mut self) {
        for (token, _) in self.core.memory.holders() {
            if let Some(slot) = self.table.get_mut(token) {
                slot.forget_progress();
            }
        }
    }

    /// Ends the connections that hold the most, until the rest fits the budget.
    #[cold]
    fn evict_the_fattest(&mut self) {
        while self.core.memory.excess() > 0 {
            let Some((token, held)) = self.core.memory.fattest_leaves() else { return };
            self.evict(token, held, "there is no more memory for buffers, and it held the most");
        }
    }

    /// Memory was scarce for a while. If somebody waits for it, whoever is in the way goes.
    #[cold]
    fn look_who_is_in_the_way(&mut self) {
        self.core.memory.look_at = None;
        self.tell_scarcity();
        if !self.core.memory.is_scarce() {
            return;
        }
        let nobody_is_let_in =
            self.core.memory.scarcity() == Scarcity::StopAccepting && !self.acceptor.is_closed();
        if nobody_is_let_in || self.core.memory.starved() > 0 {
            let in_the_way = self.in_the_way();
            self.core.memory.ajar = in_the_way.is_empty();
            for (token, held) in in_the_way {
                self.core.memory.leaves(token, held);
                self.evict(
                    token,
                    held,
                    "others waited for memory, and it took nothing for a second",
                );
            }
        }
        let share = self.core.memory.share();
        self.core.memory.divide();
        self.reconsider(share.min(self.core.memory.share()));
        self.forget_progress();
        self.core.memory.look_at = Some(self.core.tick_after(PATIENCE));
    }

    /// The fattest of those who took nothing for a while, as many as it takes for memory to be
    /// ample. Those who began a request and did not complete it come after all who do not read: they
    /// may be kept from it by us.
    fn in_the_way(&self) -> Vec<(Token, usize)> {
        let stuck = |(token, _): &(Token, usize)| {
            self.table.get(*token).is_some_and(|slot| !slot.has_progressed())
        };
        let reads = |(token, _): &(Token, usize)| {
            self.table.get(*token).is_some_and(|slot| slot.conn.outbound().is_empty())
        };
        let (asking, deaf): (Vec<_>, Vec<_>) =
            self.core.memory.holders().filter(stuck).partition(reads);
        let mut surplus = self.core.memory.surplus();
        let fits = |&(_, held): &(Token, usize)| {
            let goes = surplus > 0;
            surplus = surplus.saturating_sub(held);
            goes
        };
        deaf.into_iter().chain(asking).take_while(fits).collect()
    }

    fn evict(&mut self, token: Token, held: usize, why: &str) {
        let Some(slot) = self.table.get_mut(token) else { return };
        if let Some(left_out) = self.core.notice(Notice::Evicted) {
            let (peer, held) = (slot.peer(), Size(held));
            tracing::warn!(%peer, left_out, "closed a connection that held {held}: {why}");
        }
        self.core.fail(slot, CloseReason::Evicted, true);
    }

    /// Says how scarce memory is, unless that was said; later if something was said just now.
    fn tell_scarcity(&mut self) {
        let scarcity = self.core.memory.scarcity();
        if scarcity == self.core.memory.told {
            return;
        }
        let Some(left_out) = self.core.notice(Notice::Memory) else {
            let later = self.core.tick_after(PATIENCE);
            self.core.memory.look_at.get_or_insert(later);
            return;
        };
        self.core.memory.told = scarcity;
        let memory = &self.core.memory;
        let held = format!(
            "connections hold {} of the {} for buffers",
            Size(memory.total()),
            Size(memory.budget())
        );
        let until = Size(memory.ample());
        let waits = format!("who holds more than {} is not read from", Size(memory.share()));
        match scarcity {
            Scarcity::Ample => {
                tracing::info!(left_out, "{held}: it is ample again, nobody has to wait");
            }
            Scarcity::Rationed => {
                tracing::warn!(left_out, "{held}: {waits} until they hold less than {until}")
            }
            Scarcity::StopAccepting => {
                tracing::warn!(
                    left_out,
                    "{held}: who comes has to wait, and {waits}, until they hold less than {until}"
                );
            }
        }
    }
}
