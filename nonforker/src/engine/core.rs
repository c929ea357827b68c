//! What one shard knows: its connections, what is to be done for them, and the time.
//!
//! ```text
//!  handler calls, completions ──▶ slots ──┬─▶ dirty      flushed at the end of this turn
//!                                         ├─▶ runnable   handled in the next turn
//!                                         └─▶ timers     handled when due
//! ```
//!
//! No driver and no handler is in here. So handlers may hold all of it, through
//! [`Conn`](crate::Conn), while the driver lends them bytes.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use slotmap::{SlotMap, new_key_type};

use super::{
    memory::Memory,
    pool::Pool,
    stats::Counters,
    throttle::Throttles,
    timers::{Scheduled, Timers},
};
use crate::{
    address::{PackedPeer, Peer},
    config::Limits,
    conn::{
        Connection,
        deadlines::{Kind, Tick},
        outbound::Watermarks,
    },
    driver::{Clock, Next, Token, nanos},
    error::CloseReason,
};

new_key_type! {
    /// Where a service keeps its codec and session for a connection.
    pub(crate) struct MemberKey;
}

/// A tick, in nanoseconds.
const TICK: u64 = 1_000;

/// Deadlines fall on multiples of so many ticks, a millisecond, so that those of many connections
/// end one sleep together. Timers of handlers do not.
const GRAIN: u64 = 1_000;

/// The bytes of replies, and of incomplete requests, after which a turn takes nothing more in and
/// sends them: so much fits the cache beside what was received, and the memory budget is not
/// exceeded by more than this, one read and the replies to it.
pub(crate) const COLLECTED_MAX: usize = 64 << 10;

/// For so many connections there is room from the start. It takes no memory before they come, and
/// then none for what has been outgrown.
const SLOTS_RESERVED: usize = 1 << 16;

/// Which service a connection belongs to: an index.
pub(crate) type ServiceId = u32;

/// A connection and what the engine has to remember about it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) conn: Connection,
    pub(crate) peer: PackedPeer,
    pub(crate) service: ServiceId,
    pub(crate) member: MemberKey,
    pub(crate) scheduled: Scheduled,
    /// The buffer bytes that are in the memory account.
    pub(crate) accounted: usize,
    /// It is in `dirty`.
    pub(crate) dirty: bool,
    /// It is in `runnable`.
    pub(crate) runnable: bool,
    /// Pressure fell, and the handler does not know yet.
    pub(crate) relieved: bool,
    /// The handler knows that the stream has ended.
    pub(crate) told_end: bool,
    /// The driver was asked to receive.
    pub(crate) receiving: bool,
    /// It has sent something since that was last asked.
    pub(crate) heard: bool,
    /// It does not receive because memory is scarce and it holds too much of it.
    pub(crate) starved: bool,
    /// It took something of what was queued for it since that was last looked at, or began to hold
    /// memory since then.
    pub(crate) progressed: bool,
    /// Our side was shut down.
    pub(crate) shut: bool,
    /// The handler knows that the connection has closed; its session is gone.
    pub(crate) told_closed: bool,
    /// The driver was asked to close.
    pub(crate) closing: bool,
    pub(crate) usage: Usage,
    /// When it was accepted or last paused, in milliseconds, whose count comes round after 49 days.
    pub(crate) since: u32,
    /// How many bytes that had arrived when a deadline was due are to be delivered before it is
    /// judged. [`NOT_ASKED`] if none was due.
    pub(crate) owed: u32,
    /// How many bytes the peer's kernel had not acknowledged when that was last asked, since ours
    /// took some: [`NOT_ASKED`] if it was not.
    pub(crate) unacknowledged: u32,
    /// What went both ways, if every end is logged.
    pub(crate) traffic: Option<Box<Traffic>>,
}

/// The kernel was not asked.
pub(crate) const NOT_ASKED: u32 = u32::MAX;

/// What was ever done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Usage {
    /// No request was ever complete, and nothing was ever sent.
    Unused,
    /// The same, but for what was sent as it opened.
    Greeted,
    Used,
}

/// What went both ways on a connection.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) since: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) frames: u64,
    pub(crate) replies: u64,
}

