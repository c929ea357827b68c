//! Workers of the script that die, hang, babble and are late: each client gets its own, in order.

use std::{collections::BTreeMap, time::Duration};

use nonforker::{
    Protocol, Server, Workers,
    codec::Lines,
    sim::{Client, Ending, Net, Rng},
};

use super::narrow;

/// Where the workers of the script are.
const WORKER: &str = "10.9.9.9:7";

/// What a client gets whose worker has ended.
const ERROR: &str = "error: the worker ended";

/// How many requests each client has.
const REQUESTS: usize = 12;

/// A server with as many workers and bounds as the seed says.
pub(super) fn server(rng: &Rng, protocol: Protocol) -> Server {
    let server = Server::new().limits(narrow(rng).max_connections(None).write_timeout(None));
    match Workers::at(WORKER, Lines::new()) {
        Ok(workers) => {
            let workers = workers
                .protocol(protocol)
                .count(rng.between(1, 3))
                .in_flight(rng.between(1, 5))
                .queue(rng.between(1, 20))
                .timeout(Some(Duration::from_secs(5)));
            server.workers(super::ADDRESS, Lines::new(), workers)
        }
        Err(_) => server,
    }
}

/// A worker of the script.
struct Actor {
    worker: Client,
    asked: Vec<u8>,
    /// It says nothing more.
    is_silent: bool,
    /// When it goes on.
    until: Duration,
    /// With the tagged protocol: whether each that it knows is still there.
    known: BTreeMap<u64, bool>,
}

impl Actor {
    const fn new(worker: Client) -> Self {
        Self {
            worker,
            asked: Vec::new(),
            is_silent: false,
            until: Duration::ZERO,
            known: BTreeMap::new(),
        }
    }

