//! The servers that are compared: what each is called, and what it is made of.
//!
//! All do the same job: lines of up to 64 KiB, each sent back (or, of a broadcast, to all), correct
//! with partial reads and writes, one write per batch of lines where that can be had.

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Each line back to its sender.
    Echo,
    /// Each line to all.
    Broadcast,
    /// A store for the clients of Redis.
    Redis,
    /// A timer that is set again at each tick: see [`ticks`](crate::ticks).
    Ticks,
    /// Each line back to its sender, by a call of the pool for what blocks.
    Offload,
    /// Each line back to its sender, by one other thread that answers all of them.
    Ticket,
    /// Each line back to its sender, over TLS.
    Tls,
    /// Each message to all who have subscribed: see [`publish`](crate::publish).
    Publish,
}

/// What a server is made of. Paths are relative to `bench/peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A C file; the libraries it needs, and the Debian package that has them.
    C(&'static str, Libraries),
    /// A folder with a cargo package, a program of it, and what follows the port.
    Rust(&'static str, &'static str, &'static [&'static str]),
    /// The release program itself, with this driver.
    Nonforker(&'static str),
    /// A Go file.
    Go(&'static str),
    /// A JavaScript file.
    Node(&'static str),
    /// A Python file, and the packages it needs.
    Python(&'static str, &'static str),
    /// A Perl file.
    Perl(&'static str),
    /// Debian's redis-server.
    RedisServer,
    /// Debian's nats-server.
    NatsServer,
}

/// A server to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) job: Job,
    pub(crate) kind: Kind,
}

const fn echo(name: &'static str, kind: Kind) -> Peer {
    Peer { name, job: Job::Echo, kind }
}

const fn broadcast(name: &'static str, kind: Kind) -> Peer {
    Peer { name, job: Job::Broadcast, kind }
}

const fn redis(name: &'static str, kind: Kind) -> Peer {
    Peer { name, job: Job::Redis, kind }
}

const fn ticks(name: &'static str, kind: Kind) -> Peer {
    Peer { name, job: Job::Ticks, kind }
}

const fn later(job: Job, name: &'static str, kind: Kind) -> Peer {
    Peer { name, job, kind }
}

/// Libraries, and the Debian package that has them.
pub(crate) type Libraries = Option<(&'static [&'static str], &'static str)>;

const URING: Libraries = Some((&["uring"], "liburing-dev"));
const OPENSSL: Libraries = Some((&["ssl", "crypto"], "libssl-dev"));

/// Whatever can be measured. The first of a job is what the others are divided by.
pub(crate) const PEERS: &[Peer] = &[
    echo("epoll", Kind::C("c/epoll.c", None)),
    echo("uring", Kind::C("c/uring.c", URING)),
    echo("nonforker-poll", Kind::Nonforker("poll")),
    echo("nonforker-uring", Kind::Nonforker("uring")),
    echo("mio", Kind::Rust("mio", "peer-mio", &[])),
    echo("tokio", Kind::Rust("tokio", "by_hand", &[])),
    echo("tokio-framed", Kind::Rust("tokio", "framed", &[])),
    echo("monoio", Kind::Rust("monoio", "peer-monoio", &[])),
    echo("compio", Kind::Rust("compio", "peer-compio", &[])),
    echo("may", Kind::Rust("may", "peer-may", &[])),
    echo("smol", Kind::Rust("smol", "peer-smol", &[])),
    echo("message-io", Kind::Rust("message-io", "peer-message-io", &[])),
    echo("libevent", Kind::C("c/libevent.c", Some((&["event"], "libevent-dev")))),
    echo("libuv", Kind::C("c/libuv.c", Some((&["uv"], "libuv1-dev")))),
    echo("go", Kind::Go("go/main.go")),
    echo("node", Kind::Node("node/echo.js")),
    echo("twisted", Kind::Python("python/twisted_echo.py", "twisted")),
    echo("uvloop", Kind::Python("python/uvloop_echo.py", "uvloop")),
    echo("perl", Kind::Perl("perl/recipe.pl")),
    broadcast("epoll", Kind::C("c/broadcast.c", None)),
    broadcast("nonforker-poll", Kind::Rust("nonforker", "broadcast", &["poll"])),
    broadcast("nonforker-uring", Kind::Rust("nonforker", "broadcast", &["uring"])),
    broadcast("tokio", Kind::Rust("tokio", "broadcast", &[])),
    redis("redis-server", Kind::RedisServer),
    redis("nonforker-poll", Kind::Rust("nonforker", "key_value", &["poll"])),
    redis("nonforker-uring", Kind::Rust("nonforker", "key_value", &["uring"])),
    ticks("nonforker-poll", Kind::Rust("nonforker", "ticks", &["poll"])),
    ticks("nonforker-uring", Kind::Rust("nonforker", "ticks", &["uring"])),
    later(Job::Offload, "tokio", Kind::Rust("tokio", "later", &["blocking"])),
    later(Job::Offload, "go", Kind::Go("go/later.go")),
    later(Job::Offload, "nonforker-poll", Kind::Rust("nonforker", "later", &["poll", "offload"])),
    later(Job::Offload, "nonforker-uring", Kind::Rust("nonforker", "later", &["uring", "offload"])),
    later(Job::Ticket, "tokio", Kind::Rust("tokio", "later", &["oneshot"])),
    later(Job::Ticket, "nonforker-poll", Kind::Rust("nonforker", "later", &["poll", "ticket"])),
    later(Job::Ticket, "nonforker-uring", Kind::Rust("nonforker", "later", &["uring", "ticket"])),
    later(Job::Tls, "openssl", Kind::C("c/openssl.c", OPENSSL)),
    later(Job::Tls, "nonforker-poll", Kind::Nonforker("poll")),
    later(Job::Tls, "nonforker-uring", Kind::Nonforker("uring")),
    later(Job::Tls, "tokio-rustls", Kind::Rust("tokio-rustls", "peer-tokio-rustls", &[])),
    later(Job::Tls, "go", Kind::Go("go/main.go")),
    later(Job::Publish, "redis-server", Kind::RedisServer),
    later(Job::Publish, "nats-server", Kind::NatsServer),
];

impl Job {
    /// The peer that the others of this job are divided by.
    pub(crate) fn reference(self) -> &'static Peer {
        let first = PEERS.iter().find(|peer| peer.job == self);
        first.unwrap_or(&PEERS[0])
    }
}

/// All names, each once.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for peer in PEERS {
        if !names.contains(&peer.name) {
            names.push(peer.name);
        }
    }
    names
}

