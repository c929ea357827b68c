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
    Engine,
    core::{Core, Slot},
    memory::{Memory, Scarcity},
    size::Size,
    throttle::Notice,
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
        let core = &mut self.core;
        core.counters.buffered_bytes.set(core.memory.used());
        if let Some(before) = core.memory.judge() {
            core.scarcity_changed(before);
        }
        if core.memory.excess() > 0 {
            core.evict_the_fattest();
        }
        if core.memory.look_at.is_some_and(|at| at <= core.judged()) {
            let some_may_come = !self.acceptor.is_closed();
            core.look_who_is_in_the_way(some_may_come);
        }
    }
}

impl Core {
    #[cold]
    fn scarcity_changed(&mut self, before: Scarcity) {
        if before == Scarcity::Ample {
            let held = self.slots.iter().map(|(token, slot)| (token, slot.accounted, slot.closing));
            self.memory.begin(held);
            self.memory.look_at = Some(self.tick_after(PATIENCE));
            self.forget_progress();
            self.reconsider(self.memory.share());
        } else if !self.memory.is_scarce() {
            self.memory.look_at = None;
            self.reconsider(self.memory.share());
            self.memory.end();
        }
        self.tell_scarcity();
    }

    /// Has those decided anew that hold more than so much: whether they are read from.
    fn reconsider(&mut self, more_than: usize) {
        let Self { memory, slots, dirty, .. } = self;
        for (token, _) in memory.holders().take_while(|&(_, held)| held > more_than) {
            if let Some(slot) = slots.get_mut(token) {
                slot.mark_dirty(token, dirty);
            }
        }
    }

    /// From now on it counts who takes something.
    fn forget_progress(&mut self) {
        for (token, _) in self.memory.holders() {
            if let Some(slot) = self.slots.get_mut(token) {
                slot.progressed = false;
            }
        }
    }

    /// Ends the connections that hold the most, until the rest fits the budget.
    #[cold]
    fn evict_the_fattest(&mut self) {
        while self.memory.excess() > 0 {
            let Some((token, held)) = self.memory.fattest_leaves() else { return };
            self.evict(token, held, "there is no more memory for buffers, and it held the most");
        }
    }

    /// Memory was scarce for a while. If somebody waits for it, whoever is in the way goes.
    #[cold]
    fn look_who_is_in_the_way(&mut self, some_may_come: bool) {
        self.memory.look_at = None;
        self.tell_scarcity();
        if !self.memory.is_scarce() {
            return;
        }
        let nobody_is_let_in = self.memory.scarcity() == Scarcity::StopAccepting && some_may_come;
        if nobody_is_let_in || self.memory.starved() > 0 {
            let in_the_way = self.in_the_way();
            self.memory.ajar = in_the_way.is_empty();
            for (token, held) in in_the_way {
                self.memory.leaves(token, held);
                self.evict(
                    token,
                    held,
                    "others waited for memory, and it took nothing for a second",
                );
            }
        }
        let share = self.memory.share();
        self.memory.divide();
        self.reconsider(share.min(self.memory.share()));
        self.forget_progress();
        self.memory.look_at = Some(self.tick_after(PATIENCE));
    }

    /// The fattest of those who took nothing for a while, as many as it takes for memory to be
    /// ample. Those who began a request and did not complete it come after all who do not read: they
    /// may be kept from it by us.
    fn in_the_way(&self) -> Vec<(Token, usize)> {
        let stuck = |(token, _): &(Token, usize)| {
            self.slots.get(*token).is_some_and(|slot| !slot.progressed)
        };
        let reads = |(token, _): &(Token, usize)| {
            self.slots.get(*token).is_some_and(|slot| slot.conn.outbound.is_empty())
        };
        let (asking, deaf): (Vec<_>, Vec<_>) = self.memory.holders().filter(stuck).partition(reads);
        let mut surplus = self.memory.surplus();
        let fits = |&(_, held): &(Token, usize)| {
            let goes = surplus > 0;
            surplus = surplus.saturating_sub(held);
            goes
        };
        deaf.into_iter().chain(asking).take_while(fits).collect()
    }

    fn evict(&mut self, token: Token, held: usize, why: &str) {
        let now = self.tick();
        if let Some(slot) = self.slots.get(token)
            && let Some(left_out) = self.throttles.pass(Notice::Evicted, now)
        {
            let (peer, held) = (slot.peer.peer(), Size(held));
            tracing::warn!(%peer, left_out, "closed a connection that held {held}: {why}");
        }
        self.fail(token, CloseReason::Evicted, true);
    }

    /// Says how scarce memory is, unless that was said; later if something was said just now.
    fn tell_scarcity(&mut self) {
        let scarcity = self.memory.scarcity();
        if scarcity == self.memory.told {
            return;
        }
        let Some(left_out) = self.throttles.pass(Notice::Memory, self.tick()) else {
            let later = self.tick_after(PATIENCE);
            self.memory.look_at.get_or_insert(later);
            return;
        };
        self.memory.told = scarcity;
        let memory = &self.memory;
        let held = format!(
            "connections hold {} of the {} for buffers",
            Size(memory.used()),
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

impl Slot {
    /// Settles what the connection holds with the account of all.
    pub(super) fn settle_account(&mut self, token: Token, memory: &mut Memory) {
        let capacity = self.conn.capacity();
        if capacity == self.accounted && !self.closing {
            return;
        }
        // Whoever has just begun to hold something is not in the way.
        self.progressed |= self.accounted == 0;
        memory.account(token, self.accounted, capacity, self.closing);
        self.accounted = capacity;
    }

    /// Whether it is received from: it wants to be, and does not hold too much.
    pub(super) fn may_receive(&mut self, memory: &mut Memory) -> bool {
        let wanted = self.conn.wants_receive();
        let starved = wanted && memory.withholds(self.accounted);
        if std::mem::replace(&mut self.starved, starved) != starved {
            memory.starve(starved);
        }
        wanted && !starved
    }
}
