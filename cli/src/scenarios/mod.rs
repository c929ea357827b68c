//! What `nonforker sim` runs on the simulator of the library, for millions of seeds.
//!
//! Each scenario is a server whose limits differ from seed to seed, clients that behave as clients
//! do, and an oracle that knows what each of them may have received. They are examples, too, of how
//! to write one for a server of your own: they use nothing but the public API.
//!
//! The tests of the library and the fuzz targets include this file by its path. It is not in the
//! library, whose users have no use for it, and not in a crate of its own, which would have to be
//! published for the program's sake.

mod joined;
mod later;
#[cfg(feature = "tls")]
mod secured;
mod topics;
mod witness;
mod workers;

use std::{fmt::Write, time::Duration};

use nonforker::{
    Conn, Handler, Limits, Outcome, Protocol, Server,
    codec::{Delimited, Lines},
    sim::{Client, Ending, Failure, Faults, Net, Rng, Run, Simulation, Visit},
};

use self::{later::Later, witness::Witness};

const ADDRESS: &str = "127.0.0.1:1685";

/// A server, its clients, and what has to come of it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    name: &'static str,
    about: &'static str,
    simulation: fn() -> Simulation,
    script: fn(&Net),
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Scenario").field(&self.name).finish()
    }
}

impl Scenario {
    /// Every scenario.
    pub(crate) const ALL: [Self; 16 + cfg!(feature = "tls") as usize] = [
        Self {
            name: "echo",
            about: "each client that reads is answered, unless its connection breaks",
            simulation: || Simulation::varied(echo),
            script: |net| crowd(net, true),
        },
        Self {
            name: "breaks",
            about: "nobody gets what they did not ask for, even when connections break",
            simulation: || Simulation::varied(echo).faults(Faults::swarm),
            script: |net| crowd(net, false),
        },
        Self {
            name: "drain",
            about: "a drain at any moment cuts no reply in two",
            simulation: || Simulation::varied(echo),
            script: drain,
        },
        Self {
            name: "arrived",
            about: "requests that arrived before a drain are answered, those in the backlog too",
            simulation: || Simulation::new(plain_echo).faults(undelayed),
            script: arrived,
        },
        Self {
            name: "pipeline",
            about: "every request of a pipeline gets its reply, in order, across pauses",
            simulation: || Simulation::varied(pong),
            script: pipeline,
        },
        Self {
            name: "relay",
            about: "a broadcast reaches all, in one order; a client that never reads harms none",
            simulation: || Simulation::new(relay),
            script: talk,
        },
        Self {
            name: "joined",
            about: "each side of a relay gets a beginning of what the other sent, whatever breaks",
            simulation: || Simulation::varied(joined::server).faults(Faults::swarm),
            script: joined::script,
        },
        #[cfg(feature = "tls")]
        Self {
            name: "secured",
            about: "behind TLS, each gets a beginning of what was said to it, and all where its end was said",
            simulation: || Simulation::varied(secured::server).faults(Faults::swarm),
            script: secured::script,
        },
        Self {
            name: "callbacks",
            about: "callbacks come for each connection from open to closed, in order and once",
            simulation: || Simulation::varied(witness).faults(Faults::swarm),
            script: visits,
        },
        Self {
            name: "topics",
            about: "what is published is whole and in order, and what is missing was dropped and counted",
            simulation: || Simulation::varied(topics::board),
            script: topics::publish,
        },
        Self {
            name: "later",
            about: "what is answered later, by threads, timers or mail, is answered once, in order",
            simulation: || Simulation::varied(|rng| Later::server(rng, narrow(rng), false)),
            script: |net| crowd(net, true),
        },
        Self {
            name: "tickets",
            about: "tickets that are dropped, forgotten or too late harm nobody else, in a drain too",
            simulation: || {
                Simulation::varied(|rng| Later::server(rng, narrow(rng), true))
                    .faults(Faults::swarm)
            },
            script: tickets,
        },
        Self {
            name: "shards",
            about: "on several shards too, each request is answered once and in order, as limits allow",
            simulation: || {
                Simulation::varied(|rng| Later::server(rng, narrow(rng), false)).shards(3)
            },
            script: |net| crowd(net, true),
        },
        Self {
            name: "everywhere",
            about: "what one shard publishes reaches the subscribers of all, whole and in order",
            simulation: || Simulation::varied(topics::board).shards(3),
            script: topics::publish,
        },
        Self {
            name: "workers",
            about: "whatever workers do, each request has its own reply or the error, in order",
            simulation: || Simulation::varied(|rng| workers::server(rng, Protocol::Plain)),
            script: workers::plain,
        },
        Self {
            name: "tagged",
            about: "a worker reads of each client that it comes and goes, and each gets its own",
            simulation: || Simulation::varied(|rng| workers::server(rng, Protocol::Tagged)),
            script: workers::tagged,
        },
        Self {
            name: "crew",
            about: "the same with the clients on three shards, and the workers on one",
            simulation: || {
                Simulation::varied(|rng| workers::server(rng, Protocol::Tagged)).shards(3)
            },
            script: workers::tagged,
        },
    ];

