//! How the simulated server connects to servers of the script.
//!
//! ```text
//!  Connect ──▶ under way ──▶ the target: accepts ──▶ a link, in its backlog ──▶ Connected
//!                              ├─ refuses, is not there ────────────────────▶ ConnectFailed
//!                              └─ is silent: nothing, until the attempt is abandoned
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    io::ErrorKind,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    SimDriver, SimSocket,
    events::Event,
    link::{Link, State},
    trace::What,
    world::{LinkId, World},
};
use crate::{
    address::{Address, Peer},
    driver::{AttemptId, Completion, Next, Sink},
    offload::Lookup,
};

/// What becomes of attempts to connect to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepts,
    Refuses,
    /// It does not answer, as a host that is down.
    Silent,
}

/// Where a server of the script listens.
#[derive(Debug)]
pub(crate) struct SimTarget {
    pub(crate) address: Address,
    pub(crate) answer: Answer,
    /// How long an attempt takes.
    pub(crate) delay: Duration,
    /// Connections that the script has not taken.
    pub(crate) backlog: VecDeque<LinkId>,
    /// How many attempts have reached it.
    pub(crate) reached: usize,
}

impl SimTarget {
    pub(crate) fn new(address: Address, answer: Answer) -> Self {
        Self { address, answer, delay: Duration::ZERO, backlog: VecDeque::new(), reached: 0 }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) all: Vec<SimTarget>,
    /// Attempts of each shard that are under way, and where to.
    under_way: BTreeMap<(usize, AttemptId), Address>,
}

/// The addresses that names of hosts have. A lookup may run on any thread, so they are shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Names {
    pub(crate) fn set(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(host.to_owned(), addresses);
    }

    pub(crate) fn lookup(&self) -> Lookup {
        let names = self.clone();
        Arc::new(move |host| {
            let names = names.0.lock().unwrap_or_else(PoisonError::into_inner);
            names.get(host).cloned().ok_or_else(|| ErrorKind::NotFound.into())
        })
    }
}

/// An attempt that has ended.
pub(super) type Called = (AttemptId, Result<LinkId, Errno>);

impl World {
    /// The server begins to connect.
    pub(super) fn call(&mut self, shard: usize, attempt: AttemptId, address: Address) {
        self.note(0, What::Calls);
        let target = self.targets.all.iter().find(|target| target.address == address);
        let delay = target.map_or(Duration::ZERO, |target| target.delay);
        let at = self.time_of(shard).saturating_add(delay) + self.lateness();
        self.targets.under_way.insert((shard, attempt), address);
        self.schedule(at, Event::Reaches(shard, attempt));
    }

    /// A target answers in another way from now on, also those that wait for its answer.
    pub(crate) fn set_answer(&mut self, address: &Address, answer: Answer) {
        let now = self.now;
        let target = self.targets.all.iter_mut().find(|target| target.address == *address);
        let Some(target) = target else { return };
        if std::mem::replace(&mut target.answer, answer) != Answer::Silent {
            return;
        }
        let waiting = self.targets.under_way.iter().filter(|&(_, to)| to == address);
        let waiting: Vec<_> = waiting.map(|(&of, _)| of).collect();
        for (shard, attempt) in waiting {
            self.schedule(now, Event::Reaches(shard, attempt));
        }
    }

    /// Takes a connection from the backlog of a target.
    pub(crate) fn take_called(&mut self, address: &Address) -> Option<LinkId> {
        let target = self.targets.all.iter_mut().find(|target| target.address == *address);
        target?.backlog.pop_front()
    }

    pub(super) fn abandon(&mut self, shard: usize, attempt: AttemptId) {
        self.targets.under_way.remove(&(shard, attempt));
        let connected = &mut self.sides[shard].connected;
        let at = connected.iter().position(|&(of, _)| of == attempt);
        if let Some((_, Ok(link))) = at.and_then(|at| connected.remove(at)) {
            self.close(link, false);
        }
    }

    /// An attempt reaches its target, unless it was abandoned.
    pub(super) fn reaches(&mut self, shard: usize, attempt: AttemptId) {
        let Some(address) = self.targets.under_way.get(&(shard, attempt)) else { return };
        let target = self.targets.all.iter_mut().find(|target| target.address == *address);
        let answer = target.map_or(Answer::Refuses, |target| {
            target.reached += 1;
            target.answer
        });
        let strikes = self.torture.strikes();
        let ended = match answer {
            _ if strikes => Err(Errno::MFILE),
            Answer::Accepts if self.rng.chance(self.faults.connect_failed) => {
                let errnos =
                    [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::MFILE];
                Err(errnos[self.rng.between(0, errnos.len() - 1)])
            }
            Answer::Accepts => Ok(()),
            Answer::Refuses => Err(Errno::CONNREFUSED),
            Answer::Silent => return,
        };
        let Some(address) = self.targets.under_way.remove(&(shard, attempt)) else { return };
        let ended = ended.map(|()| self.connect_out(shard, &address));
        if let Err(errno) = ended {
            self.note(0, What::CallFails(errno.raw_os_error()));
        }
        self.sides[shard].connected.push_back((attempt, ended));
    }

    /// A connection to a server of the script begins.
    fn connect_out(&mut self, shard: usize, address: &Address) -> LinkId {
        let link = self.links.len();
        let peer = match *address {
            Address::Tcp(address) => Peer::Tcp(address),
            _ => Peer::Unix,
        };
        // From a window of a few bytes to one that takes everything.
        let exponent = self.rng.between(2, 20);
        let window = (1 << exponent) + self.rng.between(0, 1 << exponent);
        self.links.push(Link::new(window, self.coarse, peer));
        self.links[link].shard = shard;
        self.links[link].up_clock = self.now;
        self.note(link, What::IsCalled);
        if let Some(target) = self.targets.all.iter_mut().find(|target| target.address == *address)
        {
            target.backlog.push_back(link);
        }
        link
    }
}

impl SimDriver {
    /// Reports the attempts to connect that have ended.
    pub(super) fn deliver_connected(&self, sink: &mut impl Sink<SimSocket>) -> Next {
        let mut next = Next::Sleep;
        loop {
            let first = self.world().sides[self.shard].connected.pop_front();
            let Some((attempt, ended)) = first else { return next };
            let completion = match ended {
                Ok(link) => {
                    let mut world = self.world();
                    world.links[link].state = State::Accepted;
                    let peer = world.links[link].peer.clone();
                    let socket = SimSocket { link, world: Some(Rc::clone(&self.world)) };
                    Completion::Connected { attempt, socket, peer }
                }
                Err(errno) => Completion::ConnectFailed { attempt, error: errno.into() },
            };
            next = next.max(sink.take(completion));
        }
    }
}
