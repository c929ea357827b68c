//! How a server finds out that the peer of a silent TCP connection is gone: the limits about it.
//!
//! A peer whose machine loses its power or its network says nothing. The kernel asks, and ends the
//! connection if no answer comes.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    bounds::refuse,
    config::Limits,
    driver::{Keepalive, Probing},
    error::Result,
};

/// The seconds that kernels take for a silence and between two probes: Linux has the least of them.
const SECONDS: RangeInclusive<u64> = 1..=32_767;

/// The probes that kernels take.
const COUNT: RangeInclusive<u32> = 1..=127;

/// The seconds of a user timeout: Linux counts milliseconds in 31 bits.
const USER_SECONDS: RangeInclusive<u64> = 1..=2_147_483;

/// Whether this system has a user timeout.
const HAS_USER_TIMEOUT: bool = cfg!(any(target_os = "linux", target_os = "android"));

impl Limits {
    /// How long a TCP connection may be silent before the kernel probes whether its peer is still
    /// there; `None` for no probes. Whole seconds, from 1 to 32,767; default: 60 s.
    ///
    /// A peer that is gone, without a word since its machine or its network is, is noticed after this
    /// and [`keepalive_count`](Self::keepalive_count) times
    /// [`keepalive_interval`](Self::keepalive_interval): 2 min by default, where kernels take over
    /// two hours. The connection ends with [`CloseReason::Broken`](crate::CloseReason::Broken). A
    /// peer that is there answers without its program noticing, so a quiet one is never cut off.
    /// While bytes are on the way to the peer the kernel does not probe: then
    /// [`write_timeout`](Self::write_timeout) counts.
    #[must_use]
    pub const fn keepalive(mut self, silence: Option<Duration>) -> Self {
        self.keepalive = silence;
        self
    }

    /// The time between two probes of a silent peer. Whole seconds, from 1 to 32,767; default: 10 s.
    /// Where a system has one setting for all connections, OpenBSD for example, that counts.
    #[must_use]
    pub const fn keepalive_interval(mut self, time: Duration) -> Self {
        self.keepalive_interval = time;
        self
    }

    /// After how many probes without an answer a silent peer is taken for gone. From 1 to 127;
    /// default: 6. Where a system has one setting for all connections, that counts.
    #[must_use]
    pub const fn keepalive_count(mut self, probes: u32) -> Self {
        self.keepalive_count = probes;
        self
    }

    /// How long bytes may be on the way to a TCP peer without an acknowledgement before the kernel
    /// ends the connection (`TCP_USER_TIMEOUT`). Whole seconds, from 1 to 2,147,483; default:
    /// `None`, as long as the kernel goes on trying, about 15 min.
    ///
    /// It also ends connections whose peer is there and takes nothing for so long, and it takes the
    /// place of [`keepalive_count`](Self::keepalive_count) for a silent peer. Only Linux and Android
    /// have it: elsewhere [`check`](Self::check) refuses it.
    #[must_use]
    pub const fn tcp_user_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.tcp_user_timeout = timeout;
        self
    }

    /// The same for a driver.
    pub(crate) fn probing(&self) -> Probing {
        let (interval, count) = (self.keepalive_interval, self.keepalive_count);
        Probing {
            keepalive: self.keepalive.map(|time| Keepalive { time, interval, count }),
            user_timeout: self.tcp_user_timeout,
        }
    }

    /// Says what is wrong with those of these limits, if anything is.
    pub(crate) fn check_probing(&self) -> Result<()> {
        seconds("keepalive", self.keepalive, SECONDS)?;
        seconds("keepalive_interval", Some(self.keepalive_interval), SECONDS)?;
        let probes = self.keepalive_count;
        if !COUNT.contains(&probes) {
            let bound = format!("from {} to {}, what kernels take", COUNT.start(), COUNT.end());
            return Err(refuse("keepalive_count", probes, bound));
        }
        match self.tcp_user_timeout {
            Some(timeout) if !HAS_USER_TIMEOUT => {
                let bound = "none, since only Linux has it".to_owned();
                Err(refuse("tcp_user_timeout", format!("{timeout:?}"), bound))
            }
            timeout => seconds("tcp_user_timeout", timeout, USER_SECONDS),
        }
    }
}

fn seconds(limit: &'static str, is: Option<Duration>, may_be: RangeInclusive<u64>) -> Result<()> {
    match is {
        Some(is) if is.subsec_nanos() > 0 || !may_be.contains(&is.as_secs()) => {
            let (least, most) = may_be.into_inner();
            let bound = format!("whole seconds from {least}s to {most}s, what kernels take");
            Err(refuse(limit, format!("{is:?}"), bound))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{config::Limits, error::Error};

    type Set = fn(Limits, Duration) -> Limits;

    #[test]
    fn probes_have_bounds_that_kernels_take() {
        let table: [(&str, Set, u64); 4] = [
            ("keepalive", |limits, time| limits.keepalive(Some(time)), 32_767),
            ("keepalive_interval", Limits::keepalive_interval, 32_767),
            ("tcp_user_timeout", |limits, time| limits.tcp_user_timeout(Some(time)), 2_147_483),
            (
                "keepalive_count",
                |limits, time| {
                    limits.keepalive_count(u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
                },
                127,
            ),
        ];
        for (setter, set, most) in table {
            if setter == "tcp_user_timeout" && !super::HAS_USER_TIMEOUT {
                continue;
            }
            let check = |millis| set(Limits::new(), Duration::from_millis(millis)).check();
            for good in [1000, most * 1000] {
                assert!(check(good).is_ok(), "{setter} of {good} ms");
            }
            for bad in [0, 999, most * 1000 + 1000, 1 << 50] {
                match check(bad) {
                    Err(Error::Limits { limit, .. }) => assert_eq!(limit, setter),
                    other => panic!("{setter} of {bad} ms: {other:?}"),
                }
            }
        }
        let half = Limits::new().keepalive(Some(Duration::from_millis(1500))).check();
        let said = half.expect_err("no whole second").to_string();
        let expected = "keepalive: 1.5s is out of bounds: whole seconds from 1s to 32767s";
        assert!(said.starts_with(expected), "{said}");
    }
}
