//! The shards of a simulated server: what the network has for each, and when each sleeps.
//!
//! Time is one for all of them. A shard that has nothing to do says until when it would sleep, and time
//! jumps only when all of them have said so: to the first event, or the first end of a sleep. Whose
//! turn is next, [`Net`](crate::sim::Net) draws from the seed.
//!
//! A handler that [works](crate::sim::work) keeps its shard from having a turn until that time has
//! come, and the others go on. What it does meanwhile, it does at its own time, which is *ahead*.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use slotmap::SecondaryMap;

use super::{
    SimSocket,
    connecting::Called,
    world::{LinkId, Listener, World},
};
use crate::driver::{Completion, ListenerId, Token};

/// After this time a connection that waits is told to all that accept: a shard that was told of it may
/// be busy.
pub(super) const TELL_ALL: Duration = Duration::from_millis(250);

/// What the network has for one shard.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) by_token: SecondaryMap<Token, LinkId>,
    /// Reports that are at hand.
    pub(crate) done: VecDeque<Completion<'static, SimSocket>>,
    /// Attempts to connect that have ended.
    pub(super) connected: VecDeque<Called>,
    /// Links on which something may be possible.
    pub(crate) ready: VecDeque<LinkId>,
    /// Links that had their share of a look and have more: they come after all that become ready
    /// before the next look.
    pub(crate) served: VecDeque<LinkId>,
    /// Somebody used the driver's waker. It may be used from any thread, so this is shared.
    pub(crate) woken: Arc<AtomicBool>,
    /// It sleeps for ever, and nothing is under way.
    pub(super) asleep: bool,
    /// It had nothing to do, and would sleep until then, or for ever.
    rests: Option<Option<Duration>>,
    /// A handler works until then.
    pub(crate) ahead: Duration,
    /// It has ended.
    pub(crate) ended: bool,
}

impl Side {
    /// Whether it sleeps until something comes from outside, and nothing has.
    pub(crate) fn sleeps_on(&self) -> bool {
        self.asleep && !self.ended && !self.woken.load(Relaxed)
    }

    fn has_news(&self) -> bool {
        !self.ready.is_empty()
            || !self.served.is_empty()
            || !self.done.is_empty()
            || !self.connected.is_empty()
            || self.woken.load(Relaxed)
    }
}

/// What one shard wants of a listener.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    pub(crate) open: bool,
    pub(crate) on: bool,
    /// It was told that a connection waits.
    pub(crate) told: bool,
}

impl Listener {
    pub(crate) fn is_open(&self) -> bool {
        self.holds.iter().any(|hold| hold.open)
    }
}

impl World {
    /// There are so many shards.
    pub(crate) fn set_shards(&mut self, shards: usize) {
        self.sides.resize_with(shards, Side::default);
    }

    fn is_alone(&self) -> bool {
        self.sides.len() == 1
    }

    /// The time as a shard has it.
    pub(super) fn time_of(&self, shard: usize) -> Duration {
        self.now.max(self.sides[shard].ahead)
    }

    /// Whether a connection waits at a listener that this shard is to accept.
    pub(super) fn can_accept_at(&self, shard: usize, listener: ListenerId) -> bool {
        let Listener { holds, backlog, .. } = &self.listeners[listener];
        let hold = holds.get(shard).copied().unwrap_or_default();
        hold.on && (self.is_alone() || hold.told) && !backlog.is_empty()
    }

    pub(super) fn can_accept(&self, shard: usize) -> bool {
        (0..self.listeners.len()).any(|listener| self.can_accept_at(shard, listener))
    }

    /// A connection waits: one of the shards that accept is told, or all of them.
    pub(super) fn tell_listener(&mut self, listener: ListenerId, all: bool) {
        if self.is_alone() {
            return;
        }
        let accepting: Vec<usize> = (0..self.sides.len())
            .filter(|&shard| self.listeners[listener].holds.get(shard).is_some_and(|hold| hold.on))
            .collect();
        if accepting.is_empty() || self.listeners[listener].backlog.is_empty() {
            return;
        }
        let one = accepting[self.rng.between(0, accepting.len() - 1)];
        for shard in accepting {
            self.listeners[listener].holds[shard].told |= all || shard == one;
        }
    }

