//! Who may come in: networks that are allowed or denied, and how much of a server one network gets.

use std::time::Duration;

use crate::{
    address::{Peer, PeerCredentials},
    bounds::{check_duration, refuse},
    config::Limits,
    context::Conn,
    error::Result,
    handle::Handle,
    handler::Handler,
    networks::Networks,
    server::Server,
};

/// Which networks may connect to a listener. By default all may.
///
/// [`deny`](Self::deny) wins. If any network is [allowed](Self::allow), all others are out. Behind a
/// [PROXY header](Server::proxy_protocol) it is about the real client, or about the proxy if the proxy does not name a client.
/// Peers of Unix sockets have no address: they may always connect.
///
/// A peer that may not is closed before anything that it sends is looked at: it gets no word, its
/// handler is not called, and [`Stats::refused`](crate::Stats::refused) counts it.
///
/// # Examples
///
/// ```
/// use nonforker::{Access, Peer, Server, codec::Lines};
///
/// let access = Access::new().allow("10.0.0.0/8".parse()?).deny("10.6.6.0/24".parse()?);
/// assert!(access.admits(&Peer::Tcp("10.1.2.3:4000".parse()?)));
/// assert!(!access.admits(&Peer::Tcp("10.6.6.6:4000".parse()?)));
/// assert!(!access.admits(&Peer::Tcp("192.0.2.1:4000".parse()?)));
///
/// let server = Server::new()
///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
///     .access(access);
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    allow: Networks,
    deny: Networks,
}

impl Access {
    /// Everybody may connect.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These may connect as well as those allowed before, and nobody else.
    #[must_use]
    pub fn allow(mut self, networks: Networks) -> Self {
        self.allow = [self.allow, networks].into_iter().collect();
        self
    }

    /// These may not, nor those denied before.
    #[must_use]
    pub fn deny(mut self, networks: Networks) -> Self {
        self.deny = [self.deny, networks].into_iter().collect();
        self
    }

    /// Whether a peer may connect.
    #[must_use]
    pub fn admits(&self, peer: &Peer) -> bool {
        // A proxy may write an IPv4 address as an IPv6 one.
        let Some(ip) = peer.ip().map(|ip| ip.to_canonical()) else { return true };
        !self.deny.contains_ip(ip) && (self.allow.is_empty() || self.allow.contains_ip(ip))
    }
}

/// What holds for the listeners of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entrance {
    pub(crate) access: Access,
    /// The bytes that a client gets which a limit refuses.
    pub(crate) busy: Option<Box<[u8]>>,
}

/// The longest busy word, in bytes: a socket buffer takes it at once.
const BUSY_MAX: usize = 1024;

impl Entrance {
    pub(crate) fn check(&self) -> Result<()> {
        match &self.busy {
            Some(busy) if busy.len() > BUSY_MAX => {
                Err(refuse("refuse_with", busy.len(), format!("at most {BUSY_MAX} bytes")))
            }
            _ => Ok(()),
        }
    }
}

impl Server {
    /// Which networks may connect to the listeners of the last given service.
    /// [`Handle::set_access`] changes that for a listener while the server runs.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        if let Some(last) = self.entrances.last_mut() {
            last.access = access;
        }
        self
    }

    /// What a client of the last given service is sent that is refused for a limit: per address, per
    /// network, or of the accept rate. Then it is closed in order. Up to 1,024 bytes; default: it is
    /// closed without a word.
    ///
    /// It is not sent to a denied network, nor on a listener that begins with TLS, where it would
    /// be in clear. Nor is it sent while three quarters of the places are taken,
    /// since each client that gets it has a place until it has closed, for
    /// [`Limits::linger_timeout`] at most. At [`Limits::max_connections`] nobody is refused: clients
    /// wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Limits, Server, codec::Lines};
    ///
    /// let server = Server::new()
    ///     .limits(Limits::new().max_connections_per_net(Some(100)).accept_rate(Some(20)))
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .refuse_with("busy\r\n");
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn refuse_with(mut self, bytes: impl AsRef<[u8]>) -> Self {
        if let Some(last) = self.entrances.last_mut() {
            last.busy = Some(bytes.as_ref().into());
        }
        self
    }
}

impl Limits {
    /// How many connections one network may have at a time, in all services and
    /// [shards](crate::Shards); more are refused. From 1 to 2,147,483,647; default: no such limit.
    ///
    /// [`net_prefix`](Self::net_prefix) says what a network is. One machine with IPv6 has 2^64
    /// addresses, so [`max_connections_per_ip`](Self::max_connections_per_ip) does not hold it. Peers of
    /// Unix sockets are not counted.
    #[must_use]
    pub const fn max_connections_per_net(mut self, connections: Option<usize>) -> Self {
        self.max_connections_per_net = connections;
        self
    }

    /// How many bits of an address say which network it is in: from 1 to 32 for IPv4, and from 1 to 128
    /// for IPv6. Default: 24 and 64, which is what most networks are given.
    #[must_use]
    pub const fn net_prefix(mut self, v4: u8, v6: u8) -> Self {
        self.net_prefix = (v4, v6);
        self
    }

