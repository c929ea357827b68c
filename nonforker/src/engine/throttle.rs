//! Lines of the log that come once a second at most, however often their cause does.
//!
//! What was left out is counted, and told with the next line of the kind, or after
//! [`TELL_AFTER`] if none comes.

use crate::{codec::FrameError, conn::deadlines::Tick, error::CloseReason};

/// The least time between two lines of one kind, in ticks: a second.
const PAUSE: u64 = 1_000_000;

/// How long after a line those are counted that were left out, in ticks: four seconds.
const TELL_AFTER: u64 = 4_000_000;

/// Every kind of line that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Accept,
    Connect,
    Full,
    PerIp,
    PerNet,
    Rate,
    Denied,
    Memory,
    Evicted,
    Handler,
    Codec,
    Slow,
    Send,
    Defect,
    Unused,
    FrameTimeout,
    WriteTimeout,
    IdleTimeout,
    OutputOverflow,
    TooLong,
    Header,
    Unanswered,
    AnswerTimeout,
    Unasked,
    BadLine,
    WorkerEnded,
    Tls,
}

impl Notice {
    const ALL: [Self; 27] = [
        Self::Accept,
        Self::Connect,
        Self::Full,
        Self::PerIp,
        Self::PerNet,
        Self::Rate,
        Self::Denied,
        Self::Memory,
        Self::Evicted,
        Self::Handler,
        Self::Codec,
        Self::Slow,
        Self::Send,
        Self::Defect,
        Self::Unused,
        Self::FrameTimeout,
        Self::WriteTimeout,
        Self::IdleTimeout,
        Self::OutputOverflow,
        Self::TooLong,
        Self::Header,
        Self::Unanswered,
        Self::AnswerTimeout,
        Self::Unasked,
        Self::BadLine,
        Self::WorkerEnded,
        Self::Tls,
    ];

    /// The kind of line that says that a connection was closed by policy, if it was.
    pub(crate) const fn of(reason: &CloseReason) -> Option<Self> {
        match reason {
            CloseReason::Tls(_) | CloseReason::Truncated => Some(Self::Tls),
            CloseReason::Unused => Some(Self::Unused),
            CloseReason::FrameTimeout => Some(Self::FrameTimeout),
            CloseReason::WriteTimeout => Some(Self::WriteTimeout),
            CloseReason::IdleTimeout => Some(Self::IdleTimeout),
            CloseReason::OutputOverflow => Some(Self::OutputOverflow),
            CloseReason::Unanswered => Some(Self::Unanswered),
            CloseReason::AnswerTimeout => Some(Self::AnswerTimeout),
            CloseReason::Rejected(FrameError::TooLong { .. }) => Some(Self::TooLong),
            _ => None,
        }
    }

    /// What happened more often than it was logged.
    const fn what(self) -> &'static str {
        match self {
            Self::Accept => "accepting failed",
            Self::Connect => "connecting failed",
            Self::Full => "the server was full",
            Self::PerIp => "connections of one address were refused",
            Self::PerNet => "connections of one network were refused",
            Self::Rate => "connections were refused that came too fast",
            Self::Denied => "connections of denied networks were refused",
            Self::Memory => "memory for buffers became scarce or ample",
            Self::Evicted => "connections were closed for the memory that they held",
            Self::Handler => "the handler failed",
            Self::Codec => "a codec miscounted",
            Self::Slow => "the handler was slow",
            Self::Send => "the kernel was out of buffers",
            Self::Defect => "a connection had an event that cannot happen",
            Self::Unused => "unused connections were closed",
            Self::FrameTimeout => "connections were closed whose frame was late",
            Self::WriteTimeout => "connections were closed whose peer took nothing",
            Self::IdleTimeout => "idle connections were closed",
            Self::OutputOverflow => "connections were closed at which too much was pushed",
            Self::Header => "connections were refused before they opened",
            Self::Unanswered => "connections were closed whose ticket was dropped",
            Self::AnswerTimeout => "connections were closed that were not answered in time",
            Self::Unasked => "workers sent what nobody had asked for",
            Self::BadLine => "workers sent what is no line of the tagged protocol",
            Self::WorkerEnded => "workers ended",
            Self::Tls => "connections were closed that broke the rules of TLS",
            Self::TooLong => "connections were closed whose frame was too long",
        }
    }

    /// Whether it is of interest, and nothing to be looked at.
    const fn is_information(self) -> bool {
        matches!(
            self,
            Self::Unused
                | Self::FrameTimeout
                | Self::WriteTimeout
                | Self::IdleTimeout
                | Self::OutputOverflow
                | Self::TooLong
                | Self::Tls
        )
    }
}

/// When a kind of line was last logged, and how many were left out since.
#[derive(Clone, Copy, Debug, Default)]
struct Throttle {
    last: Option<Tick>,
    left_out: u64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    each: [Throttle; Notice::ALL.len()],
    /// When what was left out is counted.
    tell_at: Option<Tick>,
}

impl Throttles {
    /// Whether to log now: then with the number of lines left out since the last one.
    pub(crate) fn pass(&mut self, notice: Notice, now: Tick) -> Option<u64> {
        let throttle = &mut self.each[notice as usize];
        if let Some(last) = throttle.last
            && now.get() < last.get().saturating_add(PAUSE)
        {
            throttle.left_out += 1;
            self.tell_at.get_or_insert_with(|| now.saturating_add(TELL_AFTER));
            return None;
        }
        throttle.last = Some(now);
        Some(std::mem::replace(&mut throttle.left_out, 0))
    }

    /// When what was left out is counted, if anything was.
    pub(crate) const fn tell_at(&self) -> Option<Tick> {
        self.tell_at
    }

    /// Logs how many lines of each kind were left out, if it is time.
    #[inline]
    pub(crate) fn tell(&mut self, now: Tick) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_all(now);
        }
    }

    #[cold]
    fn tell_all(&mut self, now: Tick) {
        self.tell_at = None;
        for notice in Notice::ALL {
            let throttle = &mut self.each[notice as usize];
            let left_out = std::mem::replace(&mut throttle.left_out, 0);
            let what = notice.what();
            if left_out > 0 && notice.is_information() {
                throttle.last = Some(now);
                tracing::info!(left_out, "{what}, more than was logged");
            } else if left_out > 0 {
                throttle.last = Some(now);
                tracing::warn!(left_out, "{what}, more often than was logged");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Notice, Throttles};
    use crate::conn::deadlines::Tick;

    fn millis(at: u64) -> Tick {
        Tick::new(1000 * at).expect("not zero")
    }

    #[test]
    fn a_flood_of_lines_is_one_a_second_and_a_count() {
        let mut throttles = Throttles::default();
        let given: Vec<_> = (1..=2500)
            .filter_map(|at| Some((at, throttles.pass(Notice::Full, millis(at))?)))
            .collect();
        assert_eq!(given, [(1, 0), (1001, 999), (2001, 999)]);
        assert_eq!(throttles.tell_at(), Some(millis(4002)), "the rest is told all the same");
        throttles.tell(millis(4001));
        assert!(throttles.tell_at().is_some(), "not before its time");
        throttles.tell(millis(4002));
        assert_eq!(throttles.tell_at(), None);
        assert_eq!(throttles.pass(Notice::Full, millis(6000)), Some(0), "it was told once");
    }

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        for (index, notice) in Notice::ALL.into_iter().enumerate() {
            assert_eq!(notice as usize, index, "{notice:?}");
        }
    }
}
