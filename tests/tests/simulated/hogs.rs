//! Clients that hold memory, and a server with a budget for it.

use std::{cell::RefCell, ops::Range, rc::Rc, time::Duration};

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

/// The budget for buffers in these tests.
pub(crate) const BUDGET: usize = 1 << 20;

/// Answers a number with that many bytes, written at once, and echoes the rest.
pub(crate) fn gives(budget: usize) -> Server {
    gives_with(Limits::new().memory_budget(Some(budget)).write_timeout(None).frame_timeout(None))
}

pub(crate) fn gives_with(limits: Limits) -> Server {
    Server::new().limits(limits).serve("127.0.0.1:1", Lines::with_max(1 << 20), |conn, line| {
        let reply = match std::str::from_utf8(line).map(str::parse) {
            Ok(Ok(count)) => vec![b'x'; count],
            _ => line.to_vec(),
        };
        conn.send(reply);
    })
}

pub(crate) fn simulation(budget: usize, seeds: Range<u64>) -> Simulation {
    Simulation::new(move || gives(budget)).faults(|_| Faults::none()).seeds(seeds)
}

/// How long the client waits for an answer.
pub(crate) fn served(net: &Net, client: &Client) -> Duration {
    let began = net.now();
    client.send("hello\n");
    client.expect("hello\n");
    net.now() - began
}

/// A client that reads nothing of the many bytes it asks for.
pub(crate) fn fat(net: &Net, count: usize) -> Client {
    let client = net.connect();
    client.set_window(1);
    client.stall();
    client.send(format!("{count}\n"));
    net.wait(Duration::from_millis(1));
    client
}

pub(crate) fn all_fat(net: &Net, counts: &[usize]) -> Vec<Client> {
    counts.iter().map(|&count| fat(net, count)).collect()
}

/// How many bytes the buffers take for a reply of `count` bytes.
pub(crate) fn taken(count: usize) -> usize {
    let bytes = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&bytes);
    simulation(1 << 30, 0..1).run(|net| {
        let _fat = fat(net, count);
        *seen.borrow_mut() = usize::try_from(net.stats().buffered_bytes).expect("it fits");
    });
    bytes.take()
}

/// Clients that ask and never read, and come again when they are thrown out.
pub(crate) struct Hogs<'a> {
    net: &'a Net,
    clients: Vec<Client>,
}

impl<'a> Hogs<'a> {
    pub(crate) fn new(net: &'a Net, count: usize) -> Self {
        Self { net, clients: (0..count).map(|_| Self::come(net)).collect() }
    }

    fn come(net: &Net) -> Client {
        let client = net.connect();
        client.set_window(1000);
        client.stall();
        client.send("20000\n".repeat(20));
        client
    }

    pub(crate) fn come_again(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.ending().is_some()) {
            *client = Self::come(self.net);
        }
    }
}
