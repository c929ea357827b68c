//! What a connection holds, and what becomes of that while memory is scarce.

use std::mem;

use super::Slot;
use crate::{
    driver::Token,
    engine::{
        marks::{End, PROGRESSED},
        memory::{Claim, Memory},
    },
};

impl Slot {
    /// Whether it is not read from while others have less.
    #[inline]
    pub(in crate::engine) fn is_withheld(&self, memory: &Memory) -> bool {
        memory.withholds(self.accounted) && !self.rules.serves_clients
    }

    fn claim(&self) -> Claim {
        match self.end {
            _ if self.rules.serves_clients => Claim::IsNeeded,
            End::Closing => Claim::Leaves,
            _ => Claim::Holds,
        }
    }

    /// What it holds, and what becomes of that.
    pub(in crate::engine) fn holding(&self) -> (Token, usize, Claim) {
        (self.token, self.accounted, self.claim())
    }

    pub(in crate::engine) const fn accounted(&self) -> usize {
        self.accounted
    }

    /// It is gone, and holds nothing.
    pub(in crate::engine) fn gives_all_back(&mut self, memory: &mut Memory) {
        memory.account(self.token, mem::take(&mut self.accounted), 0, self.claim());
    }

    /// Settles what the connection holds with the account of all.
    #[inline]
    pub(in crate::engine) fn settle_account(&mut self, memory: &mut Memory) {
        let capacity = self.conn.capacity();
        if capacity == self.accounted && self.end < End::Closing {
            return;
        }
        if self.accounted == 0 {
            // What has just begun to hold something is not in the way.
            self.marks |= PROGRESSED;
        }
        memory.account(self.token, self.accounted, capacity, self.claim());
        self.accounted = capacity;
    }
}
