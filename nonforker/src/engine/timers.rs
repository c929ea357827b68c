//! Where deadlines wait.
//!
//! ```text
//!  arm ──▶ young ── settle, after the next wait ──▶ entries, by time ── pop ──▶ due
//!              └──▶ forgotten: it was met already
//! ```
//!
//! Most deadlines are met at once: a reply must be taken within 30 s, and the kernel takes it within
//! microseconds. So a deadline is *young* until the driver has waited once, and only then gets an
//! entry, if it is still there. The hot path costs two words in a list.
//!
//! A connection has at most one entry, at its earliest deadline or before it. Deadlines that move
//! later while they wait, as an idle timeout does with every message, do not touch the entry: it
//! fires, finds nothing due, and is set again.
//!
//! The entries are ordered by time and token, which makes a simulated run the same every time. A
//! hashed wheel would save the logarithm, which nobody pays more than once per connection and
//! timeout.

use std::collections::BTreeSet;

use crate::{conn::deadlines::Tick, driver::Token};

/// What a connection knows of its entry: when it is due, in the width of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduled(Option<Tick>);

impl Scheduled {
    /// It is among the young: nothing is due as late as this.
    const YOUNG: Self = Self(Some(Tick::MAX));

    /// Whether it is among the young, and has no entry.
    pub(crate) fn is_young(self) -> bool {
        self == Self::YOUNG
    }

    /// Whether it is looked at by `at`. The last tick of all never comes.
    pub(crate) fn is_by(self, at: Tick) -> bool {
        at == Tick::MAX || self.is_young() || self.0.is_some_and(|entry| entry <= at)
    }

    /// Its entry was taken out, being due.
    pub(crate) const fn fired(&mut self) {
        self.0 = None;
    }
}

/// The connections that wait for a time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(Tick, Token)>,
    young: Vec<Token>,
    /// The earliest deadline of the young, or a time before it.
    young_at: Option<Tick>,
}

impl Timers {
    /// Has `token` looked at by `at`. Returns whether that is news to whoever sleeps.
    pub(crate) fn note(&mut self, token: Token, scheduled: &mut Scheduled, at: Tick) -> bool {
        match *scheduled {
            Scheduled::YOUNG => {}
            Scheduled(None) => {
                *scheduled = Scheduled::YOUNG;
                self.young.push(token);
            }
            Scheduled(Some(entry)) => {
                if entry > at {
                    self.enter(token, scheduled, Some(at));
                }
                return entry > at;
            }
        }
        self.young_at = Some(self.young_at.map_or(at, |earliest| earliest.min(at)));
        true
    }

    /// Hands out the young: each is to be [entered](Self::enter) if it still has a deadline.
    pub(crate) fn settle(&mut self) -> Vec<Token> {
        self.young_at = None;
        std::mem::take(&mut self.young)
    }

    /// Takes the list back that was handed out, to be used again.
    pub(crate) fn settled(&mut self, mut list: Vec<Token>) {
        // Whoever became young meanwhile is in the other one.
        if self.young.is_empty() {
            list.clear();
            self.young = list;
        }
    }

    /// Moves the entry of `token` to `at`, unless it is due before that anyway. With no deadline at
    /// all, an entry that it has may stay. Whoever was young is so no more.
    pub(crate) fn enter(&mut self, token: Token, scheduled: &mut Scheduled, at: Option<Tick>) {
        if scheduled.is_young() {
            *scheduled = Scheduled(None);
        }
        let Some(at) = at else { return };
        if !scheduled.is_by(at) {
            self.cancel(token, scheduled);
            self.entries.insert((at, token));
            *scheduled = Scheduled(Some(at));
        }
    }

    /// Removes the entry of `token`, if it has one.
    pub(crate) fn cancel(&mut self, token: Token, scheduled: &mut Scheduled) {
        if let Some(at) = scheduled.0.take() {
            self.entries.remove(&(at, token));
        }
    }

    /// Takes one entry that is due at `now`; its connection is to be told by [`fired`].
    ///
    /// [`fired`]: Scheduled::fired
    pub(crate) fn pop(&mut self, now: Tick) -> Option<Token> {
        let &(at, token) = self.entries.first()?;
        (at <= now).then(|| self.entries.pop_first())?;
        Some(token)
    }

    /// Whether any are to be settled.
    #[inline]
    pub(crate) const fn has_any_young(&self) -> bool {
        !self.young.is_empty()
    }

    /// When something is due first.
    pub(crate) fn earliest(&self) -> Option<Tick> {
        let entry = self.entries.first().map(|&(at, _)| at);
        entry.into_iter().chain(self.young_at).min()
    }

    /// Whether a connection that is said to be young is.
    pub(crate) fn has_young(&self, token: Token) -> bool {
        self.young.contains(&token)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::{Scheduled, Timers};
    use crate::{conn::deadlines::Tick, driver::Token};

    fn tick(at: u64) -> Tick {
        Tick::new(at).expect("not zero")
    }

    #[test]
    fn a_connection_has_one_entry_at_its_earliest_deadline() {
        let mut slots = SlotMap::<Token, ()>::with_key();
        let (token, mut scheduled) = (slots.insert(()), Scheduled::default());
        let mut timers = Timers::default();
        for (at, is_earlier) in [(30, true), (40, false), (20, true), (20, false)] {
            assert_eq!(timers.note(token, &mut scheduled, tick(at)), is_earlier, "to {at}");
            for token in timers.settle() {
                timers.enter(token, &mut scheduled, Some(tick(at)));
            }
        }
        assert_eq!(timers.earliest(), Some(tick(20)));
        assert_eq!(timers.pop(tick(19)), None);
        assert_eq!(timers.pop(tick(20)), Some(token));
        assert_eq!(timers.pop(tick(99)), None, "one entry");
    }

    #[test]
    fn what_is_met_before_it_settles_has_no_entry() {
        let mut slots = SlotMap::<Token, ()>::with_key();
        let (token, mut scheduled) = (slots.insert(()), Scheduled::default());
        let mut timers = Timers::default();
        timers.note(token, &mut scheduled, tick(30));
        timers.note(token, &mut scheduled, tick(20));
        assert_eq!(timers.earliest(), Some(tick(20)), "nobody sleeps past it meanwhile");
        let young = timers.settle();
        assert_eq!(young, [token], "once");
        timers.enter(token, &mut scheduled, None);
        assert_eq!(timers.earliest(), None);
        assert!(!scheduled.is_by(tick(99)));
        timers.enter(token, &mut scheduled, Some(Tick::MAX));
        assert_eq!(timers.earliest(), None, "beyond counting");
    }
}
