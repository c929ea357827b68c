//! One direction of a relayed connection that is made worse on purpose: when how many bytes go on.
//!
//! ```text
//!  received ── arrived ──▶ kept ── next ──▶ so many bytes, or wait, or the fault of this connection
//! ```
//!
//! Whatever is drawn depends on the seed, the number of the connection, the direction and a count of
//! bytes, and is drawn anew for each: so the same is drawn however bytes arrive.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    conn::deadlines::Tick,
    driver::{nanos, sim::rng::Rng},
    relay_faults::RelayFaults,
};

/// A fault of a connection strikes within so many bytes.
const STRIKES_WITHIN: u64 = 4096;

/// The most entries of what is delayed: beyond it, what arrives waits for the last of them.
const DELAYED_MAX: usize = 256;

/// How much of the bandwidth of a second goes in one piece, and may be made up for.
const GRAIN: u64 = 20;

/// What happens to a connection once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    Cut,
    Reset,
    Stall,
}

/// What is to be done with a direction just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many of the bytes that are kept go on.
    Pass(usize),
    /// Nothing before this.
    Wait(Tick),
    /// This happens: once.
    Strike(Strike),
    /// Nothing before more arrives, or ever.
    Nothing,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Impaired {
    faults: Arc<RelayFaults>,
    /// That of this direction of this connection.
    seed: u64,
    arrived: u64,
    passed: u64,
    /// When bytes up to which count may go on.
    delayed: VecDeque<(u64, Tick)>,
    /// Up to which byte the present piece goes.
    piece_end: u64,
    /// The bandwidth is used up until then.
    free_at: Tick,
    /// When the end of what arrives may go on.
    end_at: Option<Tick>,
    /// Behind which byte something happens.
    strike: Option<(u64, Strike)>,
    has_stalled: bool,
}