/// The peers of these names that do one of these jobs; all names if there is none. A job's reference
/// is always among them.
pub(crate) fn chosen(wanted: &[String], jobs: &[Job]) -> Result<Vec<&'static Peer>, String> {
    let known = names();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no peer {unknown:?}; there are {}", known.join(", ")));
    }
    let is_wanted = |peer: &Peer| {
        let is_named = wanted.is_empty() || wanted.iter().any(|name| name == peer.name);
        jobs.contains(&peer.job) && (is_named || peer == peer.job.reference())
    };
    Ok(PEERS.iter().filter(|peer| is_wanted(peer)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_job_has_a_name_twice() {
        for (at, peer) in PEERS.iter().enumerate() {
            let mut rest = PEERS[at + 1..].iter();
            assert!(
                !rest.any(|other| (other.job, other.name) == (peer.job, peer.name)),
                "{}",
                peer.name
            );
        }
    }

    #[test]
    fn every_peer_has_its_source() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        for peer in PEERS {
            let source = match peer.kind {
                Kind::C(file, _)
                | Kind::Go(file)
                | Kind::Node(file)
                | Kind::Python(file, _)
                | Kind::Perl(file) => folder.join(file),
                Kind::Rust(package, ..) => folder.join(package).join("Cargo.toml"),
                Kind::Nonforker(_) | Kind::RedisServer | Kind::NatsServer => continue,
            };
            assert!(source.is_file(), "{} is there", source.display());
        }
    }

    #[test]
    fn a_choice_includes_what_it_is_divided_by() {
        let names = |wanted: &[&str], jobs: &[Job]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            chosen(&wanted, jobs)
                .map(|peers| peers.iter().map(|peer| peer.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["mio"], &[Job::Echo]).unwrap(), ["epoll", "mio"]);
        assert_eq!(
            names(&["nonforker-uring"], &[Job::Redis]).unwrap(),
            ["redis-server", "nonforker-uring"]
        );
        assert_eq!(names(&[], &[Job::Echo]).unwrap().len(), 19);
        assert!(names(&["nio"], &[Job::Echo]).unwrap_err().contains("\"nio\""));
    }
}
