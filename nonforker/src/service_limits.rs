//! Limits of one service, where they differ from those of the server.

use std::time::Duration;

use crate::{
    config::Limits,
    engine::slot::ServiceId,
    error::{Error, Result},
};

/// The bounds of one service. What is not set here is as the server's [`Limits`] say.
///
/// Each setter has the name, the unit and the bounds of the one in [`Limits`];
/// [`Server::bind`](crate::Server::bind) refuses what is out of them.
///
/// # Examples
///
/// A health port that answers although the public port is full, and on which nobody stays:
///
/// ```
/// use std::time::Duration;
/// use nonforker::{Limits, Server, ServiceLimits, codec::Lines};
///
/// let health = ServiceLimits::new()
///     .reserved_connections(4)
///     .max_connections(Some(16))
///     .idle_timeout(Some(Duration::from_secs(5)));
/// let server = Server::new()
///     .limits(Limits::new().max_connections(Some(1000)))
///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
///     .serve("127.0.0.1:0", Lines::new(), |conn, _line| conn.send("healthy"))
///     .service_limits(health);
/// # let _ = server;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLimits {
    high_watermark: Option<usize>,
    low_watermark: Option<usize>,
    output_cap: Option<usize>,
    frames_per_turn: Option<usize>,
    max_connections: Option<usize>,
    max_connections_per_ip: Option<Option<usize>>,
    reserved_connections: usize,
    frame_timeout: Option<Option<Duration>>,
    write_timeout: Option<Option<Duration>>,
    idle_timeout: Option<Option<Duration>>,
    unused_timeout: Option<Option<Duration>>,
    connect_timeout: Option<Duration>,
    linger_timeout: Option<Duration>,
    slow_handler: Option<Option<Duration>>,
    answer_timeout: Option<Option<Duration>>,
    /// The service whose connections each need one of this service, too.
    upstreams_of: Option<ServiceId>,
    /// Its connections serve the clients of other services, and what they hold is bounded.
    serves_clients: bool,
}

impl ServiceLimits {
    /// Those of the server, for all that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Limits::high_watermark`], in bytes. If this is set and
    /// [`low_watermark`](Self::low_watermark) is not, that is a quarter of it.
    #[must_use]
    pub const fn high_watermark(mut self, bytes: usize) -> Self {
        self.high_watermark = Some(bytes);
        self
    }

    /// As [`Limits::low_watermark`], in bytes.
    #[must_use]
    pub const fn low_watermark(mut self, bytes: usize) -> Self {
        self.low_watermark = Some(bytes);
        self
    }

    /// As [`Limits::output_cap`], in bytes.
    #[must_use]
    pub const fn output_cap(mut self, bytes: usize) -> Self {
        self.output_cap = Some(bytes);
        self
    }

    /// As [`Limits::frames_per_turn`].
    #[must_use]
    pub const fn frames_per_turn(mut self, frames: usize) -> Self {
        self.frames_per_turn = Some(frames);
        self
    }

    /// The most connections of this service at a time; those of all services together stay bounded
    /// by [`Limits::max_connections`]. At least 1; default: `None`, no bound of its own.
    #[must_use]
    pub const fn max_connections(mut self, connections: Option<usize>) -> Self {
        self.max_connections = connections;
        self
    }

    /// The most connections to this service at a time from one IP address. They do not count
    /// towards [`Limits::max_connections_per_ip`] then, and that does not hold for this service:
    /// with `None` it has no such bound. At least 1.
    ///
    /// Without this setter, connections to all such services count together.
    #[must_use]
    pub const fn max_connections_per_ip(mut self, connections: Option<usize>) -> Self {
        self.max_connections_per_ip = Some(connections);
        self
    }

    /// How many of the places of [`Limits::max_connections`] are kept for this service: other
    /// services are full while fewer are free. Default: 0.
    ///
    /// At most [`max_connections`](Self::max_connections). Those of all services together leave a
    /// place for each service that has none.
    #[must_use]
    pub const fn reserved_connections(mut self, connections: usize) -> Self {
        self.reserved_connections = connections;
        self
    }

