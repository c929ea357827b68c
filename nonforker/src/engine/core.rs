//! What a shard knows beside its connections: the time, what is to be done, and what all share.
//!
//! ```text
//!  handler calls, completions ──▶ a slot ──┬─▶ dirty      flushed at the end of this turn
//!                                          ├─▶ runnable   handled in the next turn
//!                                          └─▶ timers     handled when due
//! ```
//!
//! No driver and no handler is in here. So handlers may hold all of it, through
//! [`Conn`](crate::Conn), while the driver lends them bytes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    aging::Ages,
    came_by::CameBy,
    connecting::Outgoing,
    desk::Desk,
    drain::Phase,
    encrypted::Handshakes,
    group::Group,
    mail::Mail,
    memory::Memory,
    pool::Pool,
    shared::Shared,
    slot::Slot,
    stats::AllCounters,
    throttle::{Notice, Throttles},
    tickets::TicketOffice,
    timers::Timers,
};
use crate::{
    bounds::check_duration,
    config::Limits,
    conn::{
        bars::Bars,
        deadlines::{Kind, Tick},
        outbound::Lent,
        output::{Bounds, Origin, Output},
        state::{Event, State},
    },
    driver::{Clock, ClockId, Token, nanos},
    error::{CloseReason, Error},
    offload::Threads,
};

/// A tick, in nanoseconds.
const TICK: u64 = 1_000;

/// Deadlines fall on multiples of so many ticks, a millisecond, so that those of many connections
/// end one sleep together. Timers of handlers do not.
const GRAIN: u64 = 1_000;

/// The bytes of replies, and of incomplete requests, after which a turn takes nothing more in and
/// sends them: so much fits the cache beside what was received, and the memory budget is not
/// exceeded by more than this, one read and the replies to it.
pub(crate) const COLLECTED_MAX: usize = 64 << 10;

