//! The budget for all buffers together, and what is given up as it runs out.
//!
//! ```text
//!  0 %                    80 %               90 %              100 %
//!  ├── Ample ──────────────┼── StopReading ───┼── StopAccepting ─┼── evict the fattest
//!                 70 % ◀── recovers
//! ```

/// How scarce memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scarcity {
    /// Nothing to be given up.
    Ample,
    /// Nothing more is read.
    StopReading,
    /// Nothing more is read or accepted.
    StopAccepting,
}

/// The account of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    used: usize,
    budget: usize,
    /// A hundredth of it.
    percent: usize,
    scarcity: Scarcity,
}

impl Memory {
    /// Nothing used of `budget` bytes.
    pub(crate) const fn new(budget: usize) -> Self {
        Self { used: 0, budget, percent: budget / 100, scarcity: Scarcity::Ample }
    }

    /// A connection's buffers went from `before` to `after` bytes.
    pub(crate) const fn account(&mut self, before: usize, after: usize) {
        self.used = self.used.saturating_sub(before).saturating_add(after);
    }

    pub(crate) const fn scarcity(&self) -> Scarcity {
        self.scarcity
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// How many bytes are used beyond the budget.
    pub(crate) const fn excess(&self) -> usize {
        self.used.saturating_sub(self.budget)
    }

    /// Decides how scarce memory is now. Returns the former answer if it was another.
    pub(crate) fn judge(&mut self) -> Option<Scarcity> {
        let scarcity = if self.used >= self.percent * 90 {
            Scarcity::StopAccepting
        } else if self.used >= self.percent * 80 {
            // Between the marks what was given up stays so, until all is well.
            self.scarcity.max(Scarcity::StopReading)
        } else if self.used >= self.percent * 70 {
            self.scarcity
        } else {
            Scarcity::Ample
        };
        let before = std::mem::replace(&mut self.scarcity, scarcity);
        (before != scarcity).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Memory,
        Scarcity::{Ample, StopAccepting, StopReading},
    };

    #[test]
    fn what_is_given_up_comes_back_only_when_all_is_well() {
        let mut memory = Memory::new(1000);
        let mut used = 0;
        for (now, scarcity, excess) in [
            (790, Ample, 0),
            (800, StopReading, 0),
            (790, StopReading, 0),
            (900, StopAccepting, 0),
            (850, StopAccepting, 0),
            (1200, StopAccepting, 200),
            (700, StopAccepting, 0),
            (699, Ample, 0),
            (750, Ample, 0),
        ] {
            memory.account(used, now);
            used = now;
            memory.judge();
            assert_eq!((memory.scarcity(), memory.excess()), (scarcity, excess), "at {now}");
        }
    }
}