    /// As [`Limits::frame_timeout`].
    #[must_use]
    pub const fn frame_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.frame_timeout = Some(timeout);
        self
    }

    /// As [`Limits::write_timeout`].
    #[must_use]
    pub const fn write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.write_timeout = Some(timeout);
        self
    }

    /// As [`Limits::idle_timeout`].
    #[must_use]
    pub const fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// As [`Limits::unused_timeout`]. With `None`, no connection of this service goes to make room
    /// for others.
    #[must_use]
    pub const fn unused_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.unused_timeout = Some(timeout);
        self
    }

    /// As [`Limits::connect_timeout`].
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// As [`Limits::linger_timeout`].
    #[must_use]
    pub const fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = Some(timeout);
        self
    }

    /// As [`Limits::slow_handler`].
    #[must_use]
    pub const fn slow_handler(mut self, threshold: Option<Duration>) -> Self {
        self.slow_handler = Some(threshold);
        self
    }

    /// As [`Limits::answer_timeout`].
    #[must_use]
    pub const fn answer_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.answer_timeout = Some(timeout);
        self
    }

    /// The limits of a server as they are for this service: its own, where it has one.
    pub(crate) fn over(&self, server: &Limits) -> Limits {
        let mut limits = server.clone();
        if let Some(high) = self.high_watermark {
            (limits.high_watermark, limits.low_watermark) = (high, None);
        }
        limits.low_watermark = self.low_watermark.or(limits.low_watermark);
        limits.output_cap = self.output_cap.unwrap_or(limits.output_cap);
        limits.frames_per_turn = self.frames_per_turn.unwrap_or(limits.frames_per_turn);
        limits.max_connections = self.max_connections;
        limits.max_connections_per_ip =
            self.max_connections_per_ip.unwrap_or(limits.max_connections_per_ip);
        limits.frame_timeout = self.frame_timeout.unwrap_or(limits.frame_timeout);
        limits.write_timeout = self.write_timeout.unwrap_or(limits.write_timeout);
        limits.idle_timeout = self.idle_timeout.unwrap_or(limits.idle_timeout);
        limits.unused_timeout = self.unused_timeout.unwrap_or(limits.unused_timeout);
        limits.connect_timeout = self.connect_timeout.unwrap_or(limits.connect_timeout);
        limits.linger_timeout = self.linger_timeout.unwrap_or(limits.linger_timeout);
        limits.answer_timeout = self.answer_timeout.unwrap_or(limits.answer_timeout);
        limits.slow_handler = self.slow_handler.unwrap_or(limits.slow_handler);
        limits
    }

    /// How many places are kept for it.
    pub(crate) const fn reserved(&self) -> usize {
        self.reserved_connections
    }

    /// The service whose connections each need one of this service, too.
    pub(crate) const fn upstreams_of(&self) -> Option<ServiceId> {
        self.upstreams_of
    }

    /// From now on its connections are there for many clients: when memory is scarce, they are read from, and
    /// stay.
    pub(crate) const fn serve_clients(mut self) -> Self {
        self.serves_clients = true;
        self
    }

    pub(crate) const fn serves_clients(&self) -> bool {
        self.serves_clients
    }

    /// Whether its connections from one IP address are counted for itself.
    pub(crate) const fn counts_addresses_alone(&self) -> bool {
        self.max_connections_per_ip.is_some()
    }
}

/// The limits of a server and those of its services, by their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllLimits {
    pub(crate) server: Limits,
    pub(crate) services: Vec<ServiceLimits>,
    /// Some were given for a service before there was one.
    pub(crate) is_misplaced: bool,
}

impl AllLimits {
    /// Sets those of the last service.
    pub(crate) fn set_last(&mut self, limits: ServiceLimits) {
        match self.services.last_mut() {
            Some(last) => *last = limits,
            None => self.is_misplaced = true,
        }
    }

    /// The service given last is there for the connections of the next one: a relay.
    pub(crate) fn join_next(&mut self) {
        let next = ServiceId::try_from(self.services.len()).ok();
        if let Some(last) = self.services.last_mut() {
            last.upstreams_of = next;
        }
    }