/// When a tick begins, in nanoseconds since the start.
pub(super) const fn time_of(tick: Tick) -> u64 {
    (tick.get() - 1).saturating_mul(TICK)
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Core {
    /// Connections with something to flush, at the end of this turn.
    pub(crate) dirty: Vec<Token>,
    /// Connections with something to handle, in the next turn.
    pub(crate) runnable: Vec<Token>,
    pub(crate) desks: Vec<Desk>,
    pub(crate) came_by: CameBy,
    pub(super) timers: Timers,
    pub(super) ages: Ages,
    pub(crate) pool: Pool,
    pub(super) memory: Memory,
    pub(crate) limits: Limits,
    pub(super) throttles: Throttles,
    pub(crate) counters: Arc<AllCounters>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: Arc<Group>,
    /// The number of this shard.
    pub(crate) shard: u16,
    /// There is no other shard.
    pub(super) alone: bool,
    pub(crate) mail: Mail,
    /// Clients of other shards need connections of this one: it ends behind them.
    pub(crate) serves_others: bool,
    pub(super) phase: Phase,
    /// A service has mail for another shard that it could not post yet: before that the shard does not end.
    pub(crate) owes_mail: bool,
    pub(super) tickets: TicketOffice,
    pub(crate) outgoing: Outgoing,
    pub(super) handshakes: Handshakes,
    /// Who does what handlers offload.
    pub(crate) offload: Option<Box<dyn Threads>>,
    pub(super) clock: Clock,
    /// The time as it was last looked at, since the start, in nanoseconds.
    pub(super) now: u64,
    /// What the clock had shown before the driver began the look that it has delivered completely
    /// since. Deadlines of peers are judged by it: what arrived in time was looked at by then.
    pub(super) looked: u64,
    /// What the clock showed at the start, and what the system's shows as it starts.
    epoch: (u64, Instant),
    /// The bytes of replies that were made in this turn, and of requests that were kept.
    pub(crate) collected: usize,
    /// The earliest deadline moved since the driver was told how long to sleep.
    pub(crate) timers_moved: bool,
    /// How many timers were ever set.
    pub(crate) timers_set: u64,
}

impl Core {
    #[expect(clippy::disallowed_methods, reason = "what the clock counts from has to have a name")]
    pub(super) fn new(
        limits: Limits,
        counters: Arc<AllCounters>,
        clock: Clock,
        group: Arc<Group>,
        shard: u16,
        mail: Mail,
    ) -> Self {
        let epoch = (clock.now(), Instant::now());
        let (budget, _) = limits.budget();
        let tickets = TicketOffice::new(limits.tickets_max, &group);
        Self {
            dirty: Vec::new(),
            runnable: Vec::new(),
            desks: Vec::new(),
            came_by: CameBy::default(),
            timers: Timers::default(),
            ages: Ages::default(),
            pool: Pool::new(budget),
            memory: Memory::new(budget, group.shards()),
            limits,
            throttles: Throttles::default(),
            counters,
            shared: Arc::clone(group.of_shard(shard)),
            alone: group.is_alone(),
            group,
            shard,
            mail,
            serves_others: false,
            phase: Phase::Serving,
            owes_mail: false,
            tickets,
            outgoing: Outgoing::default(),
            handshakes: Handshakes::default(),
            offload: None,
            clock,
            now: 0,
            looked: 0,
            epoch,
            collected: 0,
            timers_moved: false,
            timers_set: 0,
        }
    }

    // The time.

    /// Looks at the clock.
    pub(crate) fn look_at_clock(&mut self) {
        self.look_at(Clock::EXACT);
    }

    /// Looks at the exact clock, or at the coarse one, which costs less. Time does not go back,
    /// although the one clock may be behind the other.
    #[inline]
    pub(super) fn look_at(&mut self, clock: ClockId) {
        self.now = self.clock.read(clock).saturating_sub(self.epoch.0).max(self.now);
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

    /// The present in milliseconds, a count that comes round.
    pub(super) const fn millis(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "it comes round, says its name")]
        let millis = (self.now / (TICK * GRAIN)) as u32;
        millis
    }

    /// The deadline `after` from now, rounded up, and never if that is beyond counting.
    pub(super) fn tick_after(&self, after: Duration) -> Tick {
        self.rounded_up(after, GRAIN)
    }

    /// The time `after` from this moment, and not from the turn's beginning, for a timer of a handler.
    pub(crate) fn timer_after(&mut self, after: Duration) -> Tick {
        self.look_at_clock();
        self.rounded_up(after, 1)
    }

    /// The tick `after` from now, rounded up to a multiple of `grain`.
    fn rounded_up(&self, after: Duration, grain: u64) -> Tick {
        match self.now.checked_add(nanos(after)) {
            Some(at) => Tick::MIN.saturating_add(at.div_ceil(TICK * grain).saturating_mul(grain)),
            None => Tick::MAX,
        }
    }

    // What is done to a connection.

    /// Has the connection flushed at the end of this turn.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, slot: &mut Slot) {
        slot.mark_dirty(&mut self.dirty);
    }

    /// Has the connection's frames handled in the next turn.
    pub(crate) fn mark_runnable(&mut self, slot: &mut Slot) {
        slot.mark_runnable(&mut self.runnable);
    }

    /// Sets a deadline.
    pub(crate) fn arm(&mut self, slot: &mut Slot, kind: Kind, after: Duration) {
        self.arm_at(slot, kind, self.rounded_up(after, GRAIN));
    }

    pub(crate) fn arm_at(&mut self, slot: &mut Slot, kind: Kind, at: Tick) {
        if kind == Kind::Idle {
            slot.is_watched();
        }
        slot.conn.deadlines().set(kind, at);
        let token = slot.token();
        self.timers_moved |= self.timers.note(token, &mut slot.scheduled, at);
    }

    /// Closes a connection once everything queued is sent.
    pub(crate) fn close(&mut self, slot: &mut Slot, reason: CloseReason) {
        slot.conn.close(reason);
        self.mark_dirty(slot);
    }

    /// Ends a connection at once, with a reset towards the peer if `reset`.
    pub(crate) fn fail(&mut self, slot: &mut Slot, reason: CloseReason, reset: bool) {
        slot.conn.fail(reason, reset);
        self.mark_dirty(slot);
    }

    /// Handles no more frames of a connection for now.
    pub(crate) fn pause(&mut self, slot: &mut Slot) {
        slot.conn.pause(true);
        self.mark_dirty(slot);
    }

    /// Our side ends behind what is queued.
    pub(crate) fn finish(&mut self, slot: &mut Slot) {
        if slot.conn.state().handles() {
            slot.conn.finish();
            self.mark_dirty(slot);
        }
    }

    /// Ends a pause.
    pub(crate) fn resume(&mut self, slot: &mut Slot) {
        slot.conn.pause(false);
        self.is_active(slot);
        self.mark_dirty(slot);
        self.mark_runnable(slot);
    }

    /// Bytes went either way: the idle deadline moves, and only to a later time. Its entry in the timers does
    /// not.
    #[inline]
    pub(crate) fn is_active(&self, slot: &mut Slot) {
        if let Some(before) = slot.conn.deadline(Kind::Idle)
            && let Some(timeout) = slot.idle_timeout()
        {
            slot.conn.deadlines().set(Kind::Idle, self.tick_after(timeout).max(before));
        }
    }

    /// Gives a connection an idle timeout of its own, which counts from now on.
    pub(crate) fn set_idle_timeout(
        &mut self,
        slot: &mut Slot,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        check_duration("set_idle_timeout", timeout)?;
        slot.set_idle_timeout(timeout);
        self.await_activity(slot);
        Ok(())
    }

    /// The time begins anew within which bytes must go either way, if there is such a time.
    pub(super) fn await_activity(&mut self, slot: &mut Slot) {
        match slot.idle_timeout() {
            Some(timeout) if slot.is_open() => self.arm(slot, Kind::Idle, timeout),
            Some(_) => {}
            None => slot.conn.deadlines().clear(Kind::Idle),
        }
    }

    /// Keeps received bytes that no frame has taken.
    pub(crate) fn keep(&mut self, slot: &mut Slot, bytes: &[u8]) {
        let before = slot.conn.capacity();
        if let Some(outgrown) = slot.conn.take_in(bytes, |least| self.pool.take(least)) {
            self.pool.put(outgrown);
        }
        // It takes memory as replies do: a turn in which a thousand send half a request ends early.
        let grown = slot.conn.capacity().saturating_sub(before);
        self.collected += grown.max(bytes.len());
    }

    /// Takes the queue of a connection out, for callbacks to write to.
    #[inline(always)]
    pub(crate) fn begin_output(&mut self, slot: &mut Slot, origin: Origin) -> Output {
        let Lent { buffer, hint, elsewhere } = slot.conn.lend();
        // Whether there will be a reply is not known, but a warm buffer costs nothing. While memory
        // is scarce nobody is to be blamed for one that is too large.
        let buffer = match buffer {
            Some(buffer) => buffer,
            None if self.memory.is_scarce() => self.pool.take(hint),
            None => self.pool.take_warm(hint),
        };
        let bounds = Bounds {
            high: slot.rules.marks.high,
            cap: slot.rules.marks.cap,
            room: self.memory.room(slot.accounted()),
            ..self.pool.bounds()
        };
        Output::new(buffer, elsewhere, bounds, origin)
    }

    /// Puts the queue back behind callbacks for so many frames, and has the connection flushed if
    /// that may do anything.
    #[inline(always)]
    pub(crate) fn end_output(&mut self, slot: &mut Slot, output: Output, frames: usize) {
        let (mut buffer, replies) = output.into_parts();
        // What was lent begins at the front of its vector.
        let queued = buffer.vec().len();
        self.collected += queued;
        slot.called(frames, replies, queued);
        if queued == 0 {
            self.pool.put(buffer);
        } else {
            slot.conn.take_back(buffer);
        }
        if !slot.conn.bars().is_none() {
            self.collected += slot.conn.held();
            slot.mark_dirty(&mut self.dirty);
        } else if queued > 0 {
            slot.mark_dirty(&mut self.dirty);
        }
    }

    // The log.

    /// Whether to log a line of this kind now: then with the number of lines left out.
    pub(super) fn notice(&mut self, notice: Notice) -> Option<u64> {
        let now = self.tick();
        let passed = self.throttles.pass(notice, now);
        // What is left out is counted some time, and that may be the first thing that is due.
        self.timers_moved |= passed.is_none();
        passed
    }

    // The turn.

    /// Whether the replies of this turn are to be sent before more is taken in.
    pub(super) const fn has_collected_enough(&self) -> bool {
        self.collected >= COLLECTED_MAX
    }
}

