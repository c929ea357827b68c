//! The tickets of all shards: how many are open together, and which shards have clients that wait
//! for one.
//!
//! A shard counts here each ticket that it opens or ends. One whose clients wait says so, and then
//! looks again whether there are tickets. One that ends a ticket counts it, and then looks who waits.
//! So at least one of the two sees what the other did.

use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use super::Group;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct AllTickets {
    open: AtomicUsize,
    /// How many shards have clients that wait.
    waiting: AtomicUsize,
}

impl Group {
    /// How many tickets are open in all shards.
    pub(in crate::engine) fn open_tickets(&self) -> usize {
        self.tickets.open.load(SeqCst)
    }

    /// The tickets of a shard went from `before` to `after`. Returns how many are open in all. If
    /// that is fewer than `max`, shards are woken that wait.
    pub(in crate::engine) fn count_tickets(
        &self,
        before: usize,
        after: usize,
        max: usize,
    ) -> usize {
        let all = &self.tickets.open;
        if before <= after {
            return all.fetch_add(after - before, SeqCst) + (after - before);
        }
        let open = all.fetch_sub(before - after, SeqCst) - (before - after);
        if open < max && self.tickets.waiting.load(SeqCst) > 0 {
            let waits = self.members.iter().filter(|member| member.lacks_tickets.load(SeqCst));
            waits.for_each(|member| member.shared.wake());
        }
        open
    }

    /// Whether clients of a shard wait for tickets.
    pub(in crate::engine) fn set_lacks_tickets(&self, shard: u16, lacks: bool) {
        let own = &self.members[usize::from(shard)].lacks_tickets;
        if own.load(Relaxed) != lacks {
            own.store(lacks, SeqCst);
            if lacks {
                self.tickets.waiting.fetch_add(1, SeqCst);
            } else {
                self.tickets.waiting.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Whether it is known that clients of a shard wait for tickets.
    pub(in crate::engine) fn lacks_tickets(&self, shard: u16) -> bool {
        self.members[usize::from(shard)].lacks_tickets.load(SeqCst)
    }
}
