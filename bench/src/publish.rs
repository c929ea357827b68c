//! What it costs to deliver a message to many: each subscriber's share of the server's CPU time.
//!
//! ```text
//!  publisher ── message ──▶ server ──▶ every subscriber; all have it before the next one is sent
//! ```
//!
//! Subscribers may be *stuck*: they never read. Nobody else may lose a message through them.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use nonforker::sim::Rng;
use nonforker_load::Process;

use crate::{
    args::PublishArgs,
    compare::shuffle,
    peers::{self, Job, Kind},
    prepare::Workshop,
    process::{Result, Stop, now, pause, say},
    results::median,
    server::{Server, connect},
};

/// How long a message may take to a subscriber.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a server is spoken to with. The topic is `t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// A line goes to all, its sender too.
    Lines,
    Redis,
    Nats,
}

impl Talk {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::RedisServer => Self::Redis,
            Kind::NatsServer => Self::Nats,
            _ => Self::Lines,
        }
    }

    /// Subscribes, and waits until that is confirmed.
    fn subscribe(self, stream: &mut TcpStream) -> std::io::Result<()> {
        match self {
            Self::Lines => Ok(()),
            Self::Redis => {
                stream.write_all(b"SUBSCRIBE t\r\n")?;
                expect(stream, b"*3\r\n$9\r\nsubscribe\r\n$1\r\nt\r\n:1\r\n")
            }
            Self::Nats => self.greet(stream, b"SUB t 1\r\n"),
        }
    }

    /// Begins a connection that publishes.
    fn begin(self, stream: &mut TcpStream) -> std::io::Result<()> {
        if self == Self::Nats { self.greet(stream, b"") } else { Ok(()) }
    }

    fn greet(self, stream: &mut TcpStream, more: &[u8]) -> std::io::Result<()> {
        let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
        stream.write_all(&[hello, more, b"PING\r\n"].concat())?;
        let mut heard = Vec::new();
        while !heard.ends_with(b"PONG\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            heard.push(byte[0]);
        }
        Ok(())
    }

    /// Reads what is due, and answers a server that asks in between whether we are still there.
    fn expect(self, stream: &mut TcpStream, expected: &[u8]) -> std::io::Result<()> {
        const PING: &[u8] = b"PING\r\n";
        if self != Self::Nats || expected.len() < PING.len() {
            return expect(stream, expected);
        }
        let mut begin = [0; PING.len()];
        loop {
            stream.read_exact(&mut begin)?;
            if begin != PING {
                break;
            }
            stream.write_all(b"PONG\r\n")?;
        }
        let (first, rest) = expected.split_at(PING.len());
        match begin == first {
            true => expect(stream, rest),
            false => Err(std::io::Error::new(ErrorKind::InvalidData, "not what is due")),
        }
    }

    /// A message of `size` bytes: what is sent, what each subscriber gets, what the publisher gets.
    fn message(self, number: u64, size: usize, subscribers: usize) -> [Vec<u8>; 3] {
        let mut payload = format!("{number:08}").into_bytes();
        payload.resize(size.max(9), b'x');
        match self {
            Self::Lines => {
                payload.pop();
                payload.push(b'\n');
                [payload.clone(), payload.clone(), payload]
            }
            Self::Redis => {
                let bulk = [format!("${size}\r\n").as_bytes(), &payload, b"\r\n"].concat();
                [
                    [&b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nt\r\n"[..], &bulk].concat(),
                    [&b"*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n"[..], &bulk].concat(),
                    format!(":{subscribers}\r\n").into_bytes(),
                ]
            }
            Self::Nats => {
                let body = [format!("{size}\r\n").as_bytes(), &payload, b"\r\n"].concat();
                [[b"PUB t ", &body[..]].concat(), [b"MSG t 1 ", &body[..]].concat(), Vec::new()]
            }
        }
    }
}

fn expect(stream: &mut TcpStream, expected: &[u8]) -> std::io::Result<()> {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard)?;
    if heard == expected {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&heard[..heard.len().min(60)]).into_owned();
    Err(std::io::Error::new(ErrorKind::InvalidData, format!("not what is due: {shown:?}")))
}

/// A server, all its subscribers, and its publisher.
struct Room {
    server: Server,
    talk: Talk,
    readers: Vec<TcpStream>,
    /// They are kept, and never read from.
    stuck: Vec<TcpStream>,
    publisher: TcpStream,
    published: u64,
}

/// What came of a round.
struct Round {
    /// µs of the server's CPU time for each delivery.
    cpu: f64,
    /// Messages per second.
    rate: f64,
    /// Resident bytes of the server at its end.
    rss: u64,
}

impl Room {
    fn fill(server: Server, talk: Talk, args: &PublishArgs) -> std::io::Result<Self> {
        let (mut readers, mut stuck) = (Vec::new(), Vec::new());
        for nth in 0..args.subscribers + args.stuck {
            let mut stream = connect(server.address, TIMEOUT)?;
            talk.subscribe(&mut stream)?;
            if nth < args.subscribers { readers.push(stream) } else { stuck.push(stream) }
        }
        let mut publisher = connect(server.address, TIMEOUT)?;
        talk.begin(&mut publisher)?;
        let mut room = Self { server, talk, readers, stuck, publisher, published: 0 };
        // The last of them may still be waiting to be accepted.
        pause(Duration::from_millis(200));
        room.publish(64)?;
        Ok(room)
    }

