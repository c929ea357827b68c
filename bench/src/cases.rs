//! What is measured: the scenarios, by name, and the load that each means.

use nonforker::Address;
use nonforker_load::{Load, Mode};

use crate::peers::Job;

/// The idle connections: a server and the load have 20,000 descriptors at most on many machines.
pub(crate) const IDLE: usize = 9_900;

/// Connections that begin and end.
const CONNECTS: usize = 2_000;

/// A thing to measure, with a table of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whether it is done over TLS.
    pub(crate) is_encrypted: bool,
}

impl Case {
    /// The servers that can be measured with it.
    pub(crate) fn job(&self) -> Job {
        if self.is_encrypted { Job::Tls } else { self.kind.job() }
    }

    /// The load, but for time and rate. That of `redis-benchmark` is none of ours.
    pub(crate) fn load(&self, server: Address) -> Load {
        let load = self.kind.load(server).tls(self.is_encrypted);
        match self.kind {
            // Each of ours takes 15 KB, and a handshake.
            Kind::Idle(_) if self.is_encrypted => load.connections(IDLE / 5),
            _ => load,
        }
    }
}

/// What kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A closed loop: connections, in flight on each, bytes.
    Closed(usize, usize, usize),
    /// An open loop at half of what raw epoll can do with 64 connections.
    HalfRate,
    /// Memory of idle connections that have exchanged a line of this size, if any.
    Idle(Option<usize>),
    /// 64 normal connections, with and without one that never reads.
    NeverReading,
    /// 64 normal connections, beside 4 with 2048 in flight.
    Flooding,
    /// One line of 64 bytes to this many.
    Broadcast(usize),
    /// A closed loop whose lines the pool answers.
    Offload(usize, usize, usize),
    /// A closed loop whose lines another thread answers.
    Ticket(usize, usize, usize),
    /// Connections that begin, exchange a line of 64 bytes, and end.
    Connects,
    /// `redis-benchmark`: a command, and how many in flight on each of 64 connections.
    Redis(&'static str, usize),
}

/// What scenarios there are, what each means, and whether it is measured if nothing is said.
pub(crate) const SCENARIOS: &[(&str, &str)] = &[
    ("CxPxS", "closed loop: connections x in flight x bytes, such as 64x16x64"),
    ("half-rate", "open loop at half of raw epoll's peak, 64 connections"),
    ("idle", "memory per idle connection: fresh, after 64 bytes, after 16 KiB"),
    ("never-reading", "64 connections, with and without one more that never reads"),
    ("flooding", "64 connections beside 4 with 2048 in flight"),
    ("broadcast", "one line to 5000 connections; broadcastN for another number"),
    ("offload:CxPxS", "closed loop, each line answered by the pool for what blocks"),
    ("ticket:CxPxS", "closed loop, each line answered by one other thread"),
    ("connects", "begin, one line of 64 bytes, end: what that costs the server"),
    ("tls:SCENARIO", "over TLS: CxPxS, idle or connects, such as tls:64x1x64"),
    ("redis", "ping, set and get with 1, 16 and 128 in flight, beside redis-server"),
];

/// What is measured if nothing is said.
pub(crate) const DEFAULT: &[&str] = &[
    "1x1x64",
    "64x1x64",
    "512x1x64",
    "64x16x64",
    "64x128x64",
    "64x1x16384",
    "10000x1x64",
    "half-rate",
    "idle",
    "never-reading",
    "flooding",
    "broadcast",
    "offload:1x1x64",
    "offload:64x1x64",
    "ticket:64x1x64",
    "ticket:64x16x64",
    "redis",
];

/// The commands of Redis that are measured.
const COMMANDS: [&str; 3] = ["ping", "set", "get"];

impl Kind {
    fn job(self) -> Job {
        match self {
            Self::Broadcast(_) => Job::Broadcast,
            Self::Redis(..) => Job::Redis,
            Self::Offload(..) => Job::Offload,
            Self::Ticket(..) => Job::Ticket,
            _ => Job::Echo,
        }
    }

    /// Whether each server has to be a fresh one.
    pub(crate) fn wants_fresh_servers(self) -> bool {
        matches!(self, Self::Idle(_) | Self::NeverReading)
    }

    fn load(self, server: Address) -> Load {
        let load = Load::new(server).connections(64).size(64);
        match self {
            Self::Closed(connections, in_flight, size)
            | Self::Offload(connections, in_flight, size)
            | Self::Ticket(connections, in_flight, size) => {
                load.connections(connections).in_flight(in_flight).size(size)
            }
            Self::HalfRate | Self::NeverReading | Self::Redis(..) => load,
            Self::Idle(None) => load.mode(Mode::Idle).connections(IDLE),
            Self::Idle(Some(size)) => {
                load.mode(Mode::Idle).connections(IDLE).exchange(1).size(size)
            }
            Self::Connects => load.mode(Mode::Idle).connections(CONNECTS).exchange(1),
            Self::Flooding => load.flooding(4).flood_in_flight(2048),
            Self::Broadcast(count) => load.mode(Mode::Broadcast).connections(count),
        }
    }
}

