//! Who is let in, and when.
//!
//! ```text
//!  Accepted ──▶ parked ──▶ a free slot? ──▶ adopted, opened
//!                  ▲              │ no
//!                  └── waits ─────┴──▶ accepting is off until there is; the oldest unused
//!                                      connection goes, see `unused`
//! ```
//!
//! Accepting is off while there is no slot, no memory, or no descriptor. The first connection beyond
//! the slots waits here, so that it is known that one waits; the others wait in the kernel's backlog. Nobody spins: a lack of descriptors is looked at again after a
//! pause, or when a connection closes.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::IpAddr,
    time::Duration,
};

use rustix::io::Errno;

use super::{Engine, core::ServiceId, throttle::Notice, unused::UnusedOnes};
use crate::{
    address::Peer,
    conn::deadlines::Tick,
    driver::{Driver, ListenerId, Op},
};

/// How long to wait after the system had no descriptor, or no memory, for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// So many failures in a row that blame the connection are tried again at once. More of them blame
/// the system: a policy that refuses every accept, or a network that is down.
const REFUSALS_MAX: u32 = 16;

/// A listener as the engine sees it.
#[derive(Debug)]
struct Door {
    service: ServiceId,
    /// Failures in a row that blame the connection, since the last pause.
    refusals: u32,
    /// The driver was asked to accept.
    open: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Acceptor<S> {
    doors: Vec<Door>,
    /// Accepted, and not yet let in. At most what one wait brings.
    pub(super) parked: VecDeque<(ListenerId, S, Peer)>,
    pub(super) unused: UnusedOnes,
    connections_max: usize,
    /// Not to be tried again before: the system lacked something.
    exhausted_until: Option<Tick>,
    per_ip: HashMap<IpAddr, usize>,
    /// The server drains: after the backlog is empty nobody else comes in.
    closed: bool,
}

impl<S> Acceptor<S> {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            doors: Vec::new(),
            parked: VecDeque::new(),
            unused: UnusedOnes::default(),
            connections_max,
            exhausted_until: None,
            per_ip: HashMap::new(),
            closed: false,
        }
    }

    pub(super) fn add(&mut self, service: ServiceId) {
        self.doors.push(Door { service, refusals: 0, open: false });
    }

    /// Takes in what the driver accepted; the handler hears of it after the wait.
    ///
    /// A driver may report what it accepted before it was told to stop; once the doors are shut
    /// that is too late.
    pub(super) fn park(&mut self, listener: ListenerId, socket: S, peer: Peer) {
        self.doors[listener].refusals = 0;
        if !self.closed {
            self.parked.push_back((listener, socket, peer));
        }
    }

    /// When to look again whether the system has what it lacked, or for an unused connection.
    pub(super) fn look_at(&self) -> Option<Tick> {
        let unused = self.unused.look_at().filter(|_| !self.parked.is_empty());
        self.exhausted_until.into_iter().chain(unused).min()
    }

    /// Whether nobody comes in any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// A connection has closed: what the system lacked may be there now.
    pub(super) fn released(&mut self, peer: Peer, limited: bool) {
        self.exhausted_until = self.exhausted_until.and(Some(Tick::MIN));
        if limited
            && let Some(ip) = peer.ip()
            && let Some(count) = self.per_ip.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }

    /// Whether a connection of this peer is one too many; if not, it is counted.
    fn is_one_too_many(&mut self, peer: &Peer, per_ip_max: Option<usize>) -> bool {
        let (Some(max), Some(ip)) = (per_ip_max, peer.ip()) else { return false };
        let count = self.per_ip.entry(ip).or_default();
        if *count >= max {
            return true;
        }
        *count += 1;
        false
    }
}

impl<D: Driver> Engine<D> {
    /// Accepting failed. What the connection lost is its own; what the system lacks passes.
    pub(super) fn accept_failed(&mut self, listener: ListenerId, error: &io::Error) {
        let door = &mut self.acceptor.doors[listener];
        door.open = false;
        if is_of_the_connection(error) && door.refusals < REFUSALS_MAX {
            door.refusals += 1;
            return;
        }
        door.refusals = 0;
        self.acceptor.exhausted_until = Some(self.core.tick_after(PAUSE));
        let now = self.core.tick();
        if let Some(left_out) = self.core.throttles.pass(Notice::Accept, now) {
            let connections = self.core.slots.len();
            tracing::warn!(connections, left_out, "cannot accept for now: {error}");
        }
    }

