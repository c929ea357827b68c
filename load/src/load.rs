//! What to load a server with: the settings, their defaults, and what contradicts itself in them.

use std::{sync::atomic::AtomicBool, time::Duration};

use nonforker::Address;

use crate::{
    bounds::{
        BYTES_PER_SECOND_MAX, CONNECTIONS_MAX, EXCHANGE_MAX, IN_FLIGHT_MAX, PHASE_MAX, RATE_MAX,
        RATE_MIN, WAIT_MAX, WINDOW_MAX,
    },
    codec::Codec,
    error::Error,
    measured::Measured,
    progress::Progress,
    run,
};

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Each sends requests and expects the same bytes back.
    Echo,
    /// Each exchanges some requests, then only stays open.
    Idle,
    /// Each receives every line that one more connection sends.
    Broadcast,
}

/// What to load a server with.
///
/// The default is a closed loop: 64 connections with one request of 64 bytes in flight on each, for
/// 10 s after a warm-up of 1 s. With [`rate`](Self::rate) the loop is open.
///
/// Nothing is checked before [`check`](Self::check), which [`run`](Self::run) calls. The bounds are
/// in [`bounds`](crate::bounds).
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub(crate) address: Address,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) codec: Codec,
    pub(crate) verify: bool,
    pub(crate) exchange: usize,
    pub(crate) spin: bool,
    pub(crate) timeout: Duration,
    pub(crate) never_reading: usize,
    pub(crate) trickling: usize,
    pub(crate) trickle_interval: Duration,
    pub(crate) flooding: usize,
    pub(crate) flood_in_flight: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) tls: bool,
}

