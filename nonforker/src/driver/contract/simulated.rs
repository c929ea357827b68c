//! The rig for the simulated driver: peers act on the world that the driver is in.
//!
//! The network of a contract has no faults that a driver may not answer for: the suite says what a
//! driver promises, and most faults are what a kernel does besides. What a seed decides about a
//! driver is a [`Way`] here, so that each has its own tests.

use std::{cell::RefCell, io, marker::PhantomData, rc::Rc};

use rustix::io::Errno;

use super::{Client, Heard, Rig, Target, Transport, bench::Bench};
use crate::{
    address::{Address, Peer},
    driver::{
        Options,
        sim::{
            SimDriver,
            connecting::{Answer, SimTarget},
            faults::Faults,
            link::{End, Reading},
            world::{LinkId, World},
        },
    },
};

/// The bytes that are under way to a peer or wait to be read by it, at most.
const WINDOW: usize = 1 << 20;

/// A way in which a simulated driver does what it may do in several.
pub(super) trait Way {
    const NAME: &'static str;
    const SEED: u64;
    const FAULTS: Faults = Faults::none();
}

/// A send may be done when it returns, and links have room again in large steps, as over epoll.
pub(super) struct Prompt;

impl Way for Prompt {
    const NAME: &'static str = "sim";
    const SEED: u64 = 1;
}

/// A send is never done when it returns, as over io_uring, and links have room again at once.
pub(super) struct Late;

impl Way for Late {
    const NAME: &'static str = "sim, late";
    const SEED: u64 = 0;
}

/// Bytes come in pieces, and the end with the last of them.
pub(super) struct Cutting;

impl Way for Cutting {
    const NAME: &'static str = "sim, cutting";
    const SEED: u64 = 3;
    const FAULTS: Faults = Faults { fragment: 1000, end_with_bytes: 1000, ..Faults::none() };
}

/// A simulated network.
pub(super) struct Simulated<W> {
    world: Rc<RefCell<World>>,
    transport: Transport,
    listeners: usize,
    way: PhantomData<W>,
}

impl<W: Way> Rig for Simulated<W> {
    type Driver = SimDriver;
    type Client = SimClient;
    type Target = SimulatedTarget;

    const NAME: &'static str = W::NAME;
    const URGENT: bool = true;
    const TRANSPORTS: &'static [Transport] = &[Transport::Tcp, Transport::Unix];

    fn new(transport: Transport, options: Options) -> Option<(Self, SimDriver)> {
        let mut world = World::new(W::SEED);
        world.faults = W::FAULTS;
        let world = Rc::new(RefCell::new(world));
        let driver = SimDriver::new(Rc::clone(&world), 0, options);
        Some((Self { world, transport, listeners: 0, way: PhantomData }, driver))
    }

    fn address(&mut self) -> Address {
        self.listeners += 1;
        match self.transport {
            Transport::Tcp => Address::Tcp(([127, 0, 0, 1], 0).into()),
            Transport::Unix => Address::Unix(format!("/{}", self.listeners).into()),
        }
    }

    fn connect(&mut self, address: &Address) -> io::Result<SimClient> {
        let mut world = self.world.borrow_mut();
        let mut listeners = world.listeners.iter();
        let listener = listeners.position(|other| other.is_open() && other.address == *address);
        let link = world.connect(listener.ok_or(Errno::CONNREFUSED)?, WINDOW, None);
        // It reads what it is asked for, as a socket does.
        world.set_reading(link, Reading::Stalled);
        Ok(SimClient { world: Rc::clone(&self.world), link })
    }

    fn target(&mut self, late: bool) -> Option<SimulatedTarget> {
        let address = self.nowhere();
        let answer = if late { Answer::Silent } else { Answer::Accepts };
        self.world.borrow_mut().targets.all.push(SimTarget::new(address.clone(), answer));
        Some(SimulatedTarget { world: Rc::clone(&self.world), address })
    }

    fn nowhere(&mut self) -> Address {
        let address = self.address();
        match address {
            Address::Tcp(mut tcp) => {
                tcp.set_port(u16::try_from(self.listeners).expect("there are few"));
                Address::Tcp(tcp)
            }
            _ => address,
        }
    }

    fn has_urgent(&self) -> bool {
        true
    }

    fn is_alone() -> bool {
        true
    }

    fn without_descriptors(bench: &mut Bench<Self>, body: impl FnOnce(&mut Bench<Self>)) {
        bench.rig.world.borrow_mut().faults.accept_exhausted = 1000;
        body(bench);
        bench.rig.world.borrow_mut().faults.accept_exhausted = 0;
    }
}

/// A simulated server.
pub(super) struct SimulatedTarget {
    world: Rc<RefCell<World>>,
    address: Address,
}

impl Target for SimulatedTarget {
    type Client = SimClient;

    fn address(&self) -> Address {
        self.address.clone()
    }

    fn let_in(&mut self) {
        self.world.borrow_mut().set_answer(&self.address, Answer::Accepts);
    }

    fn accept(&mut self) -> Option<SimClient> {
        let link = self.world.borrow_mut().take_called(&self.address)?;
        self.world.borrow_mut().set_reading(link, Reading::Stalled);
        Some(SimClient { world: Rc::clone(&self.world), link })
    }
}

/// A simulated peer.
pub(super) struct SimClient {
    world: Rc<RefCell<World>>,
    link: LinkId,
}

impl Client for SimClient {
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.world.borrow_mut().send_up(self.link, bytes);
        bytes.len()
    }

    fn send_urgent(&mut self, byte: u8) -> bool {
        self.world.borrow_mut().send_urgent(self.link, byte);
        true
    }

    fn receive(&mut self) -> Heard {
        let mut world = self.world.borrow_mut();
        world.read(self.link, usize::MAX);
        let link = &mut world.links[self.link];
        match link.down_end {
            _ if !link.inbox.is_empty() => Heard::Bytes(std::mem::take(&mut link.inbox)),
            End::Open => Heard::Nothing,
            End::Finished => Heard::End,
            End::Reset => Heard::Reset,
        }
    }

    fn shutdown_write(&mut self) {
        self.world.borrow_mut().end_up(self.link, End::Finished);
    }

    fn reset(self) {
        self.world.borrow_mut().end_up(self.link, End::Reset);
    }

    fn close(self) {}

    fn peer(&self) -> Peer {
        self.world.borrow().links[self.link].peer.clone()
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        // As over a kernel, a close with unread input is a reset, and what comes later is answered
        // with one.
        let unread = !world.links[self.link].unread.is_empty();
        world.end_up(self.link, if unread { End::Reset } else { End::Finished });
        world.links[self.link].gone = true;
    }
}