    /// A shard has accepted a connection. What has arrived on it is looked at when it is adopted.
    pub(super) fn belongs_to(&mut self, link: LinkId, shard: usize) {
        let state = &mut self.links[link];
        let before = std::mem::replace(&mut state.shard, shard);
        if before != shard && std::mem::take(&mut state.queued) {
            let side = &mut self.sides[before];
            side.ready.retain(|&other| other != link);
            side.served.retain(|&other| other != link);
        }
    }

    /// A shard has looked at a listener and found nobody.
    pub(super) fn found_nobody(&mut self, shard: usize, listener: ListenerId) {
        if !self.is_alone() {
            self.listeners[listener].holds[shard].told = false;
        }
    }

    /// Whether a shard has something to do now.
    fn is_active(&self, shard: usize) -> bool {
        let side = &self.sides[shard];
        let is_due = side.rests.is_none_or(|until| until.is_some_and(|at| at <= self.now));
        !side.ended && (is_due || side.has_news() || self.can_accept(shard))
    }

    /// Whether a handler works there just now.
    fn is_working(&self, shard: usize) -> bool {
        self.sides[shard].ahead > self.now
    }

    /// A shard has something to do.
    pub(super) fn stirs(&mut self, shard: usize) {
        self.sides[shard].rests = None;
    }

    /// A shard has nothing to do until then, or for ever. Time jumps to whatever comes first, if the
    /// others have nothing to do either.
    pub(super) fn rest(&mut self, shard: usize, until: Option<Duration>) {
        self.sides[shard].rests = Some(until);
        let shards = 0..self.sides.len();
        if shards
            .clone()
            .any(|other| other != shard && self.is_active(other) && !self.is_working(other))
        {
            return;
        }
        let next = self.next_at();
        let ends = shards.clone().filter(|&other| !self.sides[other].ended).flat_map(|other| {
            let side = &self.sides[other];
            let works = self.is_working(other).then_some(side.ahead);
            works.or_else(|| side.rests.flatten())
        });
        match next.into_iter().chain(ends).min() {
            Some(at) => self.now = self.now.max(at),
            None => self.sides[shard].asleep = true,
        }
    }

    /// Whose turn it is. `None` if all shards have ended.
    pub(crate) fn draw_shard(&mut self, draw: impl FnOnce(usize) -> usize) -> Option<usize> {
        if self.is_alone() {
            return (!self.sides[0].ended).then_some(0);
        }
        let living: Vec<usize> =
            (0..self.sides.len()).filter(|&shard| !self.sides[shard].ended).collect();
        let earliest = living.iter().map(|&shard| self.sides[shard].ahead).min()?;
        if earliest > self.now {
            // Handlers work everywhere, and the network goes on.
            self.pass(earliest.saturating_sub(self.now));
        }
        let free: Vec<usize> =
            living.into_iter().filter(|&shard| !self.is_working(shard)).collect();
        let active: Vec<usize> =
            free.iter().copied().filter(|&shard| self.is_active(shard)).collect();
        let of = if active.is_empty() { free } else { active };
        (!of.is_empty()).then(|| of[draw(of.len())])
    }

    /// A handler works for so long.
    pub(super) fn works(&mut self, shard: usize, duration: Duration) {
        if self.is_alone() {
            return self.pass(duration);
        }
        self.sides[shard].ahead = self.time_of(shard).saturating_add(duration);
    }

    pub(crate) fn has_news(&self, shard: usize) -> bool {
        let side = &self.sides[shard];
        !side.ready.is_empty()
            || !side.served.is_empty()
            || !side.done.is_empty()
            || !side.connected.is_empty()
    }

    pub(crate) fn is_woken(&self, shard: usize) -> bool {
        self.sides[shard].woken.load(Relaxed)
    }

    /// Whether all shards sleep for ever.
    pub(crate) fn is_asleep(&self) -> bool {
        let sleeps = |side: &Side| side.sleeps_on() || side.ended;
        self.sides.iter().all(sleeps) && self.sides.iter().any(|side| side.asleep)
    }

    /// Whether nothing is under way that the server could hear of.
    pub(crate) fn is_quiet(&self) -> bool {
        let waits = |listener: &Listener| {
            listener.holds.iter().any(|hold| hold.on) && !listener.backlog.is_empty()
        };
        let shards = 0..self.sides.len();
        let works = shards.clone().any(|shard| self.is_working(shard));
        let told = !self.sides.iter().any(Side::has_news) && !self.interrupted && !works;
        told && self.next_at().is_none() && !self.listeners.iter().any(waits)
    }
}
