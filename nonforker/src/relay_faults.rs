//! What a relay does wrong on purpose.

use std::time::Duration;

/// The longest latency.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// What a [`Relay`](crate::Relay) does to the bytes and connections that go through it, so that programs
/// can be tested on a network that is slow and breaks. Default: nothing.
///
/// What happens depends on the seed, the number of the connection (the first one of a relay, or of a
/// [shard](crate::Shards) of it, is 0) and how many bytes went its way before, and on no clock: with the
/// same seed the same connections break at the same bytes. Of what is chosen for a share of connections
/// one has one at most; it happens within the first 4,096 bytes of one direction, after at least one, and
/// places near the start are as likely as those far from it. A connection that is over before is spared.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use nonforker::{Relay, RelayFaults, Server};
///
/// # fn main() -> nonforker::Result<()> {
/// let ms = Duration::from_millis;
/// let faults = RelayFaults::new().latency(ms(50), ms(200)).cut(0.01).slice(1, 7).seed(1685);
/// let relay = Relay::to("127.0.0.1:6379")?.faults(faults);
/// let server = Server::new().relay("127.0.0.1:0", relay);
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelayFaults {
    pub(crate) latency: Option<[Duration; 2]>,
    /// In bytes a second.
    pub(crate) bandwidth: Option<u64>,
    pub(crate) cut: f64,
    pub(crate) reset: f64,
    pub(crate) stall: f64,
    pub(crate) slice: Option<[usize; 2]>,
    pub(crate) seed: u64,
}

impl RelayFaults {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Delays what was received, in each direction, by a time from `least` to `most`, both included, and at
    /// most an hour. The order stays. What waits is bounded by
    /// [`Limits::high_watermark`](crate::Limits::high_watermark): beyond it, nothing is received.
    #[must_use]
    pub fn latency(mut self, least: Duration, most: Duration) -> Self {
        let [least, most] = [least.min(most), least.max(most)];
        self.latency = Some([least.min(LATENCY_MAX), most.min(LATENCY_MAX)]);
        self
    }

    /// Passes on at most so many bytes a second, at least one, in each direction of each connection.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second.max(1));
        self
    }

    /// Closes both ends of a share of connections, from 0 to 1, in the middle: in order, with all bytes
    /// before.
    #[must_use]
    pub const fn cut(mut self, share: f64) -> Self {
        self.cut = share;
        self
    }

    /// Resets both ends of a share of connections, from 0 to 1.
    #[must_use]
    pub const fn reset(mut self, share: f64) -> Self {
        self.reset = share;
        self
    }

    /// Has a share of connections, from 0 to 1, stand still: nothing goes through any more, in either
    /// direction, until an end resets.
    #[must_use]
    pub const fn stall(mut self, share: f64) -> Self {
        self.stall = share;
        self
    }

    /// Passes bytes on in pieces from `least` to `most`, both included, each a send of its own, and at least
    /// one byte.
    #[must_use]
    pub fn slice(mut self, least: usize, most: usize) -> Self {
        self.slice = Some([least.min(most).max(1), least.max(most).max(1)]);
        self
    }

    /// On what all of that depends. Default: 0.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
