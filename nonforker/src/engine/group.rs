//! What the shards of a server share: which of them a handle reaches, and the limits that hold for all of
//! them together.
//!
//! ```text
//!  handle ──▶ Group ──┬─▶ shard 0: what it shares with threads, its connections, its memory
//!                      ├─▶ shard 1
//!                      └─ places, addresses, memory of all
//! ```
//!
//! A server without shards has one of these too, with one shard in it. Then nothing is shared, and
//! nothing below is looked at while it serves.
//!
//! Connections are counted under one lock, which is taken when one is accepted and when one has
//! closed. Memory is one sum: a shard reports what it holds when that has changed by more than a
//! 64th of its part of the budget, so the sum is wrong by less than a 64th of the budget.

pub(crate) mod doors;
mod ending;
mod nets;
mod rates;
mod tickets;
mod topics;
pub(super) mod versioned;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

pub(super) use self::nets::{AddressKey, Net, net_of};
use self::{doors::AllDoors, rates::Rates, tickets::AllTickets, topics::AllTopics};
use super::{
    certificates::Certificates, desk::Desk, failures::FirstFailure, mail::Mailbox, places::room,
    shared::Shared, slot::ServiceId, stats::Stats,
};
use crate::{
    config::Limits,
    error::{Error, NoSuchService, Result},
    offload::Pool,
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Group {
    members: Box<[Member]>,
    /// The server is one of several shards: handles that were made before it knew reach all.
    joined: OnceLock<Arc<Self>>,
    counts: Mutex<Counts>,
    /// Moves whenever a place was taken or left.
    places_moved: AtomicUsize,
    /// How many shards have clients that wait for a place.
    waiting: AtomicUsize,
    /// What the buffers of all shards hold, as far as that was reported.
    held: AtomicUsize,
    /// How many connections all shards have taken.
    accepted: AtomicUsize,
    tickets: AllTickets,
    topics: AllTopics,
    doors: AllDoors,
    rates: Rates,
    /// The threads for what handlers offload, as long as a shard has them.
    offload: Mutex<Weak<Pool>>,
    /// Limits are posted to all shards or to none.
    posting: Mutex<()>,
    has_new_limits: AtomicBool,
    /// Why the server ends, if something in it has failed.
    pub(crate) failure: FirstFailure,
    pub(crate) tls: Certificates,
}

/// One shard, as the others see it. Each has cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Member {
    shared: Arc<Shared>,
    connections: AtomicUsize,
    /// It does not accept: others have clearly fewer connections.
    yields: AtomicBool,
    /// A client that it has accepted waits for a place.
    waits: AtomicBool,
    /// A client of it waits for a ticket.
    lacks_tickets: AtomicBool,
    /// It drains, and has no client left.
    is_done: AtomicBool,
    /// It is to look at its listeners, and at its share, although no driver says so.
    looks: AtomicBool,
}

/// What is counted for all shards.
#[derive(Debug, Default)]
struct Counts {
    /// By service.
    taken: Vec<usize>,
    per_ip: HashMap<AddressKey, usize>,
}