/// The cases of these scenarios; of all, if none is named.
pub(crate) fn cases(names: &[String]) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let defaults = || DEFAULT.iter().map(ToString::to_string).collect();
    let names: Vec<String> = if names.is_empty() { defaults() } else { names.to_vec() };
    for name in names {
        let (is_encrypted, what) = match name.strip_prefix("tls:") {
            Some(what) => (true, what),
            None => (false, name.as_str()),
        };
        let one = |kind| vec![Case { name: name.clone(), kind, is_encrypted }];
        let before = cases.len();
        cases.extend(match what {
            "half-rate" => one(Kind::HalfRate),
            "never-reading" => one(Kind::NeverReading),
            "flooding" => one(Kind::Flooding),
            "broadcast" => one(Kind::Broadcast(5000)),
            "idle" => [("fresh", None), ("64", Some(64)), ("16384", Some(16384))]
                .map(|(when, size)| Case {
                    name: format!("{name}-{when}"),
                    kind: Kind::Idle(size),
                    is_encrypted,
                })
                .into(),
            "connects" => one(Kind::Connects),
            "redis" => redis(),
            other => match other.strip_prefix("broadcast").and_then(|count| count.parse().ok()) {
                Some(count) => one(Kind::Broadcast(count)),
                None => one(closed(other)?),
            },
        });
        let is_for_tls = |kind| matches!(kind, Kind::Closed(..) | Kind::Idle(_) | Kind::Connects);
        if is_encrypted && !cases[before..].iter().all(|case| is_for_tls(case.kind)) {
            return Err(format!("there is no scenario {name:?}: not all are there over TLS"));
        }
    }
    Ok(cases)
}

fn redis() -> Vec<Case> {
    let mut cases = Vec::new();
    for in_flight in [1, 16, 128] {
        for command in COMMANDS {
            let kind = Kind::Redis(command, in_flight);
            let name = format!("redis-{command}-{in_flight}");
            cases.push(Case { name, kind, is_encrypted: false });
        }
    }
    cases
}

/// `64x16x64`, or the same behind the name of a job and a colon.
fn closed(text: &str) -> Result<Kind, String> {
    let (kind, shape): (fn(usize, usize, usize) -> Kind, _) = match text.split_once(':') {
        Some(("offload", shape)) => (Kind::Offload, shape),
        Some(("ticket", shape)) => (Kind::Ticket, shape),
        _ => (Kind::Closed, text),
    };
    let numbers: Option<Vec<usize>> = shape.split('x').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[connections, in_flight, size]) if connections > 0 && in_flight > 0 && size >= 8 => {
            Ok(kind(connections, in_flight, size))
        }
        _ => {
            let known: Vec<&str> = SCENARIOS.iter().map(|&(name, _)| name).collect();
            Err(format!("there is no scenario {text:?}; there are {}", known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_cases() {
        #[rustfmt::skip]
        let table: &[(&str, &[(&str, Kind)])] = &[
            ("1x1x64",        &[("1x1x64", Kind::Closed(1, 1, 64))]),
            ("64x1x16384",    &[("64x1x16384", Kind::Closed(64, 1, 16384))]),
            ("ticket:9x2x64", &[("ticket:9x2x64", Kind::Ticket(9, 2, 64))]),
            ("half-rate",     &[("half-rate", Kind::HalfRate)]),
            ("broadcast",     &[("broadcast", Kind::Broadcast(5000))]),
            ("broadcast100",  &[("broadcast100", Kind::Broadcast(100))]),
            ("idle",          &[("idle-fresh", Kind::Idle(None)), ("idle-64", Kind::Idle(Some(64))),
                                ("idle-16384", Kind::Idle(Some(16384)))]),
        ];
        for (name, expected) in table {
            let cases = cases(&[name.to_string()]).unwrap();
            let cases: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.kind)).collect();
            assert_eq!(cases, *expected, "{name}");
        }
    }

    #[test]
    fn every_load_is_within_the_bounds() {
        for case in cases(&[]).unwrap() {
            let load = case.load("127.0.0.1:1".parse().unwrap());
            assert!(load.check().is_ok(), "{}: {load:?}", case.name);
        }
    }

    #[test]
    fn what_is_no_scenario_is_refused() {
        for name in [
            "64",
            "64x1",
            "0x1x64",
            "64x0x64",
            "64x1x2",
            "64x1x64x1",
            "tick:1x1x64",
            "tls:redis",
            "tls:flooding",
            "idles",
            "",
        ] {
            let error = cases(&[name.to_string()]).unwrap_err();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn whatever_is_measured_by_default_is_a_scenario_and_has_a_name_of_its_own() {
        let cases = cases(&[]).unwrap();
        assert_eq!(cases.len(), DEFAULT.len() + 2 + 8, "idle is three, redis is nine");
        for (at, case) in cases.iter().enumerate() {
            assert!(!cases[at + 1..].iter().any(|other| other.name == case.name), "{}", case.name);
        }
    }
}