impl Slot {
    fn new(peer: PackedPeer, service: ServiceId) -> Self {
        Self {
            conn: Connection::new(),
            peer,
            service,
            member: MemberKey::default(),
            scheduled: Scheduled::default(),
            accounted: 0,
            dirty: false,
            runnable: false,
            relieved: false,
            told_end: false,
            receiving: false,
            heard: false,
            starved: false,
            progressed: false,
            shut: false,
            told_closed: false,
            closing: false,
            usage: Usage::Unused,
            since: 0,
            owed: NOT_ASKED,
            unacknowledged: NOT_ASKED,
            traffic: None,
        }
    }
}

impl Traffic {
    const fn new(since: u64) -> Self {
        Self { since, received_bytes: 0, sent_bytes: 0, frames: 0, replies: 0 }
    }
}

impl Slot {
    /// A request was complete, or something is to be sent: from now on it is not unused.
    #[inline]
    pub(crate) fn is_used(&mut self) {
        if self.usage != Usage::Used {
            self.usage = Usage::Used;
            self.conn.deadlines.clear(Kind::Unused);
        }
    }

    #[inline]
    pub(crate) fn mark_dirty(&mut self, token: Token, dirty: &mut Vec<Token>) {
        if !mem::replace(&mut self.dirty, true) {
            dirty.push(token);
        }
    }

    pub(crate) fn mark_runnable(&mut self, token: Token, runnable: &mut Vec<Token>) {
        if !mem::replace(&mut self.runnable, true) {
            runnable.push(token);
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) slots: SlotMap<Token, Slot>,
    /// Connections with something to flush, at the end of this turn.
    pub(crate) dirty: Vec<Token>,
    /// Connections with something to handle, in the next turn.
    pub(crate) runnable: Vec<Token>,
    pub(crate) timers: Timers,
    pub(crate) pool: Pool,
    pub(crate) memory: Memory,
    pub(crate) limits: Limits,
    pub(crate) marks: Watermarks,
    pub(crate) throttles: Throttles,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    /// The time as it was last looked at, since the start, in nanoseconds.
    pub(crate) now: u64,
    /// What the clock had shown before the driver began the look that it has delivered completely
    /// since. Deadlines of peers are judged by it: what arrived in time was looked at by then.
    pub(crate) looked: u64,
    /// A callback that takes so many nanoseconds is slow. The largest number of all if none is.
    pub(crate) slow: u64,
    /// What the clock showed at the start, and what the system's shows as it starts.
    epoch: (u64, Instant),
    /// The bytes of replies that were made in this turn, and of requests that were kept.
    pub(crate) collected: usize,
    /// The earliest deadline moved since the driver was told how long to sleep.
    pub(crate) timers_moved: bool,
}

impl Core {
    #[expect(clippy::disallowed_methods, reason = "what the clock counts from has to have a name")]
    pub(crate) fn new(limits: Limits, clock: Clock) -> Self {
        let epoch = (clock.now(), Instant::now());
        let (budget, _) = limits.budget();
        Self {
            slots: SlotMap::with_capacity_and_key(limits.connections().min(SLOTS_RESERVED)),
            dirty: Vec::new(),
            runnable: Vec::new(),
            timers: Timers::default(),
            pool: Pool::new(budget),
            memory: Memory::new(budget),
            marks: limits.watermarks(),
            slow: limits.slow_handler.map_or(u64::MAX, nanos),
            limits,
            throttles: Throttles::default(),
            counters: Arc::default(),
            clock,
            now: 0,
            looked: 0,
            epoch,
            collected: 0,
            timers_moved: false,
        }
    }

    /// Looks at the clock.
    pub(crate) fn look_at_clock(&mut self) {
        self.set_now(self.clock.now());
    }

    /// Looks at the clock that costs less and may be some milliseconds late.
    pub(crate) fn glance_at_clock(&mut self) {
        self.set_now(self.clock.coarse());
    }

    /// Time does not go back, although the one clock may be behind the other.
    fn set_now(&mut self, shown: u64) {
        self.now = shown.saturating_sub(self.epoch.0).max(self.now);
    }

    /// The present, in ticks.
    pub(crate) const fn tick(&self) -> Tick {
        Tick::MIN.saturating_add(self.now / TICK)
    }

    /// The time by which deadlines of peers are judged: see [`looked`](Self::looked).
    pub(crate) const fn judged(&self) -> Tick {
        Tick::MIN.saturating_add(self.looked / TICK)
    }

    /// The present, as the system tells it, looked at anew.
    pub(crate) fn instant(&self) -> Instant {
        let now = self.clock.now().saturating_sub(self.epoch.0).max(self.now);
        self.epoch.1 + Duration::from_nanos(now)
    }