    /// Lets in whom the driver accepted, as far as there is room.
    pub(super) fn admit(&mut self) {
        self.admit_some();
        if !self.acceptor.parked.is_empty() && self.core.limits.unused_timeout.is_some() {
            self.make_room();
        }
    }

    fn admit_some(&mut self) {
        while self.core.slots.len() < self.acceptor.connections_max {
            let Some((listener, socket, peer)) = self.acceptor.parked.pop_front() else { return };
            if self.acceptor.is_one_too_many(&peer, self.core.limits.max_connections_per_ip) {
                self.refuse(&peer);
                continue;
            }
            let service = self.acceptor.doors[listener].service;
            let token = self.core.insert(peer.clone(), service);
            self.core.memory.ajar = false;
            self.driver.submit(Op::Adopt { token, socket });
            tracing::debug!(%peer, "accepted");
            if let Some(service) = self.services.get_mut(service as usize) {
                service.open(&mut self.core, token);
            }
        }
    }

    fn refuse(&mut self, peer: &Peer) {
        self.core.counters.refused.add(1);
        let now = self.core.tick();
        if let Some(left_out) = self.core.throttles.pass(Notice::PerIp, now) {
            tracing::warn!(%peer, left_out, "too many connections from this address: refused");
        }
    }

    /// Whether a connection waits for which there is no slot.
    fn is_full(&self) -> bool {
        self.core.slots.len() + self.acceptor.parked.len() > self.acceptor.connections_max
    }

    fn may_accept(&self) -> bool {
        !self.acceptor.closed
            && !self.is_full()
            && self.acceptor.exhausted_until.is_none()
            && self.core.memory.admits()
    }

    /// Whether the next turn has a driver accept that does not just now.
    pub(super) fn is_about_to_accept(&self) -> bool {
        self.may_accept() && self.acceptor.doors.iter().any(|door| !door.open)
    }

    /// Opens and closes the doors as there is room.
    pub(super) fn mind_doors(&mut self) {
        if self.acceptor.exhausted_until.is_some_and(|until| until <= self.core.tick()) {
            self.acceptor.exhausted_until = None;
        }
        let (full, open) = (self.is_full(), self.may_accept());
        for (listener, door) in self.acceptor.doors.iter_mut().enumerate() {
            if door.open != open {
                door.open = open;
                self.driver.submit(Op::Accept { listener, on: open });
                if full {
                    let now = self.core.tick();
                    if let Some(left_out) = self.core.throttles.pass(Notice::Full, now) {
                        let connections = self.core.slots.len();
                        tracing::warn!(connections, left_out, "full: the next ones have to wait");
                    }
                }
            }
        }
    }

    /// Closes the listeners. Whoever waits in their backlog is refused.
    pub(super) fn shut_doors(&mut self) {
        if std::mem::replace(&mut self.acceptor.closed, true) {
            return;
        }
        self.acceptor.parked.clear();
        self.acceptor.exhausted_until = None;
        for (listener, door) in self.acceptor.doors.iter_mut().enumerate() {
            door.open = false;
            self.driver.submit(Op::Unlisten { listener });
        }
    }
}

/// Whether the trouble is that of the one connection that was to be accepted: it broke while it
/// waited, or a firewall forbids it. Whatever else goes wrong would go wrong again at once.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NOPROTOOPT
                | Errno::NOTCONN
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::PROTO
                | Errno::TIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::is_of_the_connection;

    #[test]
    fn only_the_trouble_of_one_connection_does_not_pause_accepting() {
        for (errno, goes_on) in [
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOBUFS, false),
            (Errno::NOMEM, false),
            (Errno::BADF, false),
            (Errno::CONNABORTED, true),
            (Errno::PROTO, true),
            (Errno::PERM, true),
            (Errno::NETDOWN, true),
        ] {
            assert_eq!(is_of_the_connection(&io::Error::from(errno)), goes_on, "{errno}");
        }
    }
}