    /// The next line that has arrived.
    fn next(&mut self) -> Option<String> {
        self.asked.extend(self.worker.received());
        let end = self.asked.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.asked.drain(..=end).take(end).collect();
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// What happens to it now and then.
    fn fares(&mut self, net: &Net) {
        let rng = net.rng();
        match rng.below(60) {
            0 => self.worker.reset(),
            1 => {
                self.worker.send("half a li");
                self.worker.half_close();
            }
            2 => {}
            3 => self.worker.send("half a rep"),
            4..8 => {
                self.until = net.now() + Duration::from_millis(rng.below(4000));
                return;
            }
            _ => return,
        }
        self.is_silent = true;
    }

    fn may_speak(&self, net: &Net) -> bool {
        !self.is_silent && self.until <= net.now() && self.worker.ending().is_none()
    }

    /// Answers plainly what it was asked.
    fn answers(&mut self, net: &Net) {
        while self.may_speak(net)
            && let Some(line) = self.next()
        {
            self.worker.send(format!("{line}\n"));
            self.fares(net);
        }
    }

    /// Reads a tagged line, which has to have its place. Returns what was said, if anything was.
    fn reads(&mut self, line: &str) -> Option<(u64, String)> {
        let mut parts = line.splitn(3, ' ');
        let (what, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let id: u64 = id.parse().unwrap_or_default();
        let rest = parts.next().unwrap_or_default();
        if what == "open" {
            assert_eq!(self.known.insert(id, true), None, "an ID comes twice");
            return None;
        }
        assert_eq!(self.known.get(&id), Some(&true), "a line for nobody: {line}");
        if what == "data" {
            return Some((id, rest.to_owned()));
        }
        self.known.insert(id, false);
        if rest == "end" {
            self.worker.send(format!("close {id}\n"));
        }
        None
    }

    /// Answers those it knows, and says now and then what is none of its business.
    fn talks(&mut self, net: &Net) {
        while self.may_speak(net)
            && let Some(line) = self.next()
        {
            if let Some((id, text)) = self.reads(&line) {
                self.worker.send(format!("data {id} {text}\n"));
            }
            match net.rng().below(30) {
                0 => self.worker.send("I am no line\n"),
                1 => self.worker.send(format!("data {} no.1\n", 1000 + net.rng().below(1000))),
                _ => {}
            }
            self.fares(net);
        }
    }
}

/// Has workers of the script do what they do, until all `is_said`, for at most this number of turns.
fn play(
    net: &Net,
    turns: usize,
    mut act: impl FnMut(&mut Actor),
    mut is_said: impl FnMut() -> bool,
) -> Vec<Actor> {
    let listener = net.listen(WORKER);
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..turns {
        if is_said() {
            break;
        }
        actors.extend(std::iter::from_fn(|| listener.accepted()).map(Actor::new));
        actors.iter_mut().for_each(&mut act);
        net.wait(Duration::from_millis(100));
    }
    actors
}

/// The lines of a text, without one that was cut off at the end of a drain.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// Clients ask, and some leave; the others get a reply to each request, their own or the error.
pub(super) fn plain(net: &Net) {
    let rng = net.rng();
    let clients: Vec<Client> = (0..rng.between(1, 6)).map(|_| net.connect()).collect();
    let mut stay = vec![true; clients.len()];
    for nth in 0..REQUESTS {
        for (of, client) in clients.iter().enumerate() {
            client.send(format!("{of}.{nth}\n"));
            if rng.chance(10) {
                client.reset();
                stay[of] = false;
            }
        }
    }
    let drains = rng.chance(200);
    if drains {
        net.drain_in(Duration::from_millis(rng.below(10_000)));
    }
    let mut got = vec![Vec::new(); clients.len()];
    let is_said = || {
        clients.iter().zip(&mut got).for_each(|(client, got)| got.extend(client.received()));
        let count = |got: &Vec<u8>| got.iter().filter(|&&byte| byte == b'\n').count();
        got.iter().zip(&stay).all(|(got, stays)| !stays || count(got) == REQUESTS)
    };
    play(net, 1500, |actor| actor.answers(net), is_said);
    for (of, got) in got.iter().enumerate().filter(|&(of, _)| stay[of]) {
        let text = String::from_utf8_lossy(got);
        let lines: Vec<&str> = whole_lines(&text).collect();
        for (nth, line) in lines.iter().copied().enumerate() {
            let is_own = line == format!("{of}.{nth}") || line == ERROR;
            assert!(is_own, "the reply to {of}.{nth} is another one's");
        }
        assert!(drains || lines.len() == REQUESTS, "each request has a reply");
    }
}

/// Clients talk, and some leave; what they get is their own, and each worker reads of each client that it
/// comes and goes, once.
pub(super) fn tagged(net: &Net) {
    let rng = net.rng();
    let clients: Vec<Client> = (0..rng.between(1, 6)).map(|_| net.connect()).collect();
    for (of, client) in clients.iter().enumerate() {
        for nth in 0..REQUESTS {
            client.send(format!("{of}.{nth}\n"));
        }
        match rng.below(6) {
            0 => client.half_close(),
            1 => client.reset(),
            _ => {}
        }
    }
    net.drain_in(Duration::from_millis(rng.below(20_000)));
    let actors = play(net, 400, |actor| actor.talks(net), || false);
    for (of, client) in clients.iter().enumerate() {
        let text = client.received();
        let text = String::from_utf8_lossy(&text);
        for (next, line) in whole_lines(&text).enumerate() {
            assert_eq!(line, format!("{of}.{next}"), "what it gets is its own, and in order");
        }
    }
    let mut ids = Vec::new();
    for mut actor in actors {
        while let Some(line) = actor.next() {
            actor.reads(&line);
        }
        // A drain that takes too long, since no worker answers, cuts off.
        if !actor.is_silent && actor.worker.ending() == Some(Ending::Finished) {
            assert!(actor.known.values().all(|is_there| !is_there), "a close is missing");
        }
        ids.extend(actor.known.into_keys());
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "no ID is given to two workers");
}
