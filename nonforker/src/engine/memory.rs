//! The budget for all buffers together, and what is given up as it runs out.
//!
//! ```text
//!  0 %                    80 %               90 %              100 %
//!  ├── Ample ──────────────┼── Rationed ──────┼── StopAccepting ─┼── the fattest goes
//!                 70 % ◀── recovers
//! ```
//!
//! While memory is scarce, who holds how much is kept in order, so that nobody has to look at ten
//! thousand idle connections to find the one that is in the way. Otherwise it costs nothing.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use crate::{
    conn::{deadlines::Tick, payload::Savings},
    driver::Token,
};

/// How scarce memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scarcity {
    /// Nothing to be given up.
    Ample,
    /// Whoever holds more than its share is not read from.
    Rationed,
    /// The same, and nobody is accepted, or a few once in a while.
    StopAccepting,
}

/// What becomes of what a connection holds while memory is scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It holds that, until it has to go.
    Holds,
    /// It leaves: that is as good as given back.
    Leaves,
    /// Many clients need it: it does not have to go, however much that is.
    IsNeeded,
}

/// The account of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The sum of what connections hold, with the bytes of a payload for each that waits for it.
    used: usize,
    /// What other shards of the server hold, as far as they have said.
    elsewhere: usize,
    /// What the others know that this one holds.
    reported: usize,
    /// How many shards there are.
    shards: usize,
    /// How much of that is too much, since the payload is there once.
    saved: usize,
    savings: Arc<Savings>,
    /// Whether there are payloads.
    saves: bool,
    budget: usize,
    /// A hundredth of it.
    percent: usize,
    scarcity: Scarcity,
    /// What a connection may hold and still be read from, while memory is scarce.
    share: usize,
    /// Who holds how much while memory is scarce, the fattest first, without those that leave or are needed.
    holders: BTreeSet<(Reverse<usize>, Token)>,
    /// What those hold that leave: as good as given back. Counted while memory is scarce.
    leaving: usize,
    /// How many connections are not read from although they want to be.
    starved: usize,
    /// Somebody may come although memory is scarce: nobody is in the way who could go.
    pub(super) ajar: bool,
    /// When it is time to look at who is in the way, or to say what was left unsaid.
    pub(super) look_at: Option<Tick>,
    /// How scarce it was when that was last said.
    pub(super) told: Scarcity,
}

impl Memory {
    /// Nothing used of `budget` bytes, which so many shards share.
    pub(crate) fn new(budget: usize, shards: usize) -> Self {
        Self {
            used: 0,
            elsewhere: 0,
            reported: 0,
            shards,
            saved: 0,
            savings: Arc::default(),
            saves: false,
            budget,
            percent: budget / 100,
            scarcity: Scarcity::Ample,
            share: budget,
            holders: BTreeSet::new(),
            leaving: 0,
            starved: 0,
            ajar: false,
            look_at: None,
            told: Scarcity::Ample,
        }
    }

    /// From now on there are so many bytes. How scarce that makes it is judged at the end of the turn;
    /// while it stays scarce, shares are divided anew within a second.
    pub(super) fn set_budget(&mut self, budget: usize) {
        (self.budget, self.percent) = (budget, budget / 100);
        if !self.is_scarce() {
            self.share = budget;
        }
    }

    /// A connection's buffers went from `before` to `after` bytes.
    pub(super) fn account(&mut self, token: Token, before: usize, after: usize, claim: Claim) {
        self.used = self.used.saturating_sub(before).saturating_add(after);
        if self.is_scarce() {
            self.weigh(token, before, after, claim);
        }
    }

    #[cold]
    fn weigh(&mut self, token: Token, before: usize, after: usize, claim: Claim) {
        if claim == Claim::IsNeeded {
            return;
        }
        if !self.holders.remove(&(Reverse(before), token)) {
            self.leaving = self.leaving.saturating_sub(before);
        }
        if claim == Claim::Leaves {
            self.leaving += after;
        } else if after > 0 {
            self.holders.insert((Reverse(after), token));
        }
    }

    /// Memory has become scarce: from now on, who holds how much is kept in order.
    pub(super) fn begin(&mut self, held: impl Iterator<Item = (Token, usize, Claim)>) {
        for (token, held, claim) in held {
            self.weigh(token, 0, held, claim);
        }
        self.divide();
    }

    /// Memory is ample: nobody needs to know any more.
    pub(super) fn end(&mut self) {
        self.holders.clear();
        self.leaving = 0;
        self.ajar = false;
    }