impl Group {
    /// For `shards` shards.
    pub(crate) fn of(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            members: (0..shards).map(|_| Member::default()).collect(),
            joined: OnceLock::new(),
            counts: Mutex::default(),
            places_moved: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            tickets: AllTickets::default(),
            topics: AllTopics::default(),
            doors: AllDoors::default(),
            rates: Rates::default(),
            offload: Mutex::default(),
            posting: Mutex::new(()),
            has_new_limits: AtomicBool::new(false),
            failure: FirstFailure::default(),
            tls: Certificates::default(),
        })
    }

    /// For a server without shards.
    pub(crate) fn alone() -> Arc<Self> {
        Self::of(1)
    }

    pub(crate) fn shards(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.members.len() == 1
    }

    /// What one shard shares with other threads.
    pub(crate) fn of_shard(&self, shard: u16) -> &Arc<Shared> {
        &self.members[usize::from(shard)].shared
    }

    /// The threads of all shards for what handlers offload, which the first shard makes.
    pub(crate) fn pool(&self, make: impl FnOnce() -> Pool) -> Arc<Pool> {
        let mut known = self.offload.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let pool = Arc::new(make());
            *known = Arc::downgrade(&pool);
            pool
        })
    }

    /// Where to post to one shard, once all are bound.
    pub(super) fn mailbox(&self, shard: u16) -> Option<Arc<Mailbox>> {
        self.members.get(usize::from(shard))?.shared.mailbox()
    }

    // From outside.

    /// A server that was made alone becomes one of `whole`. What was asked of it is asked of all.
    pub(crate) fn join(&self, whole: &Arc<Self>) {
        let _ = self.joined.set(Arc::clone(whole));
        // A thread that asks sets the request before it reads `joined`; here it is the other way
        // round. So at least one of the two sees what the other did.
        fence(SeqCst);
        for member in &self.members {
            whole.each(|shared| shared.ask_as(&member.shared));
        }
    }

    fn each(&self, ask: impl Fn(&Shared)) {
        for member in &self.members {
            ask(&member.shared);
        }
    }

    /// Asks all shards, those also that the server has joined meanwhile: see [`join`](Self::join).
    fn ask(&self, ask: fn(&Shared)) {
        self.each(ask);
        fence(SeqCst);
        if let Some(whole) = self.joined.get() {
            whole.each(ask);
        }
    }

    pub(crate) fn drain(&self) {
        self.ask(Shared::drain);
    }

    pub(crate) fn stop(&self) {
        self.ask(Shared::stop);
    }

    /// The group that a handle reaches: the one that the server has joined, or its own.
    fn whole(&self) -> &Self {
        self.joined.get().map_or(self, |whole| whole)
    }

    /// Posts new limits to all shards, if they can be followed.
    pub(crate) fn post_limits(&self, limits: &Limits) -> Result<()> {
        let Self { members, posting, has_new_limits, .. } = self.whole();
        let _one_at_a_time = posting.lock().unwrap_or_else(PoisonError::into_inner);
        if !members.iter().all(|member| member.shared.is_bound()) {
            return Err(Error::NotBound);
        }
        has_new_limits.store(true, Relaxed);
        // All were bound with the same limits: what one can follow, all can.
        members.iter().try_for_each(|member| member.shared.post_limits(limits.clone()))
    }

    /// Replaces the certificates of a listener in all shards.
    #[cfg(feature = "_rustls")]
    pub(crate) fn set_tls(&self, listener: usize, tls: crate::Tls) -> Result<()> {
        let Self { members, tls: certificates, .. } = self.whole();
        certificates.replace(listener, tls)?;
        members.iter().for_each(|member| member.shared.wake());
        Ok(())
    }

    pub(crate) fn stats(&self) -> Stats {
        let members = self.whole().members.iter();
        members.fold(Stats::default(), |sum, member| sum.plus(&member.shared.stats()))
    }

    pub(crate) fn shard_stats(&self, shard: usize) -> Option<Stats> {
        self.whole().members.get(shard).map(|member| member.shared.stats())
    }

    pub(crate) fn service_stats(&self, service: usize) -> Option<Stats> {
        let members = self.whole().members.iter();
        let each = members.filter_map(|member| member.shared.service_stats(service));
        each.reduce(|sum, stats| sum.plus(&stats))
    }

    /// Which service has this handler and this name: the same one in each shard.
    pub(crate) fn find<H: 'static>(
        &self,
        name: Option<&str>,
    ) -> std::result::Result<ServiceId, NoSuchService> {
        let first = self.whole().members.first().ok_or(NoSuchService::Unknown)?;
        first.shared.find::<H>(name)
    }

    /// Where to post to each shard, from the first one on.
    pub(crate) fn mailboxes(&self) -> Arc<[Arc<Mailbox>]> {
        // Nobody is served, and no handle is given away, before all of them are bound.
        self.whole().members.iter().map_while(|member| member.shared.mailbox()).collect()
    }

    // Places.

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection of `service`, if there is one.
    pub(super) fn take_place(
        &self,
        desks: &mut [Desk],
        service: ServiceId,
        connections_max: usize,
    ) -> bool {
        if self.is_alone() {
            return true;
        }
        let mut counts = self.counts();
        counts.note_others(desks);
        if room(desks, service, connections_max) == 0 {
            return false;
        }
        counts.taken[service as usize] += 1;
        self.places_moved.fetch_add(1, Relaxed);
        true
    }

    /// Leaves a place again. Shards in which a client waits for one are woken.
    pub(super) fn leave_place(&self, service: ServiceId) {
        if self.is_alone() {
            return;
        }
        if let Some(taken) = self.counts().taken.get_mut(service as usize) {
            *taken -= 1;
        }
        self.places_moved.fetch_add(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            for member in self.members.iter().filter(|member| member.waits.load(SeqCst)) {
                member.shared.wake();
            }
        }
    }

    /// Brings what the desks of a shard know of the others up to date, if it has changed since
    /// `seen`.
    pub(super) fn note_places(&self, desks: &mut [Desk], seen: &mut usize) {
        let moved = self.places_moved.load(SeqCst);
        if moved != *seen {
            *seen = moved;
            self.counts().note_others(desks);
        }
    }

    /// Whether a client waits in a shard for a place.
    pub(super) fn set_waits(&self, shard: u16, waits: bool) {
        let member = &self.members[usize::from(shard)];
        if member.waits.load(Relaxed) != waits {
            member.waits.store(waits, SeqCst);
            if waits {
                self.waiting.fetch_add(1, SeqCst);
            } else {
                self.waiting.fetch_sub(1, SeqCst);
            }
        }
    }

    /// What is counted here and the shards do not have, if anything is. `taken` is by service.
    pub(super) fn unsound(
        &self,
        taken: &[usize],
        per_ip: &HashMap<AddressKey, usize>,
        held: usize,
        tickets: usize,
    ) -> Option<String> {
        if self.open_tickets() != tickets {
            return Some(format!("{tickets} tickets are open, not {}", self.open_tickets()));
        }
        let counts = self.counts();
        if !counts.taken.is_empty() && counts.taken != taken {
            return Some(format!("{taken:?} places are taken, not {:?}", counts.taken));
        }
        if counts.per_ip != *per_ip {
            return Some("the connections of an address are not counted exactly".to_owned());
        }
        let known = self.held.load(Relaxed);
        (known != held).then(|| format!("the shards have said {held} bytes, and not {known}"))
    }

    /// Whether the limits are others than at the start.
    pub(super) fn has_new_limits(&self) -> bool {
        self.has_new_limits.load(Relaxed)
    }

    // Addresses.

    /// Counts a connection of an address, unless there are `max` already.
    pub(super) fn count_address(&self, key: AddressKey, max: usize) -> bool {
        let mut counts = self.counts();
        let count = counts.per_ip.entry(key).or_default();
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    /// So many connections of an address are counted no more, or are counted without asking.
    pub(super) fn correct_address(&self, key: AddressKey, fewer: usize, more: usize) {
        let mut counts = self.counts();
        let count = counts.per_ip.entry(key).or_default();
        *count = (*count + more).saturating_sub(fewer);
        if *count == 0 {
            counts.per_ip.remove(&key);
        }
    }

    // Memory.

    /// A shard that has reported `before` bytes holds `after`. Returns what the others hold.
    pub(super) fn report_held(&self, before: usize, after: usize) -> usize {
        if before < after {
            self.held.fetch_add(after - before, Relaxed);
        } else if after < before {
            self.held.fetch_sub(before - after, Relaxed);
        }
        self.held.load(Relaxed).saturating_sub(after)
    }

    // The balance.

    /// How many connections a shard has.
    pub(super) fn set_connections(&self, shard: u16, connections: usize) {
        self.members[usize::from(shard)].connections.store(connections, Relaxed);
    }

    fn others(&self, shard: u16) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(move |&(other, _)| other != shard.into())
    }

    /// The other shard with the fewest connections, and how many those are.
    pub(super) fn emptiest_other(&self, shard: u16) -> Option<(usize, usize)> {
        self.others(shard)
            .map(|(other, member)| (member.connections.load(Relaxed), other))
            .min()
            .map(|(connections, other)| (other, connections))
    }

    pub(super) fn set_yields(&self, shard: u16, yields: bool) {
        self.members[usize::from(shard)].yields.store(yields, SeqCst);
    }

    /// Has those that yield and have at most so many connections see that they need not.
    pub(super) fn wake_yielding(&self, connections_max: usize) {
        for (shard, member) in self.members.iter().enumerate() {
            let connections = member.connections.load(Relaxed);
            if connections <= connections_max && member.yields.load(SeqCst) {
                self.have_look(shard);
            }
        }
    }

    /// Has a shard look at its listeners.
    pub(super) fn have_look(&self, shard: usize) {
        let member = &self.members[shard];
        // One that has yet to look needs no second reason to.
        if !member.looks.swap(true, SeqCst) {
            member.shared.wake();
        }
    }

    /// Whether a shard is to look at its listeners.
    pub(super) fn take_look(&self, shard: u16) -> bool {
        let looks = &self.members[usize::from(shard)].looks;
        looks.load(Relaxed) && looks.swap(false, SeqCst)
    }

    /// Has all other shards see how things are.
    pub(super) fn wake_others(&self, shard: u16) {
        self.others(shard).for_each(|(_, member)| member.shared.wake());
    }

    pub(super) fn has_accepted(&self, connections: usize) {
        self.accepted.fetch_add(connections, Relaxed);
    }

    /// How many connections all shards have taken: it moves as long as any of them accepts.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }
}

impl Counts {
    fn note_others(&mut self, desks: &mut [Desk]) {
        self.taken.resize(desks.len(), 0);
        for (desk, taken) in desks.iter_mut().zip(&self.taken) {
            desk.elsewhere = taken.saturating_sub(desk.taken);
        }
    }
}
