//! Connections that end by their age, and those that a drain ends one after the other.
//!
//! ```text
//!  opened ──▶ its time: asked to end ──▶ a moment later: told to ──▶ the drain timeout: cut off
//! ```
//!
//! Asked means that it is cut as soon as a turn brings nothing from it, as in a drain: what has
//! arrived is answered. One that never stops sending is cut all the same. See [`drain`](super::drain).

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{core::Core, drain::Phase, shard::Shard, slot::Slot, table::Table};
use crate::{
    access::jittered,
    conn::{deadlines::Tick, state::State},
    driver::Token,
    error::CloseReason,
};

/// What is due for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asks,
    Insists,
    CutsOff,
}

/// See the [module](self). Both have each connection that has a time once.
#[derive(Debug, Default)]
pub(super) struct Ages {
    by_time: BTreeSet<(Tick, Token)>,
    stages: HashMap<Token, (Tick, Stage)>,
    /// How many connections have got a time.
    count: u64,
}

impl Ages {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Tick> {
        self.by_time.first().map(|&(at, _)| at)
    }

    fn set(&mut self, token: Token, at: Tick, stage: Stage) {
        self.remove(token);
        self.by_time.insert((at, token));
        self.stages.insert(token, (at, stage));
    }

    /// A connection has closed.
    pub(super) fn remove(&mut self, token: Token) {
        if !self.stages.is_empty()
            && let Some((at, _)) = self.stages.remove(&token)
        {
            self.by_time.remove(&(at, token));
        }
    }

    /// Whether each has its time once, and is there.
    pub(super) fn is_sound(&self, table: &Table) -> bool {
        let is_there = |(&token, &(at, _)): (&Token, &(Tick, Stage))| {
            table.contains(token) && self.by_time.contains(&(at, token))
        };
        self.by_time.len() == self.stages.len() && self.stages.iter().all(is_there)
    }

    fn pop(&mut self, now: Tick) -> Option<(Token, Stage)> {
        let &(at, token) = self.by_time.first().filter(|&&(at, _)| at <= now)?;
        self.by_time.remove(&(at, token));
        self.stages.remove(&token).map(|(_, stage)| (token, stage))
    }
}

impl Core {
    /// A connection is open: it may get as old as the limits allow.
    pub(super) fn may_age(&mut self, slot: &Slot) {
        if let Some(age) = self.limits.max_age
            && !slot.is_outgoing()
        {
            let after = jittered(age, self.ages.count);
            self.ages.count += 1;
            self.ages.set(slot.token(), self.tick_after(after), Stage::Asks);
            self.timers_moved = true;
        }
    }
}

impl<S> Shard<S> {
    /// The greatest age has changed: it counts from now on for all that are open.
    pub(super) fn age_anew(&mut self) {
        let Self { core, table, .. } = self;
        core.ages = Ages { count: core.ages.count, ..Ages::default() };
        for slot in table.slots().filter(|slot| slot.is_open() && slot.has_opened()) {
            core.may_age(slot);
        }
    }

    /// The drain ends all connections within this time, one after the other.
    pub(super) fn spread_ends(&mut self, spread: Duration) {
        let mut tokens = self.table.tokens();
        tokens.retain(|&token| self.table.get(token).is_some_and(|slot| !slot.is_outgoing()));
        let core = &mut self.core;
        core.ages = Ages::default();
        let each = spread / u32::try_from(tokens.len().max(1)).unwrap_or(u32::MAX);
        for (number, token) in (0..).zip(tokens) {
            let at = core.tick_after(each.saturating_mul(number));
            core.ages.set(token, at, Stage::Asks);
        }
        core.timers_moved = true;
    }

    /// Sees to connections whose time has come.
    pub(super) fn run_ages(&mut self) {
        let now = self.core.judged();
        while let Some((token, stage)) = self.core.ages.pop(now) {
            let Some(slot) = self.table.get_mut(token) else { continue };
            let core = &mut self.core;
            match stage {
                Stage::Asks => {
                    // A drain insists for all of them together.
                    if core.phase == Phase::Serving {
                        let moment = core.limits.max_age.unwrap_or_default() / 50;
                        let at = core.tick_after(moment.max(Duration::from_millis(1)));
                        core.ages.set(token, at, Stage::Insists);
                    }
                    self.uncut.push(token);
                    self.unusual = true;
                }
                Stage::Insists => {
                    let at = core.tick_after(core.limits.drain_timeout);
                    core.ages.set(token, at, Stage::CutsOff);
                    if self.uncut.contains(&token) {
                        self.uncut.retain(|&other| other != token);
                        self.cut(token);
                    }
                }
                // What has been sent already, and only waits for the peer to finish, has a bound.
                Stage::CutsOff if slot.conn.state() == State::Lingering => {}
                Stage::CutsOff => core.fail(slot, CloseReason::Stopped, true),
            }
        }
    }
}