    /// Divides the budget among those that hold any of it.
    pub(super) fn divide(&mut self) {
        let left = self.budget.saturating_sub(self.elsewhere).max(self.part());
        self.share = left / self.holders.len().max(1);
    }

    /// Whether whoever holds so much is not read from.
    pub(crate) fn withholds(&self, held: usize) -> bool {
        self.is_scarce() && held > self.share
    }

    /// A connection is not read from although it wants to be, or it is again.
    pub(super) const fn starve(&mut self, starved: bool) {
        if starved { self.starved += 1 } else { self.starved -= 1 }
    }

    pub(crate) const fn starved(&self) -> usize {
        self.starved
    }

    /// Who holds how much, the fattest first.
    pub(super) fn holders(&self) -> impl Iterator<Item = (Token, usize)> {
        self.holders.iter().map(|&(Reverse(held), token)| (token, held))
    }

    /// The fattest is to leave.
    pub(super) fn fattest_leaves(&mut self) -> Option<(Token, usize)> {
        let (Reverse(held), token) = self.holders.pop_first()?;
        self.leaving += held;
        Some((token, held))
    }

    /// Somebody who holds so much is to leave.
    pub(super) fn leaves(&mut self, token: Token, held: usize) {
        self.weigh(token, held, held, Claim::Leaves);
    }

    pub(crate) const fn scarcity(&self) -> Scarcity {
        self.scarcity
    }

    /// Whether whoever comes is let in.
    pub(super) const fn admits(&self) -> bool {
        self.ajar || !matches!(self.scarcity, Scarcity::StopAccepting)
    }

    pub(crate) const fn is_scarce(&self) -> bool {
        !matches!(self.scarcity, Scarcity::Ample)
    }

    #[inline]
    pub(crate) const fn used(&self) -> usize {
        self.used.saturating_sub(self.saved)
    }

    /// Where it is counted how much payloads save, for one that is made.
    pub(super) const fn savings(&mut self) -> &Arc<Savings> {
        self.saves = true;
        &self.savings
    }

    /// What connections hold is settled: what payloads save is, too.
    #[inline]
    pub(super) fn settle_savings(&mut self) {
        if self.saves {
            self.saved = self.savings.saved();
            self.saves = self.savings.handed_out() > 0;
        }
    }

    /// How much one connection may hold that holds so much now, with all others as they are.
    #[inline]
    pub(crate) const fn room(&self, held: usize) -> usize {
        self.budget.saturating_sub(self.total().saturating_sub(held))
    }

    /// What is used in all shards.
    pub(crate) const fn total(&self) -> usize {
        self.used.saturating_sub(self.saved) + self.elsewhere
    }

    /// The part of the budget of one shard.
    const fn part(&self) -> usize {
        self.budget / self.shards
    }

    /// What the others are to be told that this shard holds, if they know it too inexactly: what they
    /// know, and what is so. What leaves is as good as given back.
    pub(super) fn to_report(&self) -> Option<(usize, usize)> {
        let held = self.used().saturating_sub(self.leaving);
        let is_news = held.abs_diff(self.reported) > self.part() / 64;
        (is_news || held == 0 && self.reported > 0).then_some((self.reported, held))
    }

    /// The others know that this shard holds so much, and they hold so much.
    pub(super) const fn reported(&mut self, held: usize, elsewhere: usize) {
        (self.reported, self.elsewhere) = (held, elsewhere);
    }

    /// What the others know that this shard holds.
    pub(super) const fn known(&self) -> usize {
        self.reported
    }

