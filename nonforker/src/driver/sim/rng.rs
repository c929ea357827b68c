//! Where everything random in a simulation and in tests comes from.

use std::{cell::Cell, rc::Rc};

/// A seeded stream of numbers: the same on every machine. Clones draw from the same stream.
///
/// The generator is SplitMix64: one addition and two multiplications, every seed a good one.
#[derive(Clone, Debug)]
pub struct Rng(Rc<Cell<u64>>);

impl Rng {
    /// A stream that depends on nothing but `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(Cell::new(seed)))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut z = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The bias of the remainder is beyond what a simulation could notice.
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A length from `least` to `most`, both included.
    #[expect(clippy::cast_possible_truncation, reason = "the result is at most `most`")]
    pub fn between(&self, least: usize, most: usize) -> usize {
        least + self.below(most.saturating_sub(least) as u64 + 1) as usize
    }

    /// A length of any magnitude up to `most`: small ones are as frequent as large ones.
    pub fn magnitude(&self, most: usize) -> usize {
        let bits = (usize::BITS - most.leading_zeros()) as usize;
        let bound = most >> self.between(0, bits.saturating_sub(1));
        self.between(0, bound)
    }

    /// Whether something happens that happens `per_mille` times in a thousand.
    pub fn chance(&self, per_mille: u16) -> bool {
        // Nothing is drawn for what cannot happen, which keeps a simulation without faults fast.
        per_mille > 0 && self.below(1000) < per_mille as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_stream_is_the_same_on_every_machine() {
        let rng = Rng::new(1685);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        let again = Rng::new(1685);
        assert_eq!(drawn, (0..3).map(|_| again.next()).collect::<Vec<_>>());
        // The published numbers of SplitMix64.
        assert_eq!(Rng::new(0).next(), 0xe220_a839_7b1d_cdaf);
        let rng = Rng::new(1_234_567);
        let drawn = [rng.next(), rng.next()];
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let rng = Rng::new(7);
        for _ in 0..1000 {
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!(!rng.chance(0));
            assert!(rng.chance(1000));
        }
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.magnitude(100) <= 100));
    }
}