impl Core {
    /// Frames may be here that have to wait: for us, so the peer's deadline stops. They go on in the
    /// next turn if all they wait for is the end of this one.
    pub(crate) fn hold(&mut self, slot: &mut Slot, is_turn_over: bool) {
        self.mark_dirty(slot);
        slot.conn.deadlines().clear(Kind::Frame);
        // What follows a call for TLS is not for a codec.
        let is_turn_over = is_turn_over || slot.conn.bars().has(Bars::SHAKES);
        if slot.conn.hold() && is_turn_over {
            self.mark_runnable(slot);
        }
    }

    /// The start of a frame or of a record is here, if `is_begun`, and the rest of it is not: it has its
    /// time, which begins anew if another one `is_new`.
    pub(crate) fn await_rest(&mut self, slot: &mut Slot, is_begun: bool, is_new: bool) {
        if !is_begun {
            slot.conn.deadlines().clear(Kind::Frame);
        } else if let Some(timeout) = slot.rules().frame_timeout
            && (is_new || slot.conn.deadline(Kind::Frame).is_none())
        {
            self.arm(slot, Kind::Frame, timeout);
        }
    }

    /// Bytes came for which there is no use any more.
    pub(super) fn discarded(&mut self, slot: &mut Slot, count: usize) {
        let enough = slot.conn.discard(count);
        if slot.conn.state() == State::Lingering {
            if enough {
                slot.conn.apply(Event::Failed);
            } else {
                self.arm(slot, Kind::Quiet, slot.rules().linger_timeout / 5);
            }
        }
        if enough {
            self.mark_dirty(slot);
        }
    }
}
