//! How simulated connections are accepted, or not.

use std::{io, net::SocketAddr, ops::RangeInclusive, rc::Rc};

use rustix::io::Errno;

use super::{
    SimDriver, SimSocket,
    link::{End, State},
    trace::What,
    world::{LinkId, World},
};
use crate::{
    address::Address,
    driver::{Completion, ListenerId, Sink},
};

/// The most connections accepted in one wait.
const ACCEPTS: usize = 16;

/// The same where other shards have the listener too.
const ACCEPTS_SHARED: usize = 4;

/// The ports that stand for port 0, as in a kernel: those that nobody has by agreement.
const EPHEMERAL: RangeInclusive<u16> = 49_152..=u16::MAX;

impl World {
    /// The address that a listener gets that wants `address`.
    pub(super) fn bind(&self, address: &Address) -> io::Result<Address> {
        let is_free = |address: &Address| {
            !self.listeners.iter().any(|it| it.is_open() && it.address == *address)
        };
        let with = |mut tcp: SocketAddr, port| {
            tcp.set_port(port);
            Address::Tcp(tcp)
        };
        match *address {
            Address::Tcp(tcp) if tcp.port() == 0 => {
                EPHEMERAL.map(|port| with(tcp, port)).find(is_free)
            }
            _ => Some(address.clone()).filter(is_free),
        }
        .ok_or_else(|| Errno::ADDRINUSE.into())
    }
}

impl SimDriver {
    /// Whether somebody waits to be accepted.
    pub(super) fn can_accept(&self) -> bool {
        self.world().can_accept(self.shard)
    }

    /// Reports the clients that have connected.
    pub(super) fn accept(&self, sink: &mut impl Sink<SimSocket>) {
        let listeners = self.world().listeners.len();
        for listener in 0..listeners {
            let accepts = if self.options.shared { ACCEPTS_SHARED } else { ACCEPTS };
            for _ in 0..accepts {
                let Some(completion) = self.accept_one(listener) else { break };
                sink.take(completion);
            }
        }
    }

    fn accept_one(&self, listener: ListenerId) -> Option<Completion<'static, SimSocket>> {
        let mut world = self.world();
        if !world.can_accept_at(self.shard, listener) {
            world.found_nobody(self.shard, listener);
            return None;
        }
        let faults = world.faults;
        if world.torture.strikes() || world.rng.chance(faults.accept_exhausted) {
            let errnos = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
            let errno = errnos[world.rng.between(0, errnos.len() - 1)];
            return Some(self.accept_fails(&mut world, listener, errno));
        }
        if world.rng.chance(faults.accept_refused) {
            let errnos = [Errno::PERM, Errno::NETDOWN];
            let errno = errnos[world.rng.between(0, errnos.len() - 1)];
            return Some(self.accept_fails(&mut world, listener, errno));
        }
        let link = world.listeners[listener].backlog.pop_front()?;
        if world.links[link].up_end == End::Reset || world.rng.chance(faults.accept_aborted) {
            world.links[link].state = State::Closed;
            world.end_down(link, End::Reset);
            return Some(self.accept_fails(&mut world, listener, Errno::CONNABORTED));
        }
        Some(self.accepted(&mut world, listener, link))
    }

    fn accepted(
        &self,
        world: &mut World,
        listener: ListenerId,
        link: LinkId,
    ) -> Completion<'static, SimSocket> {
        world.links[link].state = State::Accepted;
        world.belongs_to(link, self.shard);
        world.note(link, What::Accepted);
        let peer = world.links[link].peer.clone();
        let socket = SimSocket { link, world: Some(Rc::clone(&self.world)) };
        Completion::Accepted { listener, socket, peer }
    }

    /// Turns accepting on or off.
    pub(super) fn turn_accepting(&self, listener: ListenerId, on: bool) {
        let mut world = self.world();
        let late = world.faults.accept_late;
        let Some(state) = world.listeners.get_mut(listener) else { return };
        let Some(hold) = state.holds.get_mut(self.shard) else { return };
        let was_on = std::mem::replace(&mut hold.on, on);
        // A shard that turns it on, or asks for it again, looks.
        hold.told = on;
        // A ring reports what it had accepted before accepting was turned off.
        if was_on
            && !on
            && world.rng.chance(late)
            && let Some(link) = world.listeners[listener].backlog.pop_front()
        {
            let completion = self.accepted(&mut world, listener, link);
            world.report(link, completion);
        }
    }

    fn accept_fails(
        &self,
        world: &mut World,
        listener: ListenerId,
        errno: Errno,
    ) -> Completion<'static, SimSocket> {
        world.note(0, What::AcceptFails(errno.raw_os_error()));
        world.listeners[listener].holds[self.shard].on = false;
        Completion::AcceptFailed { listener, error: errno.into() }
    }
}
