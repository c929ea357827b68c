//! Who is refused, and how.
//!
//! ```text
//!  peer, or the client that its proxy names ──▶ denied? ──▶ too fast? ──▶ too many? ──▶ counted
//!                                                  │            │             │
//!                                               silence         └── a word, if there is one ──▶ close
//! ```

use super::{
    accept::Acceptor,
    core::Core,
    group::{AddressKey, Group, net_of},
    rules::Rules,
    shard::Shard,
    slot::Slot,
    table::Table,
    throttle::Notice,
};
use crate::{
    address::{PackedPeer, Peer, PeerCredentials},
    conn::{deadlines::Kind, state::Event},
    driver::ListenerId,
    error::CloseReason,
};

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Denied,
    Rate,
    PerIp,
    PerNet,
}

impl Refusal {
    const fn line(self) -> (Notice, &'static str) {
        match self {
            Self::Denied => (Notice::Denied, "its network may not connect: refused"),
            Self::Rate => (Notice::Rate, "too many connections a second from its network: refused"),
            Self::PerIp => (Notice::PerIp, "too many connections from this address: refused"),
            Self::PerNet => (Notice::PerNet, "too many connections from its network: refused"),
        }
    }
}

impl<S> Acceptor<S> {
    /// Why a client of a listener is refused; if it is not, its connection is counted.
    pub(super) fn refusal(
        &mut self,
        listener: ListenerId,
        peer: &Peer,
        rules: &Rules,
        core: &Core,
    ) -> Option<Refusal> {
        if !self.doors[listener].settings.entrance.access.admits(peer) {
            return Some(Refusal::Denied);
        }
        if let Some(rate) = rules.accept_rate
            && let Some(ip) = peer.ip()
            && !core.group.grants(net_of(ip, rules.net_prefix), rate, core.clock.now())
        {
            return Some(Refusal::Rate);
        }
        let [per_ip, per_net] = rules.caps(peer);
        if let Some((key, max)) = per_ip
            && !self.count(key, max, &core.group)
        {
            return Some(Refusal::PerIp);
        }
        if let Some((key, max)) = per_net
            && !self.count(key, max, &core.group)
        {
            if let Some((key, _)) = per_ip {
                self.uncount(key, &core.group);
            }
            return Some(Refusal::PerNet);
        }
        None
    }

    /// Counts a connection of an address or a network, unless there are `max`.
    fn count(&mut self, key: AddressKey, max: usize, group: &Group) -> bool {
        if !group.is_alone() && !group.count_address(key, max) {
            return false;
        }
        let count = self.per_ip.entry(key).or_default();
        if group.is_alone() && *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    fn uncount(&mut self, key: AddressKey, group: &Group) {
        let Some(count) = self.per_ip.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.per_ip.remove(&key);
        }
        if !group.is_alone() {
            group.correct_address(key, 1, 0);
        }
    }

    /// A connection that was counted has closed.
    pub(super) fn uncount_all(&mut self, slot: &Slot, group: &Group) {
        for (key, _) in slot.rules().caps(&slot.peer()).into_iter().flatten() {
            self.uncount(key, group);
        }
    }

    /// Counts anew how many connections each address has: the rules about that have changed.
    pub(super) fn count_addresses(&mut self, table: &Table, group: &Group) {
        let before = std::mem::take(&mut self.per_ip);
        for slot in table.slots().filter(|slot| slot.counts()) {
            for (key, _) in slot.rules().caps(&slot.peer()).into_iter().flatten() {
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
}

impl<S> Shard<S> {
    /// Follows what has changed at the listeners.
    pub(super) fn follow_doors(&mut self) {
        let Self { core, acceptor, .. } = self;
        if let Some(settings) = core.group.changed_doors(&mut acceptor.doors_seen) {
            tracing::info!("who may connect, and where, has changed");
            for (door, settings) in acceptor.doors.iter_mut().zip(settings) {
                door.settings = settings;
            }
        }
    }

    /// What a client of a listener is told that is refused, if that costs nobody a place.
    pub(super) fn busy_word(&self, listener: ListenerId, why: Refusal) -> Option<Box<[u8]>> {
        let connections_max = self.core.limits.connections();
        let is_roomy = self.table.len() < connections_max - connections_max / 4;
        let door = &self.acceptor.doors[listener];
        let word = door.settings.entrance.busy.as_ref();
        // In clear it would be no word to a client that expects a handshake.
        word.filter(|_| is_roomy && why != Refusal::Denied && !door.is_encrypted()).cloned()
    }
}

impl Core {
    /// Counts a client that is refused, and logs it.
    pub(super) fn note_refusal(&mut self, why: Refusal, peer: &Peer, rules: &Rules) {
        rules.counters.refused.add(1);
        let (notice, line) = why.line();
        if let Some(left_out) = self.notice(notice) {
            tracing::warn!(%peer, left_out, "{line}");
        }
    }

    /// Sends the busy word on a connection that its handler does not know, and closes it in order.
    #[cold]
    pub(super) fn tell_busy(&mut self, slot: &mut Slot, word: &[u8]) {
        slot.conn.deadlines().clear(Kind::Handshake);
        slot.conn.apply(Event::Arrived);
        let marks = slot.rules().marks;
        slot.conn.push_copy(word, &marks, |least| self.pool.take(least));
        self.close(slot, CloseReason::Aborted);
    }
}

impl Slot {
    /// Its peer is this process, at the other end of a Unix socket.
    pub(super) fn came_from(&mut self, process: PeerCredentials) {
        self.peer = PackedPeer::UnixOf(process);
    }

    pub(crate) const fn credentials(&self) -> Option<PeerCredentials> {
        match self.peer {
            PackedPeer::UnixOf(process) => Some(process),
            _ => None,
        }
    }
}