    /// Says what is wrong with these limits, if anything is.
    pub(crate) fn check(&self) -> Result<()> {
        self.server.check()?;
        let relays = self.services.iter().any(|service| service.upstreams_of.is_some());
        if relays && self.server.connections() < 2 {
            let (limit, value) = ("max_connections", self.server.connections().to_string());
            let bound = "at least 2: a relay has a place for each of the two sides".to_owned();
            return Err(Error::Limits { limit, value, bound });
        }
        if self.is_misplaced {
            let (limit, value) = ("service_limits", "a call before any service".to_owned());
            let bound = "for none: it sets the limits of the service given last".to_owned();
            return Err(Error::Limits { limit, value, bound });
        }
        for (number, service) in self.services.iter().enumerate() {
            service.over(&self.server).check().map_err(|error| of_service(error, number))?;
            let reserved = service.reserved();
            if let Some(max) = service.max_connections.filter(|&max| max < reserved) {
                let bound = format!("at most {max}, all that service {number} may have");
                return Err(crate::bounds::refuse("reserved_connections", reserved, bound));
            }
        }
        let mut reserved = self.services.iter().map(ServiceLimits::reserved);
        let all = reserved.clone().fold(0_usize, usize::saturating_add);
        // One place will do for all that have none for themselves.
        let needed = all.saturating_add(usize::from(reserved.any(|reserved| reserved == 0)));
        let places = self.server.connections();
        if all > 0 && needed > places {
            let bound =
                format!("at least {needed}: {all} are reserved, and every service needs one");
            return Err(crate::bounds::refuse("max_connections", places, bound));
        }
        Ok(())
    }
}

/// The error about a limit, which is that of a service.
fn of_service(error: Error, number: usize) -> Error {
    match error {
        Error::Limits { limit, value, bound } => {
            let bound = format!("{bound}, among the limits of service {number}");
            Error::Limits { limit, value, bound }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AllLimits, ServiceLimits};
    use crate::config::Limits;

    #[test]
    fn a_service_has_its_own_limits_and_for_the_rest_those_of_the_server() {
        let second = Duration::from_secs(1);
        let server = Limits::new().low_watermark(30).high_watermark(80).idle_timeout(Some(second));
        let own = |limits: ServiceLimits| limits.over(&server);
        let marks = |limits: ServiceLimits| {
            let marks = own(limits).watermarks();
            (marks.high, marks.low, marks.cap)
        };
        let mib = 1 << 20;
        assert_eq!(marks(ServiceLimits::new()), (80, 30, 80 + mib));
        assert_eq!(marks(ServiceLimits::new().high_watermark(40)), (40, 10, 40 + mib));
        assert_eq!(marks(ServiceLimits::new().low_watermark(5).output_cap(1)), (80, 5, 81));
        let limits = own(ServiceLimits::new());
        assert_eq!(limits.idle_timeout, Some(second));
        assert_eq!(limits.frame_timeout, Limits::new().frame_timeout);
        let limits = own(ServiceLimits::new().idle_timeout(None).frame_timeout(Some(second)));
        assert_eq!((limits.idle_timeout, limits.frame_timeout), (None, Some(second)));
        assert_eq!(own(ServiceLimits::new().max_connections(Some(3))).max_connections, Some(3));
    }

    #[test]
    fn a_refusal_names_the_service_and_what_is_reserved_leaves_a_place_for_all() {
        let new = ServiceLimits::new;
        let reserved = |places| new().reserved_connections(places);
        let check = |services: Vec<ServiceLimits>| {
            let server = Limits::new().max_connections(Some(10));
            AllLimits { server, services, ..AllLimits::default() }.check()
        };
        for (services, said) in [
            (
                vec![new(), new().frames_per_turn(0)],
                "frames_per_turn: 0 is out of bounds: at least 1, among the limits of service 1",
            ),
            (
                vec![new().low_watermark(65 << 10)],
                "low_watermark: a low watermark of 65KiB is above the high watermark, which is 64KiB, \
                 among the limits of service 0",
            ),
            (
                vec![new().max_connections(Some(0))],
                "max_connections: 0 is out of bounds: at least 1",
            ),
            (
                vec![reserved(4).max_connections(Some(3))],
                "reserved_connections: 4 is out of bounds: at most 3, all that service 0 may have",
            ),
            (
                vec![new(), reserved(10)],
                "max_connections: 10 is out of bounds: at least 11: 10 are reserved, and every service",
            ),
            (
                vec![reserved(6), reserved(5)],
                "max_connections: 10 is out of bounds: at least 11: 11 are reserved",
            ),
        ] {
            let error = check(services).expect_err(said).to_string();
            assert!(error.starts_with(said), "{error}");
        }
        for good in [vec![new(), reserved(9)], vec![reserved(5), reserved(5)], vec![new(), new()]] {
            assert!(check(good.clone()).is_ok(), "{good:?}");
        }
        let mut early = AllLimits::default();
        early.set_last(new());
        let error = early.check().expect_err("there is no service").to_string();
        assert!(
            error.starts_with("service_limits: a call before any service is for none"),
            "{error}"
        );
    }
}
