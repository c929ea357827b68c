//! How simulated connections are accepted, or not.

use std::{io, net::SocketAddr, ops::RangeInclusive, rc::Rc};

use rustix::io::Errno;

use super::{
    SimDriver, SimSocket,
    link::{End, Side},
    trace::What,
    world::{LinkId, World},
};
use crate::{
    address::Address,
    driver::{Completion, ListenerId, Sink},
};

/// The most connections accepted in one wait.
const ACCEPTS: usize = 16;

/// The ports that stand for port 0, as in a kernel: those that nobody has by agreement.
const EPHEMERAL: RangeInclusive<u16> = 49_152..=u16::MAX;

impl World {
    /// The address that a listener gets that wants `address`.
    pub(super) fn bind(&self, address: &Address) -> io::Result<Address> {
        let is_free =
            |address: &Address| !self.listeners.iter().any(|it| it.open && it.address == *address);
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
        self.world().listeners.iter().any(|listener| listener.on && !listener.backlog.is_empty())
    }

    /// Reports who has connected.
    pub(super) fn accept(&self, sink: &mut dyn Sink<SimSocket>) {
        let listeners = self.world().listeners.len();
        for listener in 0..listeners {
            for _ in 0..ACCEPTS {
                let Some(completion) = self.accept_one(listener) else { break };
                sink.take(completion);
            }
        }
    }

    fn accept_one(&self, listener: ListenerId) -> Option<Completion<'static, SimSocket>> {
        let mut world = self.world();
        let state = &world.listeners[listener];
        if !state.on || state.backlog.is_empty() {
            return None;
        }
        let faults = world.faults;
        if world.torture.strikes() || world.rng.chance(faults.accept_exhausted) {
            let errnos = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
            let errno = errnos[world.rng.between(0, errnos.len() - 1)];
            return Some(accept_fails(&mut world, listener, errno));
        }
        if world.rng.chance(faults.accept_refused) {
            let errnos = [Errno::PERM, Errno::NETDOWN];
            let errno = errnos[world.rng.between(0, errnos.len() - 1)];
            return Some(accept_fails(&mut world, listener, errno));
        }
        let link = world.listeners[listener].backlog.pop_front()?;
        if world.links[link].up_end == End::Reset || world.rng.chance(faults.accept_aborted) {
            world.links[link].side = Side::Closed;
            world.end_down(link, End::Reset);
            return Some(accept_fails(&mut world, listener, Errno::CONNABORTED));
        }
        Some(self.accepted(&mut world, listener, link))
    }

    fn accepted(
        &self,
        world: &mut World,
        listener: ListenerId,
        link: LinkId,
    ) -> Completion<'static, SimSocket> {
        world.links[link].side = Side::Accepted;
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
        let was_on = std::mem::replace(&mut state.on, on);
        // A ring reports what it had accepted before it was told to stop.
        if was_on
            && !on
            && world.rng.chance(late)
            && let Some(link) = world.listeners[listener].backlog.pop_front()
        {
            let completion = self.accepted(&mut world, listener, link);
            world.report(link, completion);
        }
    }
}

fn accept_fails(
    world: &mut World,
    listener: ListenerId,
    errno: Errno,
) -> Completion<'static, SimSocket> {
    world.note(0, What::AcceptFails(errno.raw_os_error()));
    world.listeners[listener].on = false;
    Completion::AcceptFailed { listener, error: errno.into() }
}
