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
    rc::Rc,
    time::Duration,
};

use rustix::io::Errno;

use super::{
    Engine,
    balance::Balance,
    core::Core,
    desk::Desk,
    group::{AddressKey, Group},
    places,
    rules::Rules,
    shard::Shard,
    slot::{ServiceId, Slot},
    table::Table,
    throttle::Notice,
    unused::UnusedOnes,
};
use crate::{
    address::Peer,
    conn::{
        deadlines::{Kind, Tick},
        pipe::Pipe,
        state::State,
    },
    driver::{Driver, ListenerId, Op, Token},
    networks::Networks,
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
    /// Whose connections begin with a PROXY header: then nobody else may connect.
    proxies: Option<Networks>,
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
    pub(super) balance: Balance,
    connections_max: usize,
    /// Not to be tried again before: the system lacked something.
    exhausted_until: Option<Tick>,
    /// By address, and by service where one counts for itself: the connections of this shard.
    per_ip: HashMap<AddressKey, usize>,
    /// The server drains: after the backlog is empty nobody else comes in.
    closed: bool,
}

impl<S> Acceptor<S> {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            doors: Vec::new(),
            parked: VecDeque::new(),
            unused: UnusedOnes::default(),
            balance: Balance::new(),
            connections_max,
            exhausted_until: None,
            per_ip: HashMap::new(),
            closed: false,
        }
    }

    pub(super) fn add(&mut self, service: ServiceId, proxies: Option<Networks>) {
        self.doors.push(Door { service, proxies, refusals: 0, open: false });
    }

    pub(super) const fn set_connections_max(&mut self, connections_max: usize) {
        self.connections_max = connections_max;
    }

    pub(super) const fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Counts anew how many connections each address has: the rules about that have changed.
    pub(super) fn count_addresses(&mut self, table: &Table, group: &Group) {
        let before = std::mem::take(&mut self.per_ip);
        for slot in table.slots().filter(|slot| slot.is_counted_by_address()) {
            if let Some((key, _)) = slot.rules().per_ip(&slot.peer()) {
                *self.per_ip.entry(key).or_default() += 1;
            }
        }
        if !group.is_alone() {
            for (key, &count) in &self.per_ip {
                group.correct_address(*key, 0, count);
            }
            for (key, count) in before {
                group.correct_address(key, count, 0);
            }
        }
    }

    /// Adds the connections of each address to those of other shards.
    pub(super) fn add_addresses(&self, all: &mut HashMap<AddressKey, usize>) {
        for (key, count) in &self.per_ip {
            *all.entry(*key).or_default() += count;
        }
    }

    /// How many listeners there are.
    pub(super) fn listeners(&self) -> ListenerId {
        self.doors.len()
    }

    /// Whether something keeps clients out, or one is waiting.
    pub(super) fn is_unusual(&self) -> bool {
        self.exhausted_until.is_some() || !self.parked.is_empty() || self.balance.is_unusual()
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
    pub(super) fn released(&mut self, slot: &Slot, group: &Group) {
        self.exhausted_until = self.exhausted_until.and(Some(Tick::MIN));
        if slot.is_counted_by_address()
            && let Some((place, _)) = slot.rules().per_ip(&slot.peer())
            && let Some(count) = self.per_ip.get_mut(&place)
        {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&place);
            }
            if !group.is_alone() {
                group.correct_address(place, 1, 0);
            }
        }
    }

    /// Where the first stands that is parked and for which there is room.
    fn first_with_room(&self, desks: &[Desk]) -> Option<usize> {
        self.parked
            .iter()
            .position(|&(listener, ..)| self.room(desks, self.doors[listener].service) > 0)
    }

    fn room(&self, desks: &[Desk], service: ServiceId) -> usize {
        places::room(desks, service, self.connections_max)
    }

    /// Whether a connection of this service waits for which there is no room.
    fn is_full(&self, desks: &[Desk], service: ServiceId) -> bool {
        let waits = self.waiting().filter(|&of| of == service).count();
        waits > self.room(desks, service)
    }

    /// The services of those that are parked.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ServiceId> {
        self.parked.iter().map(|&(listener, ..)| self.doors[listener].service)
    }

    /// Whether a connection of this peer is one too many; if not, it is counted.
    pub(super) fn is_one_too_many(&mut self, peer: &Peer, rules: &Rules, group: &Group) -> bool {
        let Some((place, max)) = rules.per_ip(peer) else { return false };
        if !group.is_alone() && !group.count_address(place, max) {
            return true;
        }
        let count = self.per_ip.entry(place).or_default();
        if group.is_alone() && *count >= max {
            return true;
        }
        *count += 1;
        false
    }

    /// Has the driver look at all listeners that accept, although it knows of nobody who waits.
    pub(super) fn look_at_listeners(&self, driver: &mut impl Driver<Socket = S>) {
        for (listener, door) in self.doors.iter().enumerate().filter(|(_, door)| door.open) {
            driver.submit(Op::Accept { listener, on: door.open });
        }
    }
}

