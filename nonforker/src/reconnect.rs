//! How long to wait before the next attempt to connect.

use std::time::Duration;

use crate::{connections::Connections, handler::Handler};

/// The waits between attempts to connect: each twice as long as the last, up to a most, and cut short by
/// chance, so that many clients of a server that comes back do not come at once.
///
/// A wait is drawn from its upper half: the second one of a `Reconnect` from 100 ms on takes from 100
/// to 200 ms. In a [simulation](crate::sim) it depends on the seed.
///
/// # Examples
///
/// A connection that is always there, or being made:
///
/// ```
/// use std::time::Duration;
/// use nonforker::{CloseReason, Conn, Connections, Handler, Outcome, Reconnect, codec::Lines};
///
/// struct Feed {
///     reconnect: Reconnect,
/// }
///
/// impl Handler for Feed {
///     type Codec = Lines;
///     type Session = ();
///
///     fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
///         all.connect::<Self>("feed.example:4000", ())?;
///         Ok(())
///     }
///
///     fn open(&mut self, _conn: &mut Conn<'_, Self>) -> Outcome {
///         self.reconnect.succeeded();
///         Ok(())
///     }
///
///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
///         Ok(())
///     }
///
///     fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
///         let mut all = conn.others();
///         let wait = self.reconnect.next_wait(&mut all);
///         let _ = all.after(wait, Self::started);
///     }
/// }
///
/// let feed = Feed {
///     reconnect: Reconnect::new(Duration::from_millis(100), Duration::from_secs(10)),
/// };
/// # let _ = nonforker::Server::new().service(Lines::new(), feed);
/// ```
#[derive(Clone, Debug)]
pub struct Reconnect {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Default for Reconnect {
    /// From 100 ms to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }
}

impl Reconnect {
    /// Waits that begin with up to `first` and grow to up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        let first = first.min(most);
        Self { first, most, next: first }
    }

    /// How long to wait now that an attempt has failed, or a connection has ended.
    pub fn next_wait<H: Handler>(&mut self, all: &mut Connections<'_, H>) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        let half = wait / 2;
        let drawn = all.core.outgoing.rng.as_ref().map_or(0, |rng| {
            rng.below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
        });
        wait - half + Duration::from_nanos(drawn).min(half)
    }

    /// A connection stands: the next wait is a first one.
    pub const fn succeeded(&mut self) {
        self.next = self.first;
    }
}
