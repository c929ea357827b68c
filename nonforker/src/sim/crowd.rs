//! Clients that behave as clients do: most of them well.

use std::time::Duration;

use super::{
    client::{Client, Ending},
    net::Net,
};
use crate::driver::sim::rng::Rng;

/// How a client of a [crowd](Net::crowd) behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Manner {
    /// Sends its requests in pieces and at its own pace, reads what comes, finishes.
    Honest,
    /// As honest, and sends urgent bytes in between.
    Urgent,
    /// As honest, and reads slowly, but steadily.
    Slow,
    /// As honest, and sends everything at once.
    Floods,
    /// Never reads.
    Stalls,
    /// Resets the connection at some time.
    Resets,
    /// Finishes in the middle of a request.
    CutsOff,
}

impl Manner {
    const ALL: [Self; 7] = [
        Self::Honest,
        Self::Urgent,
        Self::Slow,
        Self::Floods,
        Self::Stalls,
        Self::Resets,
        Self::CutsOff,
    ];

    fn draw(rng: &Rng) -> Self {
        Self::ALL[rng.between(0, Self::ALL.len() - 1)]
    }

    /// Whether such a client gets every reply, unless the network breaks or the server drains.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Honest | Self::Urgent | Self::Slow | Self::Floods)
    }
}

/// What one client of a [crowd](Net::crowd) did and got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visit {
    /// How it behaved.
    pub manner: Manner,
    /// The requests that it sent completely.
    pub requests: Vec<Vec<u8>>,
    /// What it received.
    pub received: Vec<u8>,
    /// How its connection ended, if it has.
    pub ending: Option<Ending>,
}

/// A client that still has something to do.
struct Visitor {
    client: Client,
    visit: Visit,
    left: usize,
    /// The rest of a request that was sent in part.
    rest: Vec<u8>,
}

impl Net {
    /// Sends `clients` random clients to the server's first address, each with requests from
    /// `request`, and waits until all of them are done or stuck.
    ///
    /// What each may have received is for the caller to say: see the example.
    ///
    /// # Examples
    ///
    /// An echo server gives every client that reads what that client sent, and nothing else:
    ///
    /// ```
    /// # use nonforker::{Server, codec::Lines, sim::Simulation};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// Simulation::new(server).run(|net| {
    ///     for visit in net.crowd(5, |rng| format!("{:x}\n", rng.next()).into_bytes()) {
    ///         let sent = visit.requests.concat();
    ///         assert!(sent.starts_with(&visit.received), "{visit:?}");
    ///         assert!(!visit.manner.is_answered() || sent == visit.received, "{visit:?}");
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn crowd(&self, clients: usize, request: impl Fn(&Rng) -> Vec<u8>) -> Vec<Visit> {
        let mut visitors = Vec::new();
        let mut left = clients;
        while left > 0 || visitors.iter().any(|visitor: &Visitor| visitor.left > 0) {
            let index = self.rng().between(0, clients - 1);
            match visitors.get_mut(index) {
                Some(visitor) => visitor.act(self, &request),
                None => {
                    visitors.push(Visitor::new(self));
                    left -= 1;
                }
            }
            // Some things happen at one moment, some long after each other.
            if self.rng().chance(300) {
                let exponent = self.rng().between(0, 20);
                let micros = self.rng().below(1 << exponent);
                self.wait(Duration::from_micros(micros));
            }
        }
        visitors.into_iter().map(Visitor::leave).collect()
    }
}

impl Visitor {
    fn new(net: &Net) -> Self {
        let client = net.connect();
        let rng = net.rng();
        let manner = Manner::draw(&rng);
        let left = 1 + rng.between(0, 10);
        let (bytes, micros) = (rng.between(1, 500), rng.below(100_000));
        match manner {
            Manner::Slow => client.read_slowly(bytes, Duration::from_micros(micros)),
            Manner::Stalls => client.stall(),
            _ => {}
        }
        let visit = Visit { manner, requests: Vec::new(), received: Vec::new(), ending: None };
        Self { client, visit, left, rest: Vec::new() }
    }

    /// Does the next thing.
    fn act(&mut self, net: &Net, request: &impl Fn(&Rng) -> Vec<u8>) {
        if self.left == 0 {
            return;
        }
        let rng = net.rng();
        match self.visit.manner {
            Manner::Urgent if rng.chance(200) => return self.client.send_urgent(b'!'),
            Manner::Resets if rng.chance(100) => {
                self.left = 0;
                return self.client.reset();
            }
            Manner::Floods => {
                while self.left > 0 {
                    self.send_request(&rng, request);
                }
                return self.client.half_close();
            }
            _ => {}
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.client.send(&rest);
            self.left -= 1;
        } else if rng.chance(300) {
            self.send_start(&rng, request);
        } else {
            self.send_request(&rng, request);
        }
        if self.left == 0 {
            self.client.half_close();
        }
    }

    fn send_request(&mut self, rng: &Rng, request: &impl Fn(&Rng) -> Vec<u8>) {
        let request = request(rng);
        self.client.send(&request);
        self.visit.requests.push(request);
        self.left -= 1;
    }

    /// Sends the start of a request. The rest follows, or not.
    fn send_start(&mut self, rng: &Rng, request: &impl Fn(&Rng) -> Vec<u8>) {
        let request = request(rng);
        let (start, rest) = request.split_at(rng.between(0, request.len().saturating_sub(1)));
        self.client.send(start);
        if self.visit.manner == Manner::CutsOff {
            self.left = 0;
        } else {
            self.rest = rest.to_vec();
            self.visit.requests.push(request);
        }
    }

    /// Waits until the server is done with it, or never will be.
    fn leave(mut self) -> Visit {
        let (received, ending) = self.client.receive_to_end();
        self.visit.received = received;
        self.visit.ending = ending;
        self.visit
    }
}
