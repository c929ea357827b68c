//! By when something must have happened on a connection.
//!
//! Deadlines are values in [`Tick`]s. Nothing here knows a clock: the engine says what time it
//! is and asks what is [due](Deadlines::due).

use std::num::NonZeroU64;

/// Milliseconds since the engine started, never 0.
pub(crate) type Tick = NonZeroU64;

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The frame that has begun to arrive must be complete.
    Frame,
    /// The peer must have taken some of what is queued.
    Write,
    /// Anything at all must have been received or sent.
    Idle,
    /// The peer must have finished after our last byte.
    Linger,
    /// The same, for a peer that sends nothing meanwhile.
    Quiet,
    /// The kernel had no buffer for a send: try again.
    Retry,
    /// The handler asked to be called.
    User,
}

impl Kind {
    /// Every kind, in the order in which deadlines that fall due together are handled.
    pub(crate) const ALL: [Self; 7] =
        [Self::Retry, Self::User, Self::Frame, Self::Write, Self::Idle, Self::Linger, Self::Quiet];
}

/// The deadlines of one connection.
#[derive(Debug, Default)]
pub(crate) struct Deadlines([Option<Tick>; 7]);

impl Deadlines {
    /// Sets or replaces the deadline of this kind.
    pub(crate) const fn set(&mut self, kind: Kind, at: Tick) {
        self.0[kind as usize] = Some(at);
    }

    /// Forgets the deadline of this kind.
    pub(crate) const fn clear(&mut self, kind: Kind) {
        self.0[kind as usize] = None;
    }

    /// Forgets all of them.
    pub(crate) const fn clear_all(&mut self) {
        self.0 = [None; 7];
    }

    /// When this kind is due, if it is set.
    pub(crate) const fn get(&self, kind: Kind) -> Option<Tick> {
        self.0[kind as usize]
    }

    /// Takes one deadline that is due at `now`.
    pub(crate) fn due(&mut self, now: Tick) -> Option<Kind> {
        let kind =
            Kind::ALL.into_iter().find(|&kind| self.get(kind).is_some_and(|at| at <= now))?;
        self.clear(kind);
        Some(kind)
    }

    /// The earliest of them.
    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.0.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadlines, Kind, Tick};

    fn tick(at: u64) -> Tick {
        Tick::new(at).expect("not zero")
    }

    #[test]
    fn a_deadline_falls_due_once_and_not_before_its_time() {
        for kind in Kind::ALL {
            let mut deadlines = Deadlines::default();
            deadlines.set(kind, tick(10));
            assert_eq!(deadlines.due(tick(9)), None, "{kind:?}");
            assert_eq!(deadlines.due(tick(10)), Some(kind));
            assert_eq!(deadlines.due(tick(10)), None, "{kind:?} once");
        }
    }

    #[test]
    fn the_earliest_counts() {
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.earliest(), None);
        deadlines.set(Kind::Idle, tick(30));
        deadlines.set(Kind::Frame, tick(20));
        assert_eq!(deadlines.earliest(), Some(tick(20)));
        deadlines.clear(Kind::Frame);
        assert_eq!(deadlines.earliest(), Some(tick(30)));
    }
}
