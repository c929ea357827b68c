//! By when something must have happened on a connection.
//!
//! Deadlines are values in [`Tick`]s. Nothing here knows a clock: the engine says what time it
//! is and asks what is [due](Deadlines::due).

use std::num::NonZeroU64;

/// Microseconds since the engine started, never 0.
pub(crate) type Tick = NonZeroU64;

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What comes before the first frame must be there.
    Handshake,
    /// The frame that has begun to arrive must be complete.
    Frame,
    /// What has arrived on a relayed connection goes on, which waits on purpose.
    Delay,
    /// The peer must have taken some of what is queued.
    Write,
    /// Anything at all must have been received or sent.
    Idle,
    /// A first request must be complete, or something must have been sent.
    Unused,
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
    pub(crate) const ALL: [Self; 10] = [
        Self::Handshake,
        Self::Delay,
        Self::Retry,
        Self::User,
        Self::Frame,
        Self::Write,
        Self::Idle,
        Self::Unused,
        Self::Linger,
        Self::Quiet,
    ];

    /// Where it is kept. Some of them are never waited for at the same time, and share a place: ten
    /// thousand connections are smaller for it.
    const fn place(self) -> usize {
        match self {
            Self::Frame | Self::Handshake | Self::Delay | Self::Linger => 0,
            Self::Write | Self::Quiet | Self::Unused => 1,
            Self::Idle | Self::Retry => 2,
            Self::User => 3,
        }
    }
}

const PLACES: usize = 4;

/// A deadline or none, in two halves: so what a connection keeps beside its deadlines fits between
/// them and the next number of eight bytes.
#[derive(Clone, Copy, Debug)]
struct Place([u32; 2]);

impl Place {
    const EMPTY: Self = Self([0; 2]);

    const fn of(at: Tick) -> Self {
        let at = at.get();
        #[expect(clippy::cast_possible_truncation, reason = "these are the halves")]
        let halves = [at as u32, (at >> 32) as u32];
        Self(halves)
    }

    const fn get(self) -> Option<Tick> {
        let [low, high] = self.0;
        Tick::new(low as u64 | (high as u64) << 32)
    }
}

/// The deadlines of one connection.
///
/// The first of [`Linger`](Kind::Linger) and [`Quiet`](Kind::Quiet) ends all others, and after it no
/// others are taken: everything else is done by then. Who waits to [`Retry`](Kind::Retry) is not
/// idle, so that takes the place of [`Idle`](Kind::Idle), which has to be set again afterwards. A
/// connection is [`Unused`](Kind::Unused) only before anything is sent, so [`Write`](Kind::Write)
/// takes the place of that for good.
#[derive(Debug)]
pub(crate) struct Deadlines {
    places: [Place; PLACES],
    /// Of which kind each of them is now.
    kinds: [Kind; PLACES],
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            places: [Place::EMPTY; PLACES],
            kinds: [Kind::Frame, Kind::Write, Kind::Idle, Kind::User],
        }
    }
}

impl Deadlines {
    const fn is_its_turn(&self, kind: Kind) -> bool {
        self.kinds[kind.place()] as u8 == kind as u8
    }

    const fn lingers(&self) -> bool {
        matches!(self.kinds[0], Kind::Linger)
    }

    /// Sets or replaces the deadline of this kind.
    pub(crate) const fn set(&mut self, kind: Kind, at: Tick) {
        match kind {
            Kind::Linger | Kind::Quiet if !self.lingers() => {
                self.clear_all();
                self.kinds = [Kind::Linger, Kind::Quiet, Kind::Linger, Kind::Linger];
            }
            Kind::Retry | Kind::Unused | Kind::Write | Kind::Handshake | Kind::Delay
                if !self.lingers() =>
            {
                self.kinds[kind.place()] = kind;
            }
            _ => {}
        }
        let place = kind.place();
        if self.kinds[place] as u8 == kind as u8 {
            self.places[place] = Place::of(at);
        }
    }

    /// Forgets the deadline of this kind.
    pub(crate) const fn clear(&mut self, kind: Kind) {
        if self.is_its_turn(kind) {
            self.places[kind.place()] = Place::EMPTY;
            match kind {
                Kind::Retry => self.kinds[kind.place()] = Kind::Idle,
                Kind::Unused => self.kinds[kind.place()] = Kind::Write,
                Kind::Handshake | Kind::Delay => self.kinds[kind.place()] = Kind::Frame,
                _ => {}
            }
        }
    }

    /// Forgets all of them.
    pub(crate) const fn clear_all(&mut self) {
        self.places = [Place::EMPTY; PLACES];
        if !self.lingers() {
            self.kinds = [Kind::Frame, Kind::Write, Kind::Idle, Kind::User];
        }
    }

    /// When this kind is due, if it is set.
    pub(crate) const fn get(&self, kind: Kind) -> Option<Tick> {
        let place = kind.place();
        if self.kinds[place] as u8 == kind as u8 { self.places[place].get() } else { None }
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
        self.places.into_iter().filter_map(Place::get).min()
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

    #[test]
    fn a_retry_takes_the_place_of_the_idle_deadline_until_it_is_due() {
        let mut deadlines = Deadlines::default();
        deadlines.set(Kind::Idle, tick(100));
        deadlines.set(Kind::Retry, tick(10));
        deadlines.set(Kind::Idle, tick(200));
        assert_eq!((deadlines.get(Kind::Idle), deadlines.earliest()), (None, Some(tick(10))));
        assert_eq!(deadlines.due(tick(10)), Some(Kind::Retry));
        assert_eq!(deadlines.earliest(), None);
        deadlines.set(Kind::Idle, tick(300));
        assert_eq!(deadlines.get(Kind::Idle), Some(tick(300)));
    }

    #[test]
    fn a_write_ends_that_nothing_was_ever_sent() {
        let mut deadlines = Deadlines::default();
        deadlines.set(Kind::Unused, tick(10));
        assert_eq!(
            (deadlines.get(Kind::Write), deadlines.get(Kind::Unused)),
            (None, Some(tick(10)))
        );
        deadlines.clear(Kind::Write);
        assert_eq!(deadlines.get(Kind::Unused), Some(tick(10)), "another's is not cleared");
        deadlines.set(Kind::Write, tick(20));
        assert_eq!(
            (deadlines.get(Kind::Write), deadlines.get(Kind::Unused)),
            (Some(tick(20)), None)
        );
        deadlines.clear(Kind::Unused);
        assert_eq!(deadlines.earliest(), Some(tick(20)), "another's is not cleared");
    }

    #[test]
    fn the_last_deadlines_end_all_others() {
        for kind in Kind::ALL {
            let mut deadlines = Deadlines::default();
            deadlines.set(kind, tick(10));
            deadlines.set(Kind::Linger, tick(20));
            let left = if kind == Kind::Quiet { Some(tick(10)) } else { None };
            if kind != Kind::Linger {
                assert_eq!(deadlines.get(kind), left, "{kind:?}");
            }
            deadlines.set(Kind::Frame, tick(5));
            deadlines.clear(Kind::Frame);
            assert_eq!(deadlines.get(Kind::Linger), Some(tick(20)), "{kind:?}");
        }
    }
}
