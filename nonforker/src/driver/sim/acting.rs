//! What clients do on the simulated network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    events::Event,
    link::{End, Link, Reading},
    trace::What,
    world::{LinkId, World},
};
use crate::{
    address::{Address, Peer},
    driver::ListenerId,
};

/// The address of client number `link`, as the server sees it. Ports differ also where IP addresses do not.
fn peer(listener: &Address, link: LinkId, ip: Option<IpAddr>) -> Peer {
    /// The port of the first, and how many there are from there on.
    const PORTS: (u16, usize) = (1024, 64_512);
    /// How many IP addresses there are.
    const HOSTS: usize = 0xff_ffff;
    let Address::Tcp(listener) = listener else { return Peer::Unix };
    let host = u32::try_from(link % HOSTS).unwrap_or_default() + 1;
    let own = match listener {
        SocketAddr::V4(_) => Ipv4Addr::from_bits(0x0a00_0000 + host).into(),
        SocketAddr::V6(_) => Ipv6Addr::from_bits((0xfd << 120) + u128::from(host)).into(),
    };
    let port = PORTS.0 + u16::try_from(link % PORTS.1).unwrap_or_default();
    Peer::Tcp((ip.unwrap_or(own), port).into())
}

impl World {
    /// A new client connects to a listener, from an IP address of its own if it has none given.
    pub(crate) fn connect(
        &mut self,
        listener: ListenerId,
        window: usize,
        ip: Option<IpAddr>,
    ) -> LinkId {
        let link = self.links.len();
        let peer = peer(&self.listeners[listener].address, link, ip);
        self.links.push(Link::new(window, self.coarse, peer));
        self.note(link, What::Connects);
        let late = self.lateness();
        self.schedule_in(late, Event::Arrives(link, listener));
        // What the client sends arrives behind its connection.
        self.links[link].up_clock = self.now + late;
        link
    }

    /// A client sends bytes.
    pub(crate) fn send_up(&mut self, link: LinkId, mut bytes: &[u8]) {
        if self.links[link].half_closed {
            return;
        }
        self.note(link, What::Sends(bytes.len()));
        self.trace.note_bytes(bytes);
        while !bytes.is_empty() {
            let mut count = bytes.len();
            if self.rng.chance(self.faults.fragment) {
                count = self.rng.between(1, count.min(64));
            }
            let (piece, rest) = bytes.split_at(count);
            bytes = rest;
            let at = self.up_time(link);
            self.schedule(at, Event::Up(link, piece.to_vec()));
        }
    }

    pub(crate) fn send_urgent(&mut self, link: LinkId, byte: u8) {
        if self.links[link].half_closed {
            return;
        }
        self.note(link, What::SendsUrgent(byte));
        let at = self.up_time(link);
        self.schedule(at, Event::UpUrgent(link, byte));
    }

    /// A client finishes sending, or resets.
    pub(crate) fn end_up(&mut self, link: LinkId, end: End) {
        let reset = end == End::Reset;
        let before = &self.links[link];
        if before.gone || (before.half_closed && !reset) {
            return;
        }
        self.note(link, if reset { What::Resets } else { What::HalfCloses });
        self.links[link].half_closed = true;
        self.links[link].gone |= reset;
        let at = self.up_time(link);
        self.schedule(at, Event::UpEnd(link, end));
    }

    fn up_time(&mut self, link: LinkId) -> Duration {
        let late = self.now + self.lateness();
        let clock = &mut self.links[link].up_clock;
        *clock = late.max(*clock);
        *clock
    }

    /// The client reads in another way from now on.
    pub(crate) fn set_reading(&mut self, link: LinkId, reading: Reading) {
        let before = std::mem::replace(&mut self.links[link].reading, reading);
        if before == reading {
            return;
        }
        match reading {
            Reading::Stalled => self.note(link, What::Stalls),
            Reading::All => {
                self.note(link, What::Reads);
                self.read(link, usize::MAX);
            }
            Reading::Slow { every, .. } => {
                self.note(link, What::Reads);
                if !self.links[link].unread.is_empty() {
                    self.schedule_in(every, Event::Reads(link));
                }
            }
        }
    }

    /// A client reads up to `count` of the bytes that have arrived.
    pub(crate) fn read(&mut self, link: LinkId, count: usize) {
        if self.links[link].read(count) > 0 {
            // There is room for the server to send again.
            self.look_at(link);
        }
    }
}
