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
    group::{AddressKey, Group, doors::DoorSettings},
    places,
    rules::Rules,
    shard::Shard,
    slot::{ServiceId, Slot},
    throttle::Notice,
    unused::UnusedOnes,
};
use crate::{
    address::{PackedPeer, Peer},
    conn::{
        deadlines::{Kind, Tick},
        pipe::Pipe,
        state::State,
    },
    driver::{Driver, ListenerId, Op, Token},
    networks::Networks,
    tls::Tls,
};

/// How long to wait after the system had no descriptor, or no memory, for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// So many failures in a row that blame the connection are tried again at once. More of them blame
/// the system: a policy that refuses every accept, or a network that is down.
const REFUSALS_MAX: u32 = 16;

/// A listener as the engine sees it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) service: ServiceId,
    /// Whose connections begin with a PROXY header: then nobody else may connect.
    pub(super) proxies: Option<Networks>,
    /// Its connections begin with a TLS handshake.
    pub(super) tls: Option<Tls>,
    /// Failures in a row that blame the connection, since the last pause.
    refusals: u32,
    /// The driver was asked to accept.
    open: bool,
    pub(super) settings: DoorSettings,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Acceptor<S> {
    pub(super) doors: Vec<Door>,
    /// What holds for each of them as it opens.
    pub(super) entrances: Vec<DoorSettings>,
    /// Which version of that is known.
    pub(super) doors_seen: usize,
    /// Where those came in whose client is not known yet.
    pub(super) arriving: HashMap<Token, ListenerId>,
    /// Accepted, and not yet let in. At most what one wait brings.
    pub(super) parked: VecDeque<(ListenerId, S, Peer)>,
    pub(super) unused: UnusedOnes,
    pub(super) balance: Balance,
    connections_max: usize,
    /// Not to be tried again before: the system lacked something.
    exhausted_until: Option<Tick>,
    /// The connections of this shard by address and network, and by service where one counts for itself.
    pub(super) per_ip: HashMap<AddressKey, usize>,
    /// The server drains: after the backlog is empty nobody else comes in.
    closed: bool,
}

impl<S> Acceptor<S> {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            doors: Vec::new(),
            entrances: Vec::new(),
            doors_seen: 0,
            arriving: HashMap::new(),
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
        let settings = self.entrances.get(self.doors.len()).cloned().unwrap_or_default();
        self.doors.push(Door { service, proxies, tls: None, refusals: 0, open: false, settings });
    }

    pub(super) const fn set_connections_max(&mut self, connections_max: usize) {
        self.connections_max = connections_max;
    }

    pub(super) const fn connections_max(&self) -> usize {
        self.connections_max
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
        if slot.counts() {
            self.uncount_all(slot, group);
        } else if !self.arriving.is_empty() {
            self.arriving.remove(&slot.token());
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
        loop {
            let Self { acceptor, core, .. } = &mut *self;
            let at = acceptor.first_with_room(&core.desks)?;
            let service = acceptor.doors[acceptor.parked.get(at)?.0].service;
            if !core.take_place(service, acceptor.connections_max) {
                continue;
            }
            let (listener, socket, peer) = acceptor.parked.remove(at)?;
            let door = &acceptor.doors[listener];
            let tls = door.tls.clone();
            let rules = Rc::clone(&core.desks.get(service as usize)?.rules);
            let mut word = None;
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
                None => match acceptor.refusal(listener, &peer, &rules, core) {
                    Some(why) => {
                        core.note_refusal(why, &peer, &rules);
                        word = self.busy_word(listener, why);
                        if word.is_none() {
                            self.core.leave_place(service);
                            continue;
                        }
                        Pipe::Header
                    }
                    None if tls.is_some() => Pipe::Tls,
                    None => Pipe::Plain,
                },
            };
            let Self { acceptor, core, table, services, .. } = &mut *self;
            let of = services.get_mut(service as usize)?;
            let is_proxied = acceptor.doors[listener].proxies.is_some();
            let token = table.insert(|token| {
                let slot = core.new_slot(token, peer.clone(), rules, pipe);
                of.entry(core, slot)
            });
            core.came_by.note(token, service, listener);
            if is_proxied {
                acceptor.arriving.insert(token, listener);
            }
            if let Some(word) = word
                && let Some(slot) = table.get_mut(token)
            {
                core.tell_busy(slot, &word);
            }
            if let Some(tls) = tls
                && let Some(mut entry) = table.take(token)
            {
                core.begin_handshake(table, &mut entry.slot, tls);
                table.put_back(entry);
            }
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

    fn may_accept(&self, &Door { service, ref settings, .. }: &Door) -> bool {
        !self.acceptor.closed
            && !settings.suspended
            && !self.acceptor.balance.is_off()
            && !self.acceptor.is_full(&self.core.desks, service)
            && self.acceptor.exhausted_until.is_none()
            && self.core.memory.admits()
    }

    /// Whether accepting is to be turned on or off.
    pub(super) fn is_about_to_switch(&self) -> bool {
        self.acceptor.doors.iter().any(|door| door.open != self.may_accept(door))
    }

    /// Whether the next turn has a driver accept that does not just now.
    pub(super) fn is_about_to_accept(&self) -> bool {
        self.acceptor.doors.iter().any(|door| !door.open && self.may_accept(door))
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
        if pipe == Pipe::Tls {
            slot.is_let_in();
        }
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
        self.may_age(slot);
        self.await_activity(slot);
        self.await_use(slot);
    }

    /// The time begins within which something has to be done on an open connection on which nothing ever
    /// was. What TLS itself sends is nothing, but while it is in flight its own deadline runs.
    pub(super) fn await_use(&mut self, slot: &mut Slot) {
        if let Some(timeout) = slot.rules().unused_timeout
            && slot.is_unused()
            && slot.conn.outbound().is_empty()
            && slot.conn.deadline(Kind::Unused).is_none()
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
            if let Some(slot) = self.shard.table.get_mut(token)
                && matches!(slot.peer, PackedPeer::Unix)
                && let Some(process) = self.driver.credentials(token)
            {
                slot.came_from(process);
            }
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
            let open = shard.may_accept(&shard.acceptor.doors[listener]);
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
