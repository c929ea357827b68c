//! The bounds of the settings. [`Load::check`](crate::Load::check) refuses what is beyond them.

use std::time::Duration;

/// The most bytes of a request, and the most bytes that a connection may have in flight: they are
/// kept in memory in one piece.
pub const WINDOW_MAX: usize = 256 * 1024 * 1024;

/// The most connections of one kind. Each takes a descriptor.
pub const CONNECTIONS_MAX: usize = 1_000_000;

/// The most requests that a connection keeps unanswered. The time of each is kept, in 16 bytes.
pub const IN_FLIGHT_MAX: usize = 1_000_000;

/// The most requests that an idle connection exchanges before it is held.
pub const EXCHANGE_MAX: usize = 1_000_000;

/// The least requests per second of an open loop.
pub const RATE_MIN: f64 = 0.001;

/// The most requests per second of an open loop: time is counted in nanoseconds.
pub const RATE_MAX: f64 = 1e9;

/// The most bytes per second of an open loop: those of the two longest phases fit a `u64`.
pub const BYTES_PER_SECOND_MAX: f64 = 1e12;

/// The longest warm-up, and the longest time to measure: at the highest rate, an `f64` still counts
/// the requests exactly.
pub const PHASE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The longest time to wait for one reply, or between two bytes: longer latencies all count as this.
pub const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_can_be_counted() {
        let seconds = 2.0 * PHASE_MAX.as_secs_f64();
        assert!(seconds * BYTES_PER_SECOND_MAX < u64::MAX as f64);
        assert!(seconds * RATE_MAX < 2f64.powi(f64::MANTISSA_DIGITS as i32));
    }
}
