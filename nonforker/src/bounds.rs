//! What a limit may be set to: for each size, count and duration the least and the most, and why.
//!
//! The most is far above what makes sense, and low enough that no sum, product or point in time
//! overflows, and that nothing is allocated that no machine has.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use crate::{
    config::Limits,
    error::{Error, Result},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// The most bytes of anything: 1 PiB, or 1 GiB where a pointer has 32 bits.
const SIZE_MAX: usize = if usize::BITS < 64 { GIB } else { GIB.saturating_mul(MIB) };
const SIZE_WHY: &str = "since no machine has more memory";

/// The most of anything that is counted.
const COUNT_MAX: usize = i32::MAX as usize;
const CONNECTIONS_WHY: &str = "since the kernel has no more descriptors";
const POSTS_WHY: &str = "since memory does not hold more";
const FRAMES_WHY: &str = "since the other connections wait for them";

/// The most bytes of a read: more than a kernel's socket buffer holds.
const READ_MAX: usize = 64 * MIB;
const READ_WHY: &str = "since a buffer of that size is made at the start";

/// The least budget for all buffers with which a connection could be served.
pub(crate) const BUDGET_MIN: usize = 4 * KIB;
const BUDGET_WHY: &str = "since less serves nobody";

/// The longest duration: a hundred years of 365.25 days.
const DURATION_MAX: Duration = Duration::from_secs(3_155_760_000);

/// The longest search for new requests without sleeping.
const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

/// The most threads for offloaded work.
const THREADS_MAX: usize = 10_000;

/// The most permissions there are.
const MODE_MAX: u32 = 0o777;