impl Impaired {
    /// Both directions of the connection with this number.
    pub(super) fn both(faults: &Arc<RelayFaults>, number: u64) -> [Self; 2] {
        let rng = Rng::new(mixed(faults.seed, number));
        #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let mut share = (rng.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let chosen = [
            (faults.cut, Strike::Cut),
            (faults.reset, Strike::Reset),
            (faults.stall, Strike::Stall),
        ];
        let strike = chosen.into_iter().find_map(|(of_all, strike)| {
            let is_it = share < of_all;
            share -= of_all;
            is_it.then_some(strike)
        });
        // Each power of two is as likely.
        let at = 1 + rng.below(STRIKES_WITHIN >> rng.below(u64::from(STRIKES_WITHIN.ilog2()) + 1));
        let direction = rng.below(2);
        [0, 1].map(|this| Self {
            faults: Arc::clone(faults),
            seed: rng.next(),
            arrived: 0,
            passed: 0,
            delayed: VecDeque::new(),
            piece_end: 0,
            free_at: Tick::MIN,
            end_at: None,
            strike: strike.filter(|_| direction == this).map(|strike| (at, strike)),
            has_stalled: false,
        })
    }

    /// So many bytes have arrived.
    pub(super) fn arrived(&mut self, count: usize, now: Tick) {
        let Some(latency) = self.faults.latency.filter(|_| count > 0) else { return };
        let due = self.due(latency, now);
        self.arrived += count as u64;
        let is_full = self.delayed.len() >= DELAYED_MAX;
        match self.delayed.back_mut() {
            Some(last) if last.1 >= due || is_full => {
                *last = (self.arrived, last.1.max(due));
            }
            _ => self.delayed.push_back((self.arrived, due)),
        }
    }

    /// When what arrives now goes on, if nothing before it has to wait for longer.
    fn due(&self, [least, most]: [Duration; 2], now: Tick) -> Tick {
        let (least, most) = (nanos(least) / 1000, nanos(most) / 1000);
        let drawn = Rng::new(mixed(self.seed, self.arrived)).below(most - least + 1);
        now.saturating_add(least + drawn)
    }

    /// What arrives has ended. Returns until when that waits, if it does.
    pub(super) fn ended(&mut self, now: Tick) -> Option<Tick> {
        let latency = self.faults.latency?;
        let before = self.delayed.back().map_or(Tick::MIN, |last| last.1);
        let at = match self.end_at {
            Some(at) => at,
            None => *self.end_at.insert(self.due(latency, now).max(before)),
        };
        (at > now).then_some(at)
    }

    /// Whether nothing goes through for ever.
    pub(super) const fn has_stalled(&self) -> bool {
        self.has_stalled
    }

    /// Whether a reset is what comes next.
    pub(super) fn resets_next(&self) -> bool {
        self.strike == Some((self.passed, Strike::Reset))
    }

    /// The other direction has stalled, and so does this one.
    pub(super) const fn stall(&mut self) {
        self.has_stalled = true;
    }

    /// What comes next, of `kept` bytes.
    pub(super) fn next(&mut self, kept: usize, now: Tick) -> Step {
        if self.has_stalled {
            return Step::Nothing;
        }
        let before_strike = match self.strike {
            Some((at, strike)) if at == self.passed => {
                self.strike = None;
                self.has_stalled = strike == Strike::Stall;
                return Step::Strike(strike);
            }
            Some((at, _)) => at - self.passed,
            None => u64::MAX,
        };
        let mut count = (kept as u64).min(before_strike);
        if count == 0 {
            return Step::Nothing;
        }
        if self.faults.latency.is_some() {
            while self.delayed.front().is_some_and(|first| first.0 <= self.passed) {
                self.delayed.pop_front();
            }
            let mut due = self.passed;
            for &(end, at) in &self.delayed {
                if at > now {
                    break;
                }
                due = end;
            }
            match self.delayed.front() {
                Some(&(_, at)) if at > now => return Step::Wait(at),
                _ => count = count.min(due - self.passed),
            }
        }
        if let Some([least, most]) = self.faults.slice {
            while self.piece_end <= self.passed {
                let rng = Rng::new(mixed(self.seed, !self.piece_end));
                self.piece_end += rng.between(least, most) as u64;
            }
            count = count.min(self.piece_end - self.passed);
        }
        if let Some(bandwidth) = self.faults.bandwidth {
            if self.free_at > now {
                return Step::Wait(self.free_at);
            }
            count = count.min((bandwidth / GRAIN).max(1));
            // A wake-up that came late is made up for.
            let slack = 1_000_000 / GRAIN;
            let from = self.free_at.max(Tick::MIN.saturating_add(now.get().saturating_sub(slack)));
            self.free_at = from.saturating_add((count * 1_000_000).div_ceil(bandwidth));
        }
        self.passed += count;
        Step::Pass(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// A seed made of two.
fn mixed(seed: u64, number: u64) -> u64 {
    Rng::new(Rng::new(seed).next().wrapping_add(number)).next()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{Impaired, Step, Strike};
    use crate::{conn::deadlines::Tick, relay_faults::RelayFaults};

    fn tick(at: u64) -> Tick {
        Tick::new(at).expect("not zero")
    }

    /// What comes of `count` bytes that arrive in pieces of `piece`: how many go on at which time, to
    /// the end or to a strike.
    fn passes(
        way: &mut Impaired,
        count: usize,
        piece: usize,
    ) -> (Vec<(u64, usize)>, Option<Strike>) {
        let (mut now, mut kept, mut arrived) = (tick(1), 0, 0);
        let mut passes = Vec::new();
        loop {
            if arrived < count {
                let more = piece.min(count - arrived);
                way.arrived(more, now);
                (arrived, kept) = (arrived + more, kept + more);
            }
            match way.next(kept, now) {
                Step::Pass(count) => {
                    kept -= count;
                    passes.push((now.get(), count));
                }
                Step::Wait(at) => {
                    assert!(at > now, "it goes on");
                    now = at;
                }
                Step::Strike(strike) => return (passes, Some(strike)),
                Step::Nothing if arrived < count => {}
                Step::Nothing => return (passes, None),
            }
        }
    }

    fn sum(passes: &[(u64, usize)]) -> usize {
        passes.iter().map(|pass| pass.1).sum()
    }

    #[test]
    fn a_connection_is_struck_at_the_same_byte_however_its_bytes_arrive() {
        let faults = RelayFaults::new().cut(0.2).reset(0.2).stall(0.2).slice(1, 7).seed(7);
        let faults = Arc::new(faults);
        let mut struck = [0; 4];
        let mut early = 0;
        for number in 0..1000 {
            let ends: Vec<_> = [1, 7, 5000]
                .map(|piece| {
                    Impaired::both(&faults, number).map(|mut way| {
                        let (passes, strike) = passes(&mut way, 5000, piece);
                        (sum(&passes), strike)
                    })
                })
                .to_vec();
            assert_eq!(ends[0], ends[1], "{number}");
            assert_eq!(ends[0], ends[2], "{number}");
            let strike = ends[0].iter().find(|end| end.1.is_some());
            let Some(&(at, strike)) = strike else {
                struck[3] += 1;
                continue;
            };
            assert!((1..=4096).contains(&at), "{at}");
            early += usize::from(at <= 64);
            match strike {
                Some(Strike::Cut) => struck[0] += 1,
                Some(Strike::Reset) => struck[1] += 1,
                _ => struck[2] += 1,
            }
            assert_eq!(ends[0].iter().filter(|end| end.1.is_some()).count(), 1, "one direction");
        }
        for (count, share) in struck.into_iter().zip([200, 200, 200, 400]) {
            assert!((share - 60..share + 60).contains(&count), "{struck:?}");
        }
        assert!((200..450).contains(&early), "{early} of 600 within 64 bytes");
    }

    #[test]
    fn another_seed_has_other_faults_and_none_has_none() {
        let strikes = |seed, share| -> Vec<_> {
            let faults = Arc::new(RelayFaults::new().reset(share).seed(seed));
            let one = |number| {
                Impaired::both(&faults, number).map(|mut way| passes(&mut way, 5000, 5000).1)
            };
            (0..100).map(one).collect()
        };
        assert_eq!(strikes(1, 0.5), strikes(1, 0.5));
        assert_ne!(strikes(1, 0.5), strikes(2, 0.5));
        assert!(strikes(1, 0.0).into_iter().flatten().all(|strike| strike.is_none()));
        assert_eq!(strikes(1, 1.0).into_iter().flatten().flatten().count(), 100);
    }

    #[test]
    fn pieces_are_within_their_bounds_and_all_lengths_come() {
        let faults = Arc::new(RelayFaults::new().slice(1, 7));
        let [mut way, _] = Impaired::both(&faults, 0);
        let (passes, _) = passes(&mut way, 5000, 5000);
        assert_eq!(sum(&passes), 5000);
        let mut lengths: Vec<_> = passes.iter().map(|pass| pass.1).collect();
        lengths.pop();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn latency_keeps_the_order_and_both_ends_of_its_range() {
        let ms = Duration::from_millis;
        let faults = Arc::new(RelayFaults::new().latency(ms(1), ms(3)));
        let [mut way, _] = Impaired::both(&faults, 3);
        let mut delays = Vec::new();
        for round in 0..10_000 {
            let now = tick(1 + round * 10_000);
            way.arrived(1, now);
            let Step::Wait(at) = way.next(1, now) else { panic!("it does not wait") };
            assert_eq!(way.next(1, at), Step::Pass(1));
            delays.push(at.get() - now.get());
        }
        let (least, most) = (delays.iter().min(), delays.iter().max());
        assert!(least.is_some_and(|least| (1000..1010).contains(least)), "{least:?}");
        assert!(most.is_some_and(|most| (2990..=3000).contains(most)), "{most:?}");
        let exact = Arc::new(RelayFaults::new().latency(ms(2), ms(2)));
        let [mut way, _] = Impaired::both(&exact, 3);
        way.arrived(5, tick(1));
        assert_eq!(way.next(5, tick(1)), Step::Wait(tick(2001)));
        assert_eq!(way.ended(tick(1)), Some(tick(2001)), "the end comes behind the last byte");
        assert_eq!(way.next(5, tick(2001)), Step::Pass(5));
        assert_eq!(way.ended(tick(2001)), None);
    }

    #[test]
    fn bandwidth_is_kept_over_time_and_in_small_pieces() {
        let faults = Arc::new(RelayFaults::new().bandwidth(10_240));
        let [mut way, _] = Impaired::both(&faults, 0);
        let (passes, _) = passes(&mut way, 102_400, 102_400);
        assert_eq!(sum(&passes), 102_400);
        let took = passes.last().expect("something passed").0;
        assert!((9_900_000..=10_000_000).contains(&took), "{took} µs");
        assert!(passes.iter().all(|pass| pass.1 <= 512));
    }
}