    /// Its name, a word.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// What it tests, in a sentence.
    #[must_use]
    pub(crate) const fn about(&self) -> &'static str {
        self.about
    }

    /// Runs one seed.
    ///
    /// # Errors
    ///
    /// [`Failure`] if something was not as it has to be. The panic hook has been called.
    pub(crate) fn run_one(&self, seed: u64) -> Result<Run, Failure> {
        (self.simulation)().run_one(seed, self.script)
    }

    /// Finds the fewest faults with which a seed still fails.
    #[must_use]
    pub(crate) fn minimise(&self, failure: Failure) -> Failure {
        (self.simulation)().minimise(failure, self.script)
    }
}

/// Limits that make every corner near: tiny watermarks and turns, few slots.
fn narrow(rng: &Rng) -> Limits {
    let high = rng.magnitude(1 << 17);
    let limits = Limits::new()
        .high_watermark(high)
        .low_watermark(rng.between(0, high))
        .read_per_turn(1 + rng.magnitude(1 << 16))
        .frames_per_turn(1 + rng.magnitude(1 << 10))
        // A simulated network may be slower than any real one.
        .frame_timeout(None)
        .unused_timeout(None);
    if rng.chance(300) { limits.max_connections(Some(rng.between(1, 6))) } else { limits }
}

/// The same for a server with a relay, which needs two places.
fn narrow_for_relays(rng: &Rng) -> Limits {
    let places = rng.chance(300).then(|| rng.between(2, 6));
    narrow(rng).max_connections(places).write_timeout(None)
}

/// Lines of all lengths, most of them short.
fn line(rng: &Rng) -> Vec<u8> {
    let length = rng.magnitude(if rng.chance(50) { 1 << 14 } else { 1 << 9 });
    (b'a'..=b'z').cycle().take(length).chain([b'\n']).collect()
}

fn plain_echo() -> Server {
    Server::new().serve(ADDRESS, Lines::new(), |conn, line| conn.send(line))
}

fn echo(rng: &Rng) -> Server {
    plain_echo().limits(narrow(rng))
}

fn crowd(net: &Net, lossless: bool) {
    let clients = net.rng().between(1, 12);
    for visit in net.crowd(clients, line) {
        is_echoed(&visit, lossless);
    }
}

/// What holds for every client, and for those that are to be answered.
fn is_echoed(visit: &Visit, lossless: bool) {
    let (sent, manner) = (visit.requests.concat(), visit.manner);
    assert!(sent.starts_with(&visit.received), "{manner:?} got what it did not send");
    if lossless && manner.is_answered() {
        assert_eq!(visit.received.len(), sent.len(), "{manner:?} is answered");
        assert_eq!(visit.ending, Some(Ending::Finished), "{manner:?} sees the end");
    }
}

/// Echoes that may not come, while strangers post.
fn tickets(net: &Net) {
    let micros = net.rng().below(1 << 22);
    net.drain_in(Duration::from_micros(micros));
    // What is posted to a server that has ended comes to nothing.
    let _ = net.post::<Later>(|_, all| all.for_each(|other| other.pause()));
    let _ = net.post::<Later>(|_, all| all.for_each(|other| other.resume()));
    crowd(net, false);
}

fn drain(net: &Net) {
    let micros = net.rng().below(1 << 20);
    net.drain_in(Duration::from_micros(micros));
    let clients = net.rng().between(1, 12);
    for visit in net.crowd(clients, line) {
        is_echoed(&visit, false);
        if visit.manner.is_answered() && visit.ending == Some(Ending::Finished) {
            let last = visit.received.last();
            assert!(matches!(last, None | Some(b'\n')), "a reply is cut in two");
        }
    }
}

/// Bytes in pieces, but at once.
fn undelayed(rng: &Rng) -> Faults {
    let Faults { short_read, short_write, fragment, .. } = Faults::lossless(rng);
    Faults { short_read, short_write, fragment, ..Faults::none() }
}