impl<S> Shard<S> {
    /// Accepting failed. What the connection lost is its own; what the system lacks passes.
    pub(super) fn accept_failed(&mut self, listener: ListenerId, error: &io::Error) {
        let Self { acceptor, core, table, .. } = self;
        let door = &mut acceptor.doors[listener];
        door.open = false;
        if is_of_the_connection(error) && door.refusals < REFUSALS_MAX {
            door.refusals += 1;
            return;
        }
        door.refusals = 0;
        acceptor.exhausted_until = Some(core.tick_after(PAUSE));
        if let Some(left_out) = core.notice(Notice::Accept) {
            let connections = table.len();
            tracing::warn!(connections, left_out, "cannot accept for now: {error}");
        }
    }

    /// The next socket that is let in, and its entry, as far as there is room.
    fn next_admitted(&mut self) -> Option<(Token, S)> {
        let Self { acceptor, core, table, services, .. } = self;
        loop {
            let at = acceptor.first_with_room(&core.desks)?;
            let service = acceptor.doors[acceptor.parked.get(at)?.0].service;
            if !core.take_place(service, acceptor.connections_max) {
                continue;
            }
            let (listener, socket, peer) = acceptor.parked.remove(at)?;
            let door = &acceptor.doors[listener];
            let rules = Rc::clone(&core.desks.get(service as usize)?.rules);
            let pipe = match &door.proxies {
                Some(proxies) if !proxies.contains(&peer) => {
                    rules.counters.refused.add(1);
                    if let Some(left_out) = core.notice(Notice::Header) {
                        tracing::warn!(%peer, left_out, "refused: it is none of the proxies");
                    }
                    core.leave_place(service);
                    continue;
                }
                // Whose connection this is shows when its header has come.
                Some(_) => Pipe::Header,
                None => {
                    if acceptor.is_one_too_many(&peer, &rules, &core.group) {
                        core.one_too_many(&peer, &rules);
                        core.leave_place(service);
                        continue;
                    }
                    Pipe::Plain
                }
            };
            let of = services.get_mut(service as usize)?;
            let token = table.insert(|token| {
                let slot = core.new_slot(token, peer.clone(), rules, pipe);
                of.entry(core, slot)
            });
            core.memory.ajar = false;
            tracing::debug!(%peer, "accepted");
            return Some((token, socket));
        }
    }

    /// Notes whether a client waits for a place in this shard. Returns whether there is one after all.
    fn waits_for_place(&mut self) -> bool {
        let Self { core, acceptor, .. } = self;
        core.group.set_waits(core.shard, !acceptor.parked.is_empty());
        if acceptor.parked.is_empty() {
            return false;
        }
        core.group.note_places(&mut core.desks, &mut acceptor.balance.places_seen);
        acceptor.first_with_room(&core.desks).is_some()
    }