    /// How many connections a second are accepted from one [network](Self::net_prefix); as many may
    /// come at once after a pause. The rest are refused, and do not wait. From 1 to 1,000,000;
    /// default: no such limit.
    ///
    /// Up to 16,384 networks are remembered while their rate is not used up; beyond that, new ones
    /// share one rate.
    #[must_use]
    pub const fn accept_rate(mut self, connections_per_second: Option<usize>) -> Self {
        self.accept_rate = connections_per_second;
        self
    }

    /// How long a connection may be open: it ends between this time and a tenth more, so that those
    /// that came together do not come again together. `None` for ever, the default.
    ///
    /// It ends as in a [drain](Handle::drain): what has arrived is answered,
    /// [`Handler::draining`] says goodbye, and what is not done within
    /// [`drain_timeout`](Self::drain_timeout) is cut off.
    #[must_use]
    pub const fn max_age(mut self, age: Option<Duration>) -> Self {
        self.max_age = age;
        self
    }

    /// Over how long a drain ends the connections, one after the other, so that thousands of clients do
    /// not come back in the same second. Zero, the default, is all at once.
    ///
    /// [`drain_timeout`](Self::drain_timeout) counts from its end.
    #[must_use]
    pub const fn drain_spread(mut self, spread: Duration) -> Self {
        self.drain_spread = spread;
        self
    }

    pub(crate) fn check_access(&self) -> Result<()> {
        let (v4, v6) = self.net_prefix;
        for (prefix, most) in [(v4, 32), (v6, 128)] {
            if !(1..=most).contains(&prefix) {
                return Err(refuse("net_prefix", prefix, format!("from 1 to {most}")));
            }
        }
        match self.accept_rate {
            Some(rate) if !(1..=RATE_MAX).contains(&rate) => {
                return Err(refuse("accept_rate", rate, format!("from 1 to {RATE_MAX}")));
            }
            _ => {}
        }
        if self.max_age == Some(Duration::ZERO) {
            let bound = "more than none, since nobody could be served".to_owned();
            return Err(refuse("max_age", "0s", bound));
        }
        check_duration("max_age", self.max_age)?;
        check_duration("drain_spread", Some(self.drain_spread))
    }
}

/// The highest accept rate, in connections per second.
const RATE_MAX: usize = 1_000_000;

impl Handle {
    /// Changes who may connect to a listener, while the server runs. A listener is its index in
    /// [`addresses`](crate::Bound::addresses). Connections that are there stay.
    ///
    /// # Errors
    ///
    /// [`Error::NotBound`](crate::Error::NotBound) before the server is [bound](Server::bind), [`Error::NoListener`](crate::Error::NoListener) if there
    /// are not so many listeners. Nothing changes then.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Access, Server, codec::Lines};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::new()
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .bind()?;
    /// server.handle().set_access(0, Access::new().deny("192.0.2.0/24".parse()?))?;
    /// assert!(server.handle().set_access(1, Access::new()).is_err(), "there is one listener");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_access(&self, listener: usize, access: Access) -> Result<()> {
        self.group().change_door(listener, |door| door.entrance.access = access)
    }

    /// Accepts no connection at a listener, until it is [resumed](Self::resume). Clients wait in the
    /// backlog of the kernel. Connections that are there stay.
    ///
    /// # Errors
    ///
    /// As [`set_access`](Self::set_access).
    pub fn suspend(&self, listener: usize) -> Result<()> {
        self.group().change_door(listener, |door| door.suspended = true)
    }

    /// Accepts connections at a listener again.
    ///
    /// # Errors
    ///
    /// As [`set_access`](Self::set_access).
    pub fn resume(&self, listener: usize) -> Result<()> {
        self.group().change_door(listener, |door| door.suspended = false)
    }

    /// Says that the server will drain soon: [`is_ready`](Self::is_ready) is false from now on, and
    /// nothing else changes. A balancer that asks sends no more clients, and those that it has sent
    /// meanwhile are served.
    pub fn prepare(&self) {
        self.group().prepare();
    }

    /// Whether the server is bound and nobody has asked it to [prepare](Self::prepare) for its end, to
    /// drain or to stop: what a health check should say.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.group().is_ready()
    }
}

impl<H: Handler> Conn<'_, H> {
    /// Which process is at the other end, if this is a Unix socket. Linux only: `None` elsewhere.
    /// Behind a [PROXY header](Server::proxy_protocol) there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new().serve("unix:/tmp/x.sock", Lines::new(), |conn, line| {
    ///     match conn.peer_credentials() {
    ///         Some(peer) if peer.uid == 0 => conn.send(line),
    ///         _ => conn.close(),
    ///     }
    /// });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub const fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.slot.credentials()
    }
}

/// A time of up to a tenth of `age` more, for connection number `number`: neighbours are far apart.
pub(crate) const fn jittered(age: Duration, number: u64) -> Duration {
    /// Of 2^64: the golden ratio, whose multiples are spread evenly.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let part = number.wrapping_mul(GOLDEN) >> 48;
    // Seven hundredths at most: the rest is for those that are in the midst of something.
    let more = age.as_nanos() / 100 * 7 * part as u128 / (1 << 16);
    #[expect(clippy::cast_possible_truncation, reason = "a hundred years are fewer nanoseconds")]
    let more = Duration::from_nanos(more as u64);
    age.saturating_add(more)
}