fn arrived(net: &Net) {
    let count = net.rng().between(1, 40);
    let clients: Vec<Client> = (0..count).map(|_| net.connect()).collect();
    for (index, client) in clients.iter().enumerate() {
        client.send(format!("one {index}\ntwo {index}\nincomplete"));
    }
    // Nobody has been accepted yet.
    net.drain();
    for (index, client) in clients.iter().enumerate() {
        client.expect(format!("one {index}\ntwo {index}\n"));
        client.expect_end();
    }
}

/// Answers a request with itself and how many requests the connection has made. Every seventh
/// pauses the connection for a moment.
struct Pong;

impl Handler for Pong {
    type Codec = Delimited;
    type Session = u64;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, frame: &[u8]) -> Outcome {
        *conn.session_mut() += 1;
        let reply = format!("{} {}", std::str::from_utf8(frame)?, conn.session());
        conn.send(reply);
        if conn.session().is_multiple_of(7) {
            conn.pause();
            conn.after(Duration::from_millis(3), Self::timer)?;
        }
        Ok(())
    }
}

impl Pong {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.resume();
        Ok(())
    }
}

fn pong(rng: &Rng) -> Server {
    let codec = Delimited::new("\r\n").expect("the delimiter is not empty");
    Server::new().limits(narrow(rng)).serve_with(ADDRESS, codec, Pong)
}

fn pipeline(net: &Net) {
    let (mut requests, mut replies) = (String::new(), String::new());
    let count = net.rng().between(1, 60);
    for index in 1..=count {
        let number = net.rng().next();
        // Writing to a string does not fail.
        let _ = write!(requests, "{number}\r\n");
        let _ = write!(replies, "{number} {index}\r\n");
    }
    let client = net.connect();
    client.send(requests);
    client.half_close();
    let (received, ending) = client.receive_to_end();
    assert_eq!(String::from_utf8_lossy(&received), replies);
    assert_eq!(ending, Some(Ending::Finished));
}

/// Says every line to everybody.
struct Relay;

impl Handler for Relay {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("welcome");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        conn.others().for_each(|other| other.send(line));
        Ok(())
    }
}

fn relay() -> Server {
    let limits = Limits::new().high_watermark(2000).low_watermark(500).output_cap(200_000);
    Server::new().limits(limits).serve_with(ADDRESS, Lines::new(), Relay)
}

fn talk(net: &Net) {
    let deaf = net.connect();
    let members: Vec<Client> = (0..net.rng().between(1, 5)).map(|_| net.connect()).collect();
    for client in members.iter().chain([&deaf]) {
        // A link that takes four bytes a second would be closed for being deaf, too.
        client.set_window(10_000);
        client.expect("welcome\n");
    }
    deaf.stall();
    let mut said = Vec::new();
    for round in 0..net.rng().between(1, 20) {
        for (index, member) in members.iter().enumerate() {
            let mut text = format!("{round} {index} ").into_bytes();
            text.extend(line(&net.rng()));
            member.send(&text);
            said.push(text);
        }
        let pause = net.rng().below(1_000_000);
        net.wait(Duration::from_micros(pause));
    }
    for member in &members {
        member.half_close();
    }
    net.wait(Duration::from_secs(600));
    let heard: Vec<Vec<u8>> = members.iter().map(Client::received).collect();
    // A client that has finished sending is closed and gets no more: what each got is a start of one
    // and the same talk.
    let longest = heard.iter().max_by_key(|heard| heard.len()).expect("there are members");
    assert!(heard.iter().all(|heard| longest.starts_with(heard)), "they heard different things");
    let mut lines: Vec<&[u8]> = longest.split_inclusive(|&byte| byte == b'\n').collect();
    lines.sort_unstable();
    said.sort_unstable();
    assert!(lines.is_sorted_by(|one, next| one < next), "something was said twice");
    assert!(
        lines.iter().all(|line| said.binary_search_by(|text| text[..].cmp(line)).is_ok()),
        "something was heard that nobody had said"
    );
}

fn witness(rng: &Rng) -> Server {
    Server::new().limits(narrow(rng)).serve_with(ADDRESS, Lines::new(), Witness::default())
}

fn visits(net: &Net) {
    let micros = net.rng().below(1 << 22);
    net.drain_in(Duration::from_micros(micros));
    let clients = net.rng().between(1, 12);
    for Visit { requests, received, .. } in net.crowd(clients, line) {
        assert!(received.len() <= requests.concat().len(), "more came back than was sent");
    }
}