    /// One message, from the publisher to all that read.
    fn publish(&mut self, size: usize) -> std::io::Result<()> {
        self.published += 1;
        let all = self.readers.len() + self.stuck.len();
        let [message, delivery, answer] = self.talk.message(self.published, size, all);
        self.publisher.write_all(&message)?;
        for reader in &mut self.readers {
            self.talk.expect(reader, &delivery)?;
        }
        // How many subscribers there are changes when a server disconnects one that is stuck.
        if self.talk == Talk::Redis && !self.stuck.is_empty() {
            let mut byte = [0];
            while byte != *b"\n" {
                self.publisher.read_exact(&mut byte)?;
            }
            return Ok(());
        }
        self.talk.expect(&mut self.publisher, &answer)
    }

    fn measure(&mut self, size: usize, args: &PublishArgs, stop: &Stop) -> Result<Round> {
        let text = |error: std::io::Error| error.to_string();
        let process = Process::find(self.server.pid()).map_err(|error| error.to_string())?;
        self.publish(size).map_err(text)?;
        let (before, begun, first) = (process.snapshot().map_err(text)?, now(), self.published);
        while begun.elapsed() < args.duration {
            self.publish(size).map_err(text)?;
            stop.check()?;
            if let Some(rate) = args.rate {
                let due = Duration::from_secs_f64((self.published - first) as f64 / rate);
                pause(due.saturating_sub(begun.elapsed()));
            }
        }
        let messages = (self.published - first) as f64;
        let rate = messages / begun.elapsed().as_secs_f64();
        let used = process.since(&before).ok_or("the server has ended")?;
        let cpu = used.cpu.as_secs_f64() * 1e6 / messages / self.readers.len() as f64;
        Ok(Round { cpu, rate, rss: used.rss_after })
    }
}

/// Runs `bench publish`.
pub(crate) fn publish(args: &PublishArgs, stop: &Stop) -> Result<()> {
    // What we start inherits it.
    nonforker::raise_descriptor_limit().map_err(|error| error.to_string())?;
    let workshop = Workshop::new(stop);
    workshop.tool("taskset", "util-linux")?;
    let peers = peers::chosen(&args.peers, &[Job::Broadcast, Job::Publish])?;
    let (ready, _) = workshop.prepare_all(&peers)?;
    let mut rooms = Vec::new();
    for ready in &ready {
        let server = Server::start(ready, Some(args.server_core), &[], stop)?;
        match Room::fill(server, Talk::of(ready.peer.kind), args) {
            Ok(room) => rooms.push(room),
            Err(why) => say(format_args!("skipped: {}: {why}", ready.peer.name)),
        }
    }
    let rng = Rng::new(1);
    for &size in &args.sizes {
        let mut rounds: BTreeMap<usize, Vec<Round>> = BTreeMap::new();
        for round in 0..usize::from(args.rounds) {
            let mut turn: Vec<usize> = (0..rooms.len()).collect();
            shuffle(&rng, &mut turn);
            for nth in turn {
                let room = &mut rooms[nth];
                let name = room.server.name;
                let done =
                    room.measure(size, args, stop).map_err(|why| format!("{name}: {why}"))?;
                say(format_args!(
                    "{size} B {}/{} {name}: {:.3} µs per delivery, {:.0} messages/s, {} KiB",
                    round + 1,
                    args.rounds,
                    done.cpu,
                    done.rate,
                    done.rss / 1024
                ));
                rounds.entry(nth).or_default().push(done);
            }
        }
        print(size, args, &rooms, &rounds);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn print(size: usize, args: &PublishArgs, rooms: &[Room], rounds: &BTreeMap<usize, Vec<Round>>) {
    println!(
        "\n| {size} B to {}, {} stuck | CPU µs per delivery | ÷ {} | messages/s | RSS, first to \
         last round, MiB |\n|---|--:|--:|--:|--:|",
        args.subscribers,
        args.stuck,
        rooms.first().map_or("", |room| room.server.name)
    );
    let Some(reference) = rounds.get(&0) else { return };
    for (nth, of_one) in rounds {
        let middle = |values: Vec<f64>| median(values).unwrap_or(f64::NAN);
        let ratios = of_one.iter().zip(reference).map(|(one, other)| one.cpu / other.cpu).collect();
        let mib = |round: Option<&Round>| round.map_or(0.0, |round| round.rss as f64 / 1048576.0);
        println!(
            "| {} | {:.3} | {:.2} | {:.0} | {:.1} to {:.1} |",
            rooms[*nth].server.name,
            middle(of_one.iter().map(|round| round.cpu).collect()),
            middle(ratios),
            middle(of_one.iter().map(|round| round.rate).collect()),
            mib(of_one.first()),
            mib(of_one.last()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_in_every_protocol() {
        for talk in [Talk::Lines, Talk::Redis, Talk::Nats] {
            for size in [64, 4096] {
                let [sent, delivered, _] = talk.message(7, size, 5);
                for bytes in [sent, delivered] {
                    assert!(bytes.len() >= size && bytes.len() < size + 60, "{talk:?} {size}");
                    assert!(bytes.windows(8).any(|part| part == b"00000007"), "{talk:?}");
                }
            }
        }
        let [_, delivered, answer] = Talk::Redis.message(7, 9, 5);
        assert_eq!(delivered, b"*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$9\r\n00000007x\r\n");
        assert_eq!(answer, b":5\r\n");
    }
}