    pub(crate) const fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) const fn share(&self) -> usize {
        self.share
    }

    /// Memory that was scarce is ample again while fewer bytes than this are used.
    pub(crate) const fn ample(&self) -> usize {
        self.percent * 70
    }

    /// How many bytes are used beyond the budget, when those have left that are to leave.
    ///
    /// A shard that holds no more than its part gives those a moment that hold more: they are woken
    /// when memory becomes scarce, and give up something first.
    pub(crate) const fn excess(&self) -> usize {
        let mercy =
            if self.used() <= self.part() && self.shards > 1 { self.budget / 16 } else { 0 };
        self.total().saturating_sub(self.leaving).saturating_sub(self.budget.saturating_add(mercy))
    }

    /// How many bytes there are too many for memory to be ample, when those have left that are to
    /// leave.
    pub(super) const fn surplus(&self) -> usize {
        (self.total().saturating_sub(self.leaving) + 1).saturating_sub(self.ample())
    }

    /// Whether it is scarce, or may have become so.
    #[inline]
    pub(super) const fn wants_attention(&self) -> bool {
        self.total() >= self.ample() || self.is_scarce() || self.look_at.is_some()
    }

    /// Decides how scarce memory is now. Returns the former answer if it was another.
    pub(crate) fn judge(&mut self) -> Option<Scarcity> {
        let used = self.total();
        let scarcity = if used >= self.percent * 90 {
            Scarcity::StopAccepting
        } else if used >= self.percent * 80 {
            // Between the marks what was given up stays so, until all is well.
            self.scarcity.max(Scarcity::Rationed)
        } else if used >= self.ample() {
            self.scarcity
        } else {
            Scarcity::Ample
        };
        let before = std::mem::replace(&mut self.scarcity, scarcity);
        (before != scarcity).then_some(before)
    }

    /// What is wrong with the account, if anything is. Connections hold `held`.
    pub(super) fn unsound(&self, held: &[(Token, usize, Claim)], starved: usize) -> Option<String> {
        let used: usize = held.iter().map(|&(_, held, _)| held).sum();
        if used != self.used {
            return Some(format!("the memory account says {}, connections hold {used}", self.used));
        }
        if self.saved != self.savings.saved() {
            return Some("what payloads save is not settled".to_owned());
        }
        if starved != self.starved {
            return Some(format!("{starved} are not read from, not {}", self.starved));
        }
        if self.is_scarce() && self.look_at.is_none() {
            return Some("memory is scarce, and nobody will look at who is in the way".to_owned());
        }
        let mut right = Self::new(self.budget, self.shards);
        if self.is_scarce() {
            right.begin(held.iter().copied());
        }
        let is_right = (&right.holders, right.leaving) == (&self.holders, self.leaving);
        (!is_right).then(|| "who holds how much is not known exactly".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::{
        Claim::{self, Holds, Leaves},
        Memory,
        Scarcity::{Ample, Rationed, StopAccepting},
        Token,
    };

    #[test]
    fn what_is_given_up_comes_back_only_when_all_is_well() {
        let mut memory = Memory::new(1000, 1);
        let token = SlotMap::<Token, ()>::with_key().insert(());
        let mut used = 0;
        for (now, scarcity, excess, surplus) in [
            (790, Ample, 0, 91),
            (800, Rationed, 0, 101),
            (790, Rationed, 0, 91),
            (900, StopAccepting, 0, 201),
            (850, StopAccepting, 0, 151),
            (1200, StopAccepting, 200, 501),
            (700, StopAccepting, 0, 1),
            (699, Ample, 0, 0),
            (750, Ample, 0, 51),
        ] {
            memory.account(token, used, now, Holds);
            used = now;
            memory.judge();
            assert_eq!((memory.scarcity(), memory.excess()), (scarcity, excess), "at {now}");
            assert_eq!(memory.surplus(), surplus, "at {now}");
        }
    }

    #[test]
    fn while_memory_is_scarce_the_fattest_is_known_and_who_leaves_is_not_counted() {
        let mut slots = SlotMap::<Token, ()>::with_key();
        let tokens: Vec<Token> = (0..4).map(|_| slots.insert(())).collect();
        let mut memory = Memory::new(1000, 1);
        let mut held = [0, 200, 500, 300];
        for (&token, &held) in tokens.iter().zip(&held) {
            memory.account(token, 0, held, Holds);
        }
        assert_eq!(memory.judge(), Some(Ample));
        memory.begin(tokens.iter().zip(held).map(|(&token, held)| (token, held, Holds)));
        assert_eq!(memory.share(), 333, "of three");
        for (held, withheld) in [(0, false), (333, false), (334, true)] {
            assert_eq!(memory.withholds(held), withheld, "{held}");
        }
        memory.account(tokens[1], held[1], 600, Holds);
        held[1] = 600;
        assert_eq!(memory.excess(), 400);
        assert_eq!(memory.fattest_leaves(), Some((tokens[1], 600)));
        assert_eq!((memory.excess(), memory.surplus()), (0, 101));
        memory.leaves(tokens[3], held[3]);
        assert_eq!(memory.surplus(), 0);
        memory.account(tokens[1], held[1], 50, Leaves);
        assert_eq!((memory.used(), memory.leaving), (850, 350));
        assert_eq!(memory.holders().collect::<Vec<_>>(), [(tokens[2], 500)]);
        memory.account(tokens[0], 0, 700, Claim::IsNeeded);
        assert_eq!((memory.used(), memory.leaving), (1550, 350));
        assert_eq!(memory.fattest_leaves(), Some((tokens[2], 500)), "the fattest is needed");
    }
}
