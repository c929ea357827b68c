//! Which connection goes when the server is full and a client waits: the oldest unused one.
//!
//! A client that connects and says nothing must not take a place from one that has a request. So a
//! connection without a complete request goes, from its second second on, and what greeted it as it
//! opened does not save it: see [`Limits::unused_timeout`](crate::Limits::unused_timeout). Of several
//! services, only one whose end makes room where a client waits.
//!
//! ```text
//!  all connections ── every second at most, while a client waits ──▶ queue, the oldest first
//!  queue ── one goes, then its place is taken, then the next ──▶ gone
//! ```
//!
//! To look at all connections costs; but one look serves for all that it finds, and there is none
//! while nobody waits.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use super::{
    Engine,
    core::Core,
    places,
    shard::Shard,
    slot::{ServiceId, Slot},
};
use crate::{
    conn::deadlines::Tick,
    driver::{Driver, Token},
    error::CloseReason,
};

/// How long a connection has its place for sure, in milliseconds.
const SAFE: u32 = 1000;

/// Unused connections, as they were found.
#[derive(Debug, Default)]
pub(super) struct UnusedOnes {
    /// Those that may go, the oldest first.
    queue: VecDeque<Token>,
    /// One that goes and whose place is not free yet.
    leaving: Option<Token>,
    /// Not to be looked for before.
    look_at: Option<Tick>,
}

impl UnusedOnes {
    /// What was found may not hold any more: the rules have changed.
    pub(super) fn forget(&mut self) {
        self.queue.clear();
        self.look_at = None;
    }

    /// When to look again, unless one goes just now.
    pub(super) fn look_at(&self) -> Option<Tick> {
        self.look_at.filter(|_| self.queue.is_empty() && self.leaving.is_none())
    }
}

impl<D: Driver> Engine<D> {
    /// A client waits and there is no place: has the oldest unused connection go.
    pub(super) fn make_room(&mut self) {
        let Self { driver, shard } = self;
        let leaving = shard.acceptor.unused.leaving;
        if leaving.is_some_and(|token| shard.table.contains(token)) {
            return;
        }
        shard.acceptor.unused.leaving = None;
        let mut waiting: Vec<ServiceId> = shard.acceptor.waiting().collect();
        waiting.dedup();
        // What had arrived has been delivered by then.
        let judged = shard.core.judged();
        if shard.acceptor.unused.queue.is_empty() {
            if shard.acceptor.unused.look_at.is_some_and(|at| at > judged) {
                return;
            }
            shard.look_for_unused(&waiting);
        }
        while let Some(token) = shard.acceptor.unused.queue.pop_front() {
            let Some(slot) = shard.table.get_mut(token) else { continue };
            let may_go = slot.unused_for(shard.core.millis()).is_some();
            if may_go && helps(&shard.core, slot, &waiting) && driver.unread(token) == 0 {
                shard.acceptor.unused.leaving = Some(token);
                shard.core.fail(slot, CloseReason::Unused, true);
                return;
            }
        }
    }
}

/// Whether the end of this connection gives one of those services a place for which a client waits.
fn helps(core: &Core, slot: &Slot, waiting: &[ServiceId]) -> bool {
    waiting.iter().any(|&waits| places::helps(&core.desks, slot.service(), waits))
}

impl<S> Shard<S> {
    fn look_for_unused(&mut self, waiting: &[ServiceId]) {
        let now = self.core.millis();
        let mut next = SAFE;
        let mut found = Vec::new();
        for slot in self.table.slots().filter(|slot| helps(&self.core, slot, waiting)) {
            match slot.unused_for(now) {
                Some(age) if age >= SAFE => found.push((Reverse(age), slot.token())),
                Some(age) => next = next.min(SAFE - age),
                None => {}
            }
        }
        found.sort_unstable();
        self.acceptor.unused.queue = found.into_iter().map(|(_, token)| token).collect();
        let next = Duration::from_millis(u64::from(next));
        self.acceptor.unused.look_at = Some(self.core.tick_after(next));
    }
}
