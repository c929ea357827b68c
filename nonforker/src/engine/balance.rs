//! How the shards of a server share its clients: one with clearly more connections than the emptiest
//! does not accept.
//!
//! ```text
//!             more than the emptiest, by more than the slack
//!  accepts ────────────────────────────────────────────────────▶ yields
//!     ▲                                                            │
//!     └── the others have caught up, or its own clients have gone ─┤
//!                                                                  └─▶ looks, if nobody accepts
//! ```
//!
//! All shards accept from the same listeners. A driver tells at least one of those that accept that
//! a client waits. So a shard that yields has the emptiest one look as soon as its own driver is told
//! of no more clients: one of whom it was told may still wait. The emptiest never yields, so somebody
//! accepts.
//!
//! The emptiest may be busy, in a handler that takes a second. So a shard that yields looks again:
//! after a moment, then ever less often. If no shard has accepted anything since its last look, it
//! takes what waits at its listeners just then.

use std::time::Duration;

use super::{Engine, accept::Acceptor, core::Core, drain::Phase, shard::Shard};
use crate::{conn::deadlines::Tick, driver::Driver};

/// The least and the most time between two looks of a shard that yields.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(250);

/// Up to how many connections a shard accepts if the emptiest one has `fewest`.
const fn most(fewest: usize) -> usize {
    let slack = if fewest < 128 { 8 } else { fewest / 16 };
    fewest.saturating_add(slack)
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Balance {
    /// Clients are left to other shards.
    yields: bool,
    /// It accepts for one wait, although it yields.
    looks: bool,
    /// Up to so many connections it is not compared with the others.
    checked: usize,

    look_at: Option<Tick>,
    patience: Duration,
    /// How many connections all shards had accepted at the last look.
    accepted: usize,
    /// What of the places of other shards is known.
    pub(super) places_seen: usize,
}

impl Balance {
    pub(super) const fn new() -> Self {
        Self {
            yields: false,
            looks: false,
            checked: 0,
            look_at: None,
            patience: LOOK_MIN,
            accepted: 0,
            places_seen: 0,
        }
    }

    /// Whether clients are left to other shards just now.
    pub(super) const fn is_off(&self) -> bool {
        self.yields && !self.looks
    }

    /// Whether it has to be looked at in the next turn.
    pub(super) const fn is_unusual(&self) -> bool {
        self.yields
    }

    /// When to look whether anybody accepts.
    pub(super) const fn look_at(&self) -> Option<Tick> {
        self.look_at
    }
}

impl<D: Driver> Engine<D> {
    /// Follows what other shards have done.
    pub(super) fn follow_others(&mut self) {
        let Self { driver, shard } = self;
        if shard.core.alone {
            return;
        }
        let asked = shard.core.group.take_look(shard.core.shard);
        shard.note_places();
        shard.balance(asked);
        if asked {
            shard.acceptor.look_at_listeners(driver);
        }
    }
}

impl Core {
    /// The driver of this shard is told of no more clients: the emptiest shard looks for those who
    /// wait.
    #[cold]
    pub(super) fn has_emptiest_look(&self) {
        if let Some((emptiest, _)) = self.group.emptiest_other(self.shard) {
            self.group.have_look(emptiest);
        }
    }
}

impl<S> Shard<S> {
    /// Brings up to date what this shard knows of the places of others, and they of this one.
    pub(super) fn note_places(&mut self) {
        let Self { core, acceptor, table, .. } = self;
        core.group.note_places(&mut core.desks, &mut acceptor.balance.places_seen);
        core.group.set_connections(core.shard, table.len());
    }

    /// Decides whether this shard accepts. If it was `asked` to look, the others have changed.
    fn balance(&mut self, asked: bool) {
        if self.core.phase != Phase::Serving {
            // Clients in the backlog are served by any shard that has room.
            return self.yield_no_more(usize::MAX);
        }
        let (own, balance) = (self.table.len(), &self.acceptor.balance);
        let is_due = balance.look_at.is_some_and(|at| at <= self.core.tick());
        let is_to_compare = if balance.yields {
            asked || is_due || own <= balance.checked
        } else {
            own > balance.checked
        };
        if !is_to_compare {
            return;
        }
        let Some((_, fewest)) = self.core.group.emptiest_other(self.core.shard) else {
            return;
        };
        let most = most(fewest.min(own));
        match (self.acceptor.balance.yields, own > most) {
            (false, true) => self.begin_to_yield(most),
            (false, false) => {
                self.acceptor.balance.checked = most;
                self.core.group.wake_yielding(most);
            }
            (true, false) => self.yield_no_more(most),
            (true, true) => {
                self.acceptor.balance.checked = most;
                if is_due {
                    self.look_whether_anybody_accepts();
                }
            }
        }
    }

    fn begin_to_yield(&mut self, most: usize) {
        let Self { core, acceptor, .. } = self;
        acceptor.balance = Balance {
            yields: true,
            looks: false,
            checked: most,
            look_at: Some(core.tick_after(LOOK_MIN)),
            patience: LOOK_MIN,
            accepted: core.group.accepted(),
            places_seen: acceptor.balance.places_seen,
        };
        core.group.set_yields(core.shard, true);
        core.group.wake_yielding(most);
    }

    fn yield_no_more(&mut self, checked: usize) {
        let Self { core, acceptor, .. } = self;
        if acceptor.balance.yields {
            core.group.set_yields(core.shard, false);
        }
        acceptor.balance =
            Balance { checked, places_seen: acceptor.balance.places_seen, ..Balance::new() };
    }

    fn look_whether_anybody_accepts(&mut self) {
        let Self { core, acceptor: Acceptor { balance, .. }, .. } = self;
        let accepted = core.group.accepted();
        balance.looks = accepted == balance.accepted;
        balance.accepted = accepted;
        balance.look_at = Some(core.tick_after(balance.patience));
        balance.patience = (balance.patience * 2).min(LOOK_MAX);
    }

    /// So many connections were accepted in this turn.
    pub(super) fn has_accepted(&mut self, count: usize) {
        let Self { core, acceptor: Acceptor { balance, .. }, .. } = self;
        if count > 0 {
            core.group.has_accepted(count);
            if balance.looks {
                // Nobody else takes them: what comes next need not wait longer.
                balance.patience = LOOK_MIN;
                balance.look_at = Some(core.tick_after(LOOK_MIN));
                balance.accepted = core.group.accepted();
            }
        }
        balance.looks = false;
    }
}

#[cfg(test)]
mod tests {
    use super::most;

    #[test]
    fn the_slack_is_some_connections_or_a_sixteenth() {
        for (fewest, expected) in [(0, 8), (1, 9), (100, 108), (128, 136), (160, 170), (1600, 1700)]
        {
            assert_eq!(most(fewest), expected, "{fewest}");
        }
        assert_eq!(most(usize::MAX), usize::MAX);
    }
}