impl Load {
    /// The default load for this server.
    #[must_use]
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            mode: Mode::Echo,
            connections: 64,
            in_flight: 1,
            size: 64,
            rate: None,
            duration: Duration::from_secs(10),
            warm_up: Duration::from_secs(1),
            codec: Codec::Lines,
            verify: true,
            exchange: 0,
            spin: false,
            timeout: Duration::from_secs(10),
            never_reading: 0,
            trickling: 0,
            trickle_interval: Duration::from_millis(100),
            flooding: 0,
            flood_in_flight: 2048,
            pid: None,
            tls: false,
        }
    }

    /// What the connections do. Default: [`Mode::Echo`].
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Connections of the kind that is measured, at most 1,000,000. Default: 64.
    ///
    /// With 0 there are only those of [`never_reading`](Self::never_reading),
    /// [`trickling`](Self::trickling) and [`flooding`](Self::flooding).
    #[must_use]
    pub const fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Requests that each connection keeps unanswered; lines of a broadcast that go out together.
    ///
    /// From 1 to 1,000,000, and at most 256 MiB on a connection. Default: 1. An open loop has no such
    /// number.
    #[must_use]
    pub const fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = requests;
        self
    }

    /// Bytes of a request, its end counted; with [`Codec::Resp`], of the string to be echoed.
    ///
    /// At least one byte more than the end has, at most 256 MiB. Default: 64.
    #[must_use]
    pub const fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// Requests per second over all connections, whether or not replies come: an open loop. Latency
    /// then counts from when a request was due. None is a closed loop, the default.
    ///
    /// From 0.001 to 10⁹, and at most 10¹² bytes per second. Only with [`Mode::Echo`].
    #[must_use]
    pub const fn rate(mut self, per_second: Option<f64>) -> Self {
        self.rate = per_second;
        self
    }

    /// How long to measure; with [`Mode::Idle`], how long to hold the connections.
    ///
    /// More than 0 and at most 30 days. Default: 10 s.
    #[must_use]
    pub const fn duration(mut self, time: Duration) -> Self {
        self.duration = time;
        self
    }

    /// How long to load the server before anything is measured, at most 30 days. Default: 1 s.
    #[must_use]
    pub const fn warm_up(mut self, time: Duration) -> Self {
        self.warm_up = time;
        self
    }

    /// What requests look like. Default: [`Codec::Lines`].
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Whether replies are compared with what is due, which is the default. Otherwise they are only
    /// counted: by their last byte, or by their length if the codec has no end.
    #[must_use]
    pub const fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Requests that each connection exchanges before it is held, at most 1,000,000. Default: 0.
    /// Only with [`Mode::Idle`].
    #[must_use]
    pub const fn exchange(mut self, requests: usize) -> Self {
        self.exchange = requests;
        self
    }

    /// Whether to wait for replies without sleeping, which takes a whole processor. Default: false.
    #[must_use]
    pub const fn spin(mut self, spin: bool) -> Self {
        self.spin = spin;
        self
    }

    /// How long a reply may take before its connection counts as failed, and how long a connection
    /// may take to open. More than 0 and at most 1 h. Default: 10 s.
    #[must_use]
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Connections that send requests for as long as the server takes them, and never read. At most
    /// 1,000,000. Default: 0. Only with [`Mode::Echo`].
    #[must_use]
    pub const fn never_reading(mut self, connections: usize) -> Self {
        self.never_reading = connections;
        self
    }

    /// Connections that send a request byte by byte, at most 1,000,000. Default: 0. Only with
    /// [`Mode::Echo`].
    #[must_use]
    pub const fn trickling(mut self, connections: usize) -> Self {
        self.trickling = connections;
        self
    }

    /// How long a trickling connection waits between two bytes. More than 0 and at most 1 h. Default:
    /// 100 ms.
    #[must_use]
    pub const fn trickle_interval(mut self, time: Duration) -> Self {
        self.trickle_interval = time;
        self
    }

    /// Connections that have more requests in flight than the others, at most 1,000,000. Default: 0.
    /// Only with [`Mode::Echo`].
    #[must_use]
    pub const fn flooding(mut self, connections: usize) -> Self {
        self.flooding = connections;
        self
    }

    /// Requests that each flooding connection keeps unanswered. From 1 to 1,000,000, and at most
    /// 256 MiB on a connection. Default: 2048.
    #[must_use]
    pub const fn flood_in_flight(mut self, requests: usize) -> Self {
        self.flood_in_flight = requests;
        self
    }

    /// The server's process on this machine, to measure what it uses. Linux only. Default: none.
    #[must_use]
    pub const fn pid(mut self, pid: Option<u32>) -> Self {
        self.pid = pid;
        self
    }

    /// Whether connections begin with a TLS handshake, 1.2 or 1.3; the server's certificate is not
    /// looked at. Default: false. Without the feature `tls` of this crate [`check`](Self::check)
    /// refuses it.
    ///
    /// Bytes, and so rates, are those of requests and replies, not of records.
    #[must_use]
    pub const fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Opens the connections, loads the server, waits for what is in flight, and returns what was
    /// measured. All of it happens on the calling thread.
    ///
    /// If `interrupted` becomes true, the load asks for nothing new and returns what was measured up
    /// to then. It looks about ten times a second. Raises this process' limit of descriptors.
    ///
    /// # Errors
    ///
    /// [`Error`] says why nothing was measured. That single connections fail is no error.
    pub fn run(
        &self,
        interrupted: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<Measured, Error> {
        self.check()?;
        run::run(self, interrupted, progress)
    }

    /// Connections that are there to be a burden.
    pub(crate) fn company(&self) -> usize {
        self.never_reading.saturating_add(self.trickling).saturating_add(self.flooding)
    }

    /// Refuses settings that are beyond their bounds, contradict each other, or would measure nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] names them.
    pub fn check(&self) -> Result<(), Error> {
        match self.contradiction() {
            Some(what) => Err(Error::Settings(what.into())),
            None => self.check_numbers().and_then(|()| self.check_bytes()).map_err(Error::Settings),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let is_echo = self.mode == Mode::Echo;
        Some(if self.rate.is_some() && !is_echo {
            "`rate`: this is for `mode` echo"
        } else if self.rate.is_some() && self.in_flight > 1 {
            "`rate`: then `in_flight` is whatever it comes to; give one of them"
        } else if self.rate.is_some() && self.connections == 0 {
            "`rate`: there is no connection to send anything; see `connections`"
        } else if self.company() > 0 && !is_echo {
            "`never_reading`, `trickling` and `flooding` go with `mode` echo"
        } else if self.connections == 0 && self.company() == 0 {
            "`connections`: there is nothing to do with 0, unless there is bad company"
        } else if self.exchange > 0 && self.mode != Mode::Idle {
            "`exchange`: this is for `mode` idle"
        } else if self.tls && !cfg!(feature = "tls") {
            "`tls`: this program is built without the feature `tls`"
        } else if self.codec == Codec::Resp && self.mode == Mode::Broadcast {
            "`codec` resp: this is not for `mode` broadcast"
        } else {
            return None;
        })
    }

    /// Refuses what is beyond a bound of its own.
    fn check_numbers(&self) -> Result<(), String> {
        for (setting, count, least, most) in [
            ("connections", self.connections, 0, CONNECTIONS_MAX),
            ("in_flight", self.in_flight, 1, IN_FLIGHT_MAX),
            ("size", self.size, 1, WINDOW_MAX),
            ("exchange", self.exchange, 0, EXCHANGE_MAX),
            ("never_reading", self.never_reading, 0, CONNECTIONS_MAX),
            ("trickling", self.trickling, 0, CONNECTIONS_MAX),
            ("flooding", self.flooding, 0, CONNECTIONS_MAX),
            ("flood_in_flight", self.flood_in_flight, 1, IN_FLIGHT_MAX),
        ] {
            if !(least..=most).contains(&count) {
                return Err(format!("`{setting}` {count}: from {least} to {most}"));
            }
        }
        let some = Duration::from_nanos(1);
        for (setting, time, least, most) in [
            ("duration", self.duration, some, PHASE_MAX),
            ("warm_up", self.warm_up, Duration::ZERO, PHASE_MAX),
            ("timeout", self.timeout, some, WAIT_MAX),
            ("trickle_interval", self.trickle_interval, some, WAIT_MAX),
        ] {
            if !(least..=most).contains(&time) {
                return Err(format!("`{setting}` {time:?}: from {least:?} to {most:?}"));
            }
        }
        match self.rate {
            Some(rate) if !(RATE_MIN..=RATE_MAX).contains(&rate) => {
                Err(format!("`rate` {rate}: from {RATE_MIN} to {RATE_MAX}"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses more bytes than can be counted until the end of the longest run, or may lie in memory
    /// in one piece.
    fn check_bytes(&self) -> Result<(), String> {
        let (size, request) = (self.size, self.codec.request_bytes(self.size));
        if let Some(rate) = self.rate {
            let bytes = rate * request as f64;
            if bytes > BYTES_PER_SECOND_MAX {
                return Err(format!(
                    "`rate` {rate} times `size` {size}: {bytes:.0} bytes a second; at most 1 TB, \
                     since those that are due are counted until the end"
                ));
            }
        }
        let flood = if self.flooding > 0 { self.flood_in_flight } else { 0 };
        for (setting, count) in [("in_flight", self.in_flight), ("flood_in_flight", flood)] {
            let bytes = count.saturating_mul(request);
            if bytes > WINDOW_MAX {
                return Err(format!(
                    "`{setting}` {count} times `size` {size}: {bytes} bytes in flight on a \
                     connection; at most 256 MiB, since they are kept in memory in one piece"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_bound_is_refused_by_its_name_before_anything_is_opened() {
        let load = || Load::new("127.0.0.1:1".parse().unwrap());
        let hour = Duration::from_secs(3600);
        for (load, part) in [
            (load().connections(CONNECTIONS_MAX + 1), "`connections` 1000001: from 0 to 1000000"),
            (load().in_flight(0), "`in_flight` 0: from 1 to 1000000"),
            (load().in_flight(IN_FLIGHT_MAX + 1), "`in_flight` 1000001"),
            (load().flood_in_flight(0), "`flood_in_flight` 0"),
            (load().size(0), "`size` 0"),
            (load().size(WINDOW_MAX + 1), "`size` 268435457"),
            (load().never_reading(usize::MAX), "`never_reading` "),
            (load().trickling(usize::MAX), "`trickling` "),
            (load().flooding(usize::MAX), "`flooding` "),
            (load().mode(Mode::Idle).exchange(EXCHANGE_MAX + 1), "`exchange` 1000001"),
            (load().duration(Duration::ZERO), "`duration` 0ns: from 1ns to 2592000s"),
            (load().warm_up(PHASE_MAX * 2), "`warm_up` 5184000s"),
            (load().timeout(hour * 2), "`timeout` 7200s: from 1ns to 3600s"),
            (load().trickle_interval(Duration::ZERO), "`trickle_interval` 0ns"),
            (load().rate(Some(f64::NAN)), "`rate` NaN: from 0.001 to 1000000000"),
            (load().rate(Some(1e9)).size(2000), "`rate` 1000000000 times `size` 2000"),
            (load().in_flight(1000).size(1 << 20), "`in_flight` 1000 times `size` 1048576"),
            (load().rate(Some(9.0)).in_flight(2), "`rate`: then `in_flight`"),
            (load().connections(0), "`connections`: there is nothing to do"),
        ] {
            let error = load.run(&AtomicBool::new(false), &mut ()).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Settings(_)), "{part}: {error}");
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let most = load().connections(CONNECTIONS_MAX).in_flight(IN_FLIGHT_MAX).timeout(hour);
        assert!(most.duration(PHASE_MAX).warm_up(Duration::ZERO).check().is_ok());
    }
}