impl Limits {
    /// Says what is wrong with these limits, if anything is: the first one that is out of its
    /// bounds. [`Server::bind`](crate::Server::bind) asks this first.
    ///
    /// - A size is at most 1 PiB, [`read_per_turn`](Self::read_per_turn) at most 64 MiB.
    /// - A count is from 1 to 2,147,483,647.
    /// - A duration is at most 100 years, [`busy_poll`](Self::busy_poll) at most 1 s. A
    ///   [`drain_timeout`](Self::drain_timeout) of [`Duration::MAX`] is no bound at all.
    /// - [`keepalive`](Self::keepalive) and what belongs to it have the kernel's bounds, at each setter.
    /// - The low watermark is at most the high one.
    ///
    /// # Errors
    ///
    /// [`Error::Limits`], which names the setter, the value and the bound.
    ///
    /// # Examples
    ///
    /// ```
    /// let limits = nonforker::Limits::new().read_per_turn(1 << 40);
    /// let error = limits.check().expect_err("a read of 1 TiB is too much").to_string();
    /// assert!(error.starts_with("read_per_turn: 1TiB is out of bounds: at most 64MiB"), "{error}");
    /// ```
    pub fn check(&self) -> Result<()> {
        size("high_watermark", self.high_watermark, 0..=SIZE_MAX, SIZE_WHY)?;
        self.check_low_watermark()?;
        size("output_cap", self.output_cap, 0..=SIZE_MAX, SIZE_WHY)?;
        size("read_per_turn", self.read_per_turn, 1..=READ_MAX, READ_WHY)?;
        count("frames_per_turn", Some(self.frames_per_turn), FRAMES_WHY)?;
        count("max_connections", self.max_connections, CONNECTIONS_WHY)?;
        count("max_connections_per_ip", self.max_connections_per_ip, CONNECTIONS_WHY)?;
        count("max_connections_per_net", self.max_connections_per_net, CONNECTIONS_WHY)?;
        self.check_access()?;
        if let Some(budget) = self.memory_budget {
            let why = if budget < BUDGET_MIN { BUDGET_WHY } else { SIZE_WHY };
            size("memory_budget", budget, BUDGET_MIN..=SIZE_MAX, why)?;
        }
        check_duration("frame_timeout", self.frame_timeout)?;
        check_duration("write_timeout", self.write_timeout)?;
        check_duration("idle_timeout", self.idle_timeout)?;
        self.check_probing()?;
        check_duration("handshake_timeout", Some(self.handshake_timeout))?;
        check_duration("connect_timeout", Some(self.connect_timeout))?;
        count("handshakes_max", Some(self.handshakes_max), CONNECTIONS_WHY)?;
        check_duration("linger_timeout", Some(self.linger_timeout))?;
        let drain = Some(self.drain_timeout).filter(|&timeout| timeout != Duration::MAX);
        check_duration("drain_timeout", drain)?;
        check_duration("slow_handler", self.slow_handler)?;
        if self.backlog == 0 {
            return Err(refuse("backlog", 0, "at least 1, since nobody could connect".to_owned()));
        }
        count("remote_max", Some(self.remote_max), POSTS_WHY)?;
        count("tickets_max", Some(self.tickets_max), POSTS_WHY)?;
        check_duration("answer_timeout", self.answer_timeout)?;
        match self.busy_poll {
            Some(time) if time > BUSY_POLL_MAX => {
                let bound = "at most 1s, since no sleep costs more than some microseconds";
                Err(refuse("busy_poll", format!("{time:?}"), bound.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether what counts only at the start is what it was then: in `began`.
    pub(crate) fn check_against_start(&self, began: &Self) -> Result<()> {
        let time = |time: Option<Duration>| {
            time.map_or_else(|| "none".to_owned(), |time| format!("{time:?}"))
        };
        let texts = |limits: &Self| {
            [
                ("read_per_turn", bytes(limits.read_per_turn)),
                ("backlog", limits.backlog.to_string()),
                ("keepalive", time(limits.keepalive)),
                ("keepalive_interval", time(Some(limits.keepalive_interval))),
                ("keepalive_count", limits.keepalive_count.to_string()),
                ("tcp_user_timeout", time(limits.tcp_user_timeout)),
            ]
        };
        let pairs = texts(self).into_iter().zip(texts(began));
        match pairs.into_iter().find(|(new, old)| new != old) {
            Some(((limit, value), (_, old))) => {
                let why = "and it cannot change while the server runs";
                let bound = format!("not what it was at the start, {old}, {why}");
                Err(Error::Limits { limit, value, bound })
            }
            None => Ok(()),
        }
    }

    fn check_low_watermark(&self) -> Result<()> {
        let (low, high) = (self.watermarks().low, self.high_watermark);
        if low <= high {
            return Ok(());
        }
        let bound = format!("above the high watermark, which is {}", bytes(high));
        Err(Error::Limits {
            limit: "low_watermark",
            value: format!("a low watermark of {}", bytes(low)),
            bound,
        })
    }
}

/// Whether these are permissions of a file.
pub(crate) fn check_mode(mode: u32) -> Result<()> {
    if mode <= MODE_MAX {
        return Ok(());
    }
    let bound = format!("at most {MODE_MAX:#o}, the permissions to read, write and execute");
    Err(refuse("unix_mode", format!("{mode:#o}"), bound))
}

/// Checks the number of threads that work is offloaded to.
pub(crate) fn check_threads(threads: Option<usize>) -> Result<()> {
    match threads {
        Some(0) => Err(refuse("offload_threads", 0, "at least 1".to_owned())),
        Some(threads) if threads > THREADS_MAX => {
            let bound = at_most(THREADS_MAX, "since each takes memory for its stack");
            Err(refuse("offload_threads", threads, bound))
        }
        _ => Ok(()),
    }
}

fn size(limit: &'static str, is: usize, may_be: RangeInclusive<usize>, why: &str) -> Result<()> {
    let (least, most) = may_be.into_inner();
    match is {
        _ if is < least => Err(refuse(limit, bytes(is), at_least(bytes(least), why))),
        _ if is > most => Err(refuse(limit, bytes(is), at_most(bytes(most), why))),
        _ => Ok(()),
    }
}

fn count(limit: &'static str, is: Option<usize>, why: &str) -> Result<()> {
    match is {
        Some(0) => Err(refuse(limit, 0, "at least 1".to_owned())),
        Some(is) if is > COUNT_MAX => Err(refuse(limit, is, at_most(COUNT_MAX, why))),
        _ => Ok(()),
    }
}

/// Whether a duration is none that the clock cannot count.
pub(crate) fn check_duration(limit: &'static str, is: Option<Duration>) -> Result<()> {
    match is {
        Some(is) if is > DURATION_MAX => {
            let bound = at_most("100years", "since the clock does not count much further");
            Err(refuse(limit, format!("{is:?}"), bound))
        }
        _ => Ok(()),
    }
}

fn at_least(bound: impl Display, why: &str) -> String {
    format!("at least {bound}, {why}")
}

fn at_most(bound: impl Display, why: &str) -> String {
    format!("at most {bound}, {why}")
}

/// The error of a limit that is out of its bounds.
pub(crate) fn refuse(limit: &'static str, value: impl Display, bound: String) -> Error {
    Error::Limits { limit, value: value.to_string(), bound: format!("out of bounds: {bound}") }
}

/// A size as a person would write it.
fn bytes(bytes: usize) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes;
    let mut unit = "";
    for larger in UNITS {
        if size < KIB || !size.is_multiple_of(KIB) {
            break;
        }
        (size, unit) = (size / KIB, larger);
    }
    match unit {
        "" if size == 1 => "1 byte".to_owned(),
        "" => format!("{size} bytes"),
        _ => format!("{size}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        BUSY_POLL_MAX, COUNT_MAX, DURATION_MAX, READ_MAX, SIZE_MAX, bytes, check_mode,
        check_threads,
    };
    use crate::{config::Limits, error::Error};

    type Set<T> = fn(Limits, T) -> Limits;

    /// Each setter of a size, with the least and the most it takes.
    #[rustfmt::skip]
    const SIZES: [(&str, Set<usize>, usize, usize); 13] = [
        ("high_watermark", Limits::high_watermark, 0, SIZE_MAX),
        ("low_watermark", |limits, low| limits.high_watermark(SIZE_MAX).low_watermark(low), 0, SIZE_MAX),
        ("output_cap", Limits::output_cap, 0, SIZE_MAX),
        ("read_per_turn", Limits::read_per_turn, 1, READ_MAX),
        ("frames_per_turn", Limits::frames_per_turn, 1, COUNT_MAX),
        ("max_connections", |limits, max| limits.max_connections(Some(max)), 1, COUNT_MAX),
        ("max_connections_per_ip", |limits, max| limits.max_connections_per_ip(Some(max)), 1, COUNT_MAX),
        ("max_connections_per_net", |limits, max| limits.max_connections_per_net(Some(max)), 1, COUNT_MAX),
        ("accept_rate", |limits, rate| limits.accept_rate(Some(rate)), 1, 1_000_000),
        ("tickets_max", Limits::tickets_max, 1, COUNT_MAX),
        ("handshakes_max", Limits::handshakes_max, 1, COUNT_MAX),
        ("remote_max", Limits::remote_max, 1, COUNT_MAX),
        ("memory_budget", |limits, max| limits.memory_budget(Some(max)), 4096, SIZE_MAX),
    ];

    /// Each setter of a duration, with the most it takes.
    #[rustfmt::skip]
    const DURATIONS: [(&str, Set<Duration>, Duration); 11] = [
        ("frame_timeout", |limits, time| limits.frame_timeout(Some(time)), DURATION_MAX),
        ("write_timeout", |limits, time| limits.write_timeout(Some(time)), DURATION_MAX),
        ("idle_timeout", |limits, time| limits.idle_timeout(Some(time)), DURATION_MAX),
        ("answer_timeout", |limits, time| limits.answer_timeout(Some(time)), DURATION_MAX),
        ("handshake_timeout", Limits::handshake_timeout, DURATION_MAX),
        ("connect_timeout", Limits::connect_timeout, DURATION_MAX),
        ("linger_timeout", Limits::linger_timeout, DURATION_MAX),
        ("drain_spread", Limits::drain_spread, DURATION_MAX),
        ("drain_timeout", Limits::drain_timeout, DURATION_MAX),
        ("slow_handler", |limits, time| limits.slow_handler(Some(time)), DURATION_MAX),
        ("busy_poll", |limits, time| limits.busy_poll(Some(time)), BUSY_POLL_MAX),
    ];

    fn assert_refused(limits: &Limits, setter: &str) {
        match limits.check() {
            Err(Error::Limits { limit, .. }) => assert_eq!(limit, setter),
            other => panic!("{setter}: {other:?}"),
        }
    }

    #[test]
    fn every_size_and_count_has_a_least_and_a_most() {
        assert!(Limits::new().check().is_ok());
        for (setter, set, least, most) in SIZES {
            for good in [least, most] {
                set(Limits::new(), good)
                    .check()
                    .unwrap_or_else(|error| panic!("{setter}: {error}"));
            }
            for bad in [most + 1, usize::MAX - 1, usize::MAX] {
                assert_refused(&set(Limits::new(), bad), setter);
            }
        }
        assert_refused(&Limits::new().backlog(0), "backlog");
    }

    #[test]
    fn every_duration_has_a_most() {
        for (setter, set, most) in DURATIONS {
            for good in [Duration::ZERO, most] {
                set(Limits::new(), good)
                    .check()
                    .unwrap_or_else(|error| panic!("{setter}: {error}"));
            }
            let too_long = Duration::from_secs(999_999_999_999);
            for bad in [most + Duration::from_nanos(1), too_long] {
                assert_refused(&set(Limits::new(), bad), setter);
            }
        }
        assert!(Limits::new().drain_timeout(Duration::MAX).check().is_ok(), "no bound at all");
    }

    #[test]
    fn a_refusal_names_the_setter_the_value_and_the_bound() {
        let limits = Limits::new();
        for (limits, said) in [
            (
                limits.clone().read_per_turn(1 << 40),
                "read_per_turn: 1TiB is out of bounds: at most 64MiB",
            ),
            (
                limits.clone().read_per_turn(0),
                "read_per_turn: 0 bytes is out of bounds: at least 1 byte",
            ),
            (limits.clone().frames_per_turn(0), "frames_per_turn: 0 is out of bounds: at least 1"),
            (
                limits.clone().memory_budget(Some(4095)),
                "memory_budget: 4095 bytes is out of bounds: at least 4KiB",
            ),
            (
                limits.clone().low_watermark(65 << 10),
                "low_watermark: a low watermark of 65KiB is above the high watermark, which is 64KiB",
            ),
            (
                limits.idle_timeout(Some(Duration::MAX)),
                "idle_timeout: 18446744073709551615.999999999s is out",
            ),
        ] {
            let error = limits.check().expect_err(said).to_string();
            assert!(error.starts_with(said), "{error}");
        }
        for (threads, good) in
            [(None, true), (Some(0), false), (Some(1), true), (Some(10_001), false)]
        {
            assert_eq!(check_threads(threads).is_ok(), good, "{threads:?}");
        }
        assert!(check_mode(0o777).is_ok());
        let error = check_mode(0o1000).expect_err("no permissions").to_string();
        assert!(error.starts_with("unix_mode: 0o1000 is out of bounds: at most 0o777"), "{error}");
    }

    #[test]
    fn a_low_watermark_that_is_not_set_follows_the_high_one() {
        for (high, low) in [(64 << 10, 16 << 10), (8192, 2048), (0, 0), (3, 0)] {
            let limits = Limits::new().high_watermark(high);
            assert!(limits.check().is_ok(), "{high}");
            assert_eq!(limits.watermarks().low, low);
        }
        assert_eq!(Limits::new().low_watermark(5).high_watermark(8).watermarks().low, 5);
    }

    #[test]
    fn a_size_is_said_as_it_is_written() {
        for (size, said) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1025, "1025 bytes"),
            (2048, "2KiB"),
            (SIZE_MAX, "1PiB"),
        ] {
            assert_eq!(bytes(size), said);
        }
    }
}