    fn may_accept(&self, service: ServiceId) -> bool {
        !self.acceptor.closed
            && !self.acceptor.balance.is_off()
            && !self.acceptor.is_full(&self.core.desks, service)
            && self.acceptor.exhausted_until.is_none()
            && self.core.memory.admits()
    }

    /// Whether accepting is to be turned on or off.
    pub(super) fn is_about_to_switch(&self) -> bool {
        self.acceptor.doors.iter().any(|door| door.open != self.may_accept(door.service))
    }

    /// Whether the next turn has a driver accept that does not just now.
    pub(super) fn is_about_to_accept(&self) -> bool {
        self.acceptor.doors.iter().any(|door| !door.open && self.may_accept(door.service))
    }
}

impl Core {
    fn new_slot(&mut self, token: Token, peer: Peer, rules: Rc<Rules>, pipe: Pipe) -> Slot {
        let mut slot = Slot::new(token, peer, rules, pipe, self.millis());
        if tracing::enabled!(tracing::Level::DEBUG) {
            slot.count_traffic(self.now);
        }
        slot.counters().accepted.add(1);
        self.mark_dirty(&mut slot);
        if slot.conn.state() == State::Arriving {
            self.arm(&mut slot, Kind::Handshake, self.limits.handshake_timeout);
        } else {
            self.begins(&mut slot);
        }
        slot
    }

    /// A connection is open: its deadlines begin.
    pub(super) fn begins(&mut self, slot: &mut Slot) {
        slot.opens();
        self.await_activity(slot);
        if let Some(timeout) = slot.rules().unused_timeout
            && !slot.is_outgoing()
        {
            self.arm(slot, Kind::Unused, timeout);
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Lets in whom the driver accepted, as far as there is room.
    pub(super) fn admit(&mut self) {
        let mut count = 0;
        while let Some((token, socket)) = self.shard.next_admitted() {
            self.driver.submit(Op::Adopt { token, socket });
            self.shard.open(token);
            count += 1;
        }
        if !self.shard.core.alone {
            self.shard.has_accepted(count);
            if self.shard.waits_for_place() {
                // Another shard has left a place before it could see that somebody waits.
                return self.admit();
            }
        }
        let may_go = |desk: &Desk| desk.rules.unused_timeout.is_some();
        let waits = !self.shard.acceptor.parked.is_empty();
        if waits && self.shard.core.desks.iter().any(may_go) {
            self.make_room();
        }
    }

    /// Turns accepting on and off as there is room.
    pub(super) fn switch_accepting(&mut self) {
        let Self { driver, shard } = self;
        let acceptor = &mut shard.acceptor;
        if acceptor.exhausted_until.is_some_and(|until| until <= shard.core.tick()) {
            acceptor.exhausted_until = None;
        }
        for listener in 0..shard.acceptor.doors.len() {
            let Door { service, open: was_open, .. } = shard.acceptor.doors[listener];
            let open = shard.may_accept(service);
            if was_open == open {
                continue;
            }
            shard.acceptor.doors[listener].open = open;
            driver.submit(Op::Accept { listener, on: open });
            if !open && shard.acceptor.balance.is_off() {
                shard.core.has_emptiest_look();
            }
            if shard.acceptor.is_full(&shard.core.desks, service)
                && let Some(left_out) = shard.core.notice(Notice::Full)
            {
                let connections = shard.table.len();
                tracing::warn!(connections, service, left_out, "full: the next ones have to wait");
            }
        }
    }

    /// Closes the listeners. Whoever waits in their backlog is refused.
    pub(super) fn stop_listening(&mut self) {
        let acceptor = &mut self.shard.acceptor;
        if std::mem::replace(&mut acceptor.closed, true) {
            return;
        }
        acceptor.parked.clear();
        acceptor.exhausted_until = None;
        for (listener, door) in acceptor.doors.iter_mut().enumerate() {
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