    /// The deadline `after` from now, rounded up, and never if that is beyond counting.
    pub(crate) fn tick_after(&self, after: Duration) -> Tick {
        self.rounded_up(after, GRAIN)
    }

    /// The tick `after` from now, rounded up to a multiple of `grain`.
    fn rounded_up(&self, after: Duration, grain: u64) -> Tick {
        match self.now.checked_add(nanos(after)) {
            Some(at) => Tick::MIN.saturating_add(at.div_ceil(TICK * grain).saturating_mul(grain)),
            None => Tick::MAX,
        }
    }

    /// Has the handler's timer fire `after` from this moment, and not from the turn's beginning.
    pub(crate) fn set_timer(&mut self, token: Token, after: Duration) {
        self.look_at_clock();
        self.arm_at(token, Kind::User, self.rounded_up(after, 1));
    }

    /// How long it is until `at`.
    pub(crate) const fn until(&self, at: Tick) -> Duration {
        let at = (at.get() - 1).saturating_mul(TICK);
        Duration::from_nanos(at.saturating_sub(self.now))
    }

    /// Takes a new connection in.
    pub(crate) fn insert(&mut self, peer: Peer, service: ServiceId) -> Token {
        let mut slot = Slot::new(peer.into(), service);
        slot.since = self.millis();
        if tracing::enabled!(tracing::Level::DEBUG) {
            slot.traffic = Some(Box::new(Traffic::new(self.now)));
        }
        let token = self.slots.insert(slot);
        self.counters.accepted.add(1);
        self.mark_dirty(token);
        if let Some(timeout) = self.limits.idle_timeout {
            self.arm(token, Kind::Idle, timeout);
        }
        if let Some(timeout) = self.limits.unused_timeout {
            self.arm(token, Kind::Unused, timeout);
        }
        token
    }

    /// The present in milliseconds, a count that comes round.
    pub(super) const fn millis(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "it comes round, says its name")]
        let millis = (self.now / (TICK * GRAIN)) as u32;
        millis
    }

    /// Has the connection flushed at the end of this turn.
    pub(crate) fn mark_dirty(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.mark_dirty(token, &mut self.dirty);
        }
    }

    /// Has the connection's frames handled in the next turn.
    pub(crate) fn mark_runnable(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.mark_runnable(token, &mut self.runnable);
        }
    }

    /// Sets a deadline.
    pub(crate) fn arm(&mut self, token: Token, kind: Kind, after: Duration) {
        self.arm_at(token, kind, self.tick_after(after));
    }

    pub(super) fn arm_at(&mut self, token: Token, kind: Kind, at: Tick) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.conn.deadlines.set(kind, at);
            self.timers_moved |= self.timers.note(token, &mut slot.scheduled, at);
        }
    }

    /// Closes a connection once everything queued is sent.
    pub(crate) fn close(&mut self, token: Token, reason: CloseReason) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.conn.close(reason);
            slot.conn.deadlines.clear(Kind::Frame);
            slot.conn.deadlines.clear(Kind::User);
            slot.conn.deadlines.clear(Kind::Unused);
            self.mark_dirty(token);
        }
    }

    /// Ends a connection at once, with a reset towards the peer if `reset`.
    pub(crate) fn fail(&mut self, token: Token, reason: CloseReason, reset: bool) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.conn.fail(reason, reset);
            self.mark_dirty(token);
        }
    }

    /// Keeps received bytes that no frame has taken.
    pub(crate) fn keep(&mut self, token: Token, bytes: &[u8]) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let before = slot.conn.inbound.capacity();
        if let Some(outgrown) = slot.conn.inbound.keep(bytes, |least| self.pool.take(least)) {
            self.pool.put(outgrown);
        }
        // It takes memory as replies do: a turn in which a thousand send half a request ends early.
        let grown = slot.conn.inbound.capacity().saturating_sub(before);
        self.collected += grown.max(bytes.len());
    }

    /// Whether the replies of this turn are to be sent before more is taken in.
    pub(crate) const fn has_collected_enough(&self) -> bool {
        self.collected >= COLLECTED_MAX
    }

    /// Whether the driver may sleep, and whether it should bring more.
    pub(crate) const fn next(&self) -> Next {
        let ample = !self.memory.is_scarce();
        if self.has_collected_enough() {
            Next::Enough
        } else if self.dirty.is_empty() && self.runnable.is_empty() && !self.timers_moved && ample {
            Next::Sleep
        } else {
            Next::Return
        }
    }
}
