//! Warnings that come once a second at most, however often their cause does.

use crate::conn::deadlines::Tick;

/// The least time between two warnings of one kind, in milliseconds.
const PAUSE: u64 = 1000;

/// When a kind of warning was last given, and how many were left out since.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Tick>,
    left_out: u64,
}

impl Throttle {
    /// Whether to warn now: then with the number of warnings left out since the last one.
    pub(crate) const fn pass(&mut self, now: Tick) -> Option<u64> {
        if let Some(last) = self.last
            && now.get() < last.get() + PAUSE
        {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::replace(&mut self.left_out, 0))
    }
}

/// Every kind of warning the engine gives.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    pub(crate) accept: Throttle,
    pub(crate) full: Throttle,
    pub(crate) per_ip: Throttle,
    pub(crate) memory: Throttle,
    pub(crate) evicted: Throttle,
    pub(crate) handler: Throttle,
    pub(crate) codec: Throttle,
    pub(crate) slow: Throttle,
    pub(crate) send: Throttle,
    pub(crate) defect: Throttle,
}

#[cfg(test)]
mod tests {
    use super::Throttle;
    use crate::conn::deadlines::Tick;

    #[test]
    fn a_flood_of_warnings_is_one_a_second_and_a_count() {
        let mut throttle = Throttle::default();
        let given: Vec<_> = (1..=2500)
            .filter_map(|at| Some((at, throttle.pass(Tick::new(at).expect("not zero"))?)))
            .collect();
        assert_eq!(given, [(1, 0), (1001, 999), (2001, 999)]);
    }
}
