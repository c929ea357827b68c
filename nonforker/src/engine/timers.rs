//! Where deadlines wait.
//!
//! A connection has at most one entry here, at its earliest deadline or before it. Deadlines
//! that move later while they wait, as an idle timeout does with every message, do not touch the
//! entry: it fires, finds nothing due, and is set again. So the hot path costs one comparison.
//!
//! The entries are ordered by time and token, which makes a simulated run the same every time. A
//! hashed wheel would save the logarithm, which nobody pays more than once per connection and
//! timeout.

use std::collections::BTreeSet;

use crate::{conn::deadlines::Tick, driver::Token};

/// The connections that wait for a time, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Tick, Token)>);

impl Timers {
    /// Moves the entry of `token`, now at `scheduled`, to `at`, unless it fires before that
    /// anyway. Returns whether it moved.
    pub(crate) fn schedule(
        &mut self,
        token: Token,
        scheduled: &mut Option<Tick>,
        at: Tick,
    ) -> bool {
        if scheduled.is_some_and(|scheduled| scheduled <= at) {
            return false;
        }
        self.cancel(token, scheduled);
        self.0.insert((at, token));
        *scheduled = Some(at);
        true
    }

    /// Removes the entry of `token`, if it has one.
    pub(crate) fn cancel(&mut self, token: Token, scheduled: &mut Option<Tick>) {
        if let Some(scheduled) = scheduled.take() {
            self.0.remove(&(scheduled, token));
        }
    }

    /// Takes one entry that is due at `now`. The connection's note of it is to be cleared.
    pub(crate) fn pop(&mut self, now: Tick) -> Option<Token> {
        let &(at, token) = self.0.first()?;
        (at <= now).then(|| self.0.pop_first())?;
        Some(token)
    }

    /// When the first entry is due.
    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.0.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::Timers;
    use crate::{conn::deadlines::Tick, driver::Token};

    fn tick(at: u64) -> Tick {
        Tick::new(at).expect("not zero")
    }

    #[test]
    fn a_connection_has_one_entry_at_its_earliest_deadline() {
        let mut slots = SlotMap::<Token, ()>::with_key();
        let (token, mut scheduled) = (slots.insert(()), None);
        let mut timers = Timers::default();
        for (at, moved) in [(30, true), (40, false), (20, true), (20, false)] {
            assert_eq!(timers.schedule(token, &mut scheduled, tick(at)), moved, "to {at}");
        }
        assert_eq!(timers.earliest(), Some(tick(20)));
        assert_eq!(timers.pop(tick(19)), None);
        assert_eq!(timers.pop(tick(20)), Some(token));
        assert_eq!(timers.pop(tick(99)), None, "one entry");
    }
}
