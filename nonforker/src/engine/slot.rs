//! What the engine remembers about one connection, beside the [`Connection`] itself.
//!
//! A slot says in which lists the connection stands, what of it is in which account, and what was
//! last asked about its peer. Every function that changes these together is here.

mod asked;
mod held;
mod outgoing;

use std::{mem, rc::Rc, time::Duration};

pub(crate) use super::marks::{End, Traffic};
use super::{
    connecting::Connecting,
    impaired::Impaired,
    marks::{DIRTY, HEARD, Marks, PROGRESSED, RUNNABLE, Receiving, Usage, WATCHED},
    memory::Memory,
    rules::Rules,
    stats::Counters,
    timers::Scheduled,
    topics::Subscribed,
};
use crate::{
    address::{PackedPeer, Peer},
    conn::{Connection, bars::Bars, deadlines::Kind, pipe::Pipe, state::State},
    driver::Token,
};

/// Which service a connection belongs to: an index.
pub(crate) type ServiceId = u32;

/// A connection and what the engine has to remember about it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) conn: Connection,
    pub(super) token: Token,
    pub(crate) rules: Rc<Rules>,
    pub(super) peer: PackedPeer,
    marks: Marks,
    receiving: Receiving,
    end: End,
    usage: Usage,
    /// When it was accepted or last paused, in milliseconds, whose count comes round after 49 days.
    since: u32,
    /// The buffer bytes that are in the memory account.
    accounted: usize,
    pub(super) scheduled: Scheduled,
    /// What few connections have.
    extra: Option<Box<Extra>>,
}

/// What few connections have, so that the others are smaller.
#[derive(Debug, Default)]
struct Extra {
    /// How many bytes that had arrived when a deadline was due are to be delivered before it is
    /// judged, and one more for the end of the stream. Nothing if none was due.
    owed: Option<usize>,
    /// How many bytes the peer's kernel had not acknowledged when that was last asked, since ours
    /// took some.
    unacknowledged: Option<usize>,
    /// What went both ways, if every end is logged.
    traffic: Option<Traffic>,
    /// An idle timeout of its own; for ever, if that is `None`.
    idle_timeout: Option<Option<Duration>>,
    subscribed: Subscribed,
    /// Where its bytes go, and from where they come.
    relay: Option<Token>,
    /// What is done on purpose to bytes on their way to there.
    impaired: Option<Box<Impaired>>,
    /// How far it has come, if it does not stand yet.
    connecting: Option<Box<Connecting>>,
}

impl Slot {
    /// A connection that was accepted `now`, in milliseconds.
    pub(crate) fn new(token: Token, peer: Peer, rules: Rc<Rules>, pipe: Pipe, now: u32) -> Self {
        Self {
            conn: Connection::new(pipe),
            token,
            rules,
            peer: peer.into(),
            marks: 0,
            receiving: Receiving::Off,
            end: End::No,
            usage: Usage::Arriving,
            since: now,
            accounted: 0,
            scheduled: Scheduled::default(),
            extra: None,
        }
    }

    /// Counts what goes both ways from `now` on, in nanoseconds.
    pub(super) fn count_traffic(&mut self, now: u64) {
        self.watch().traffic = Some(Traffic { since: now, ..Traffic::default() });
    }

    pub(crate) const fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn service(&self) -> ServiceId {
        self.rules.service
    }

    /// What holds for the connections of its service.
    #[inline]
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How long the connection may be silent: as it was told itself, or else as its service is.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let own = self.extra.as_ref().and_then(|extra| extra.idle_timeout);
        own.unwrap_or(self.rules.idle_timeout)
    }

    /// What concerns its topics, if it ever subscribed to one.
    pub(super) fn subscribed(&self) -> Option<&Subscribed> {
        self.extra.as_ref().map(|extra| &extra.subscribed)
    }

    pub(super) fn subscribed_mut(&mut self) -> &mut Subscribed {
        &mut self.extra.get_or_insert_default().subscribed
    }

    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.rules.counters
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.peer()
    }

    pub(super) fn traffic(&self) -> Option<Traffic> {
        self.extra.as_ref()?.traffic
    }

    /// Whether the handler is to be told that pressure fell.
    #[inline]
    pub(super) fn is_relieved(&self) -> bool {
        self.conn.is_relieved(&self.rules.marks)
    }

    /// Pressure fell and the handler is told. Returns whether that is so.
    pub(super) fn relieve(&mut self) -> bool {
        self.conn.relieve(&self.rules.marks)
    }

    /// From now on its idle timeout is not that of its service.
    pub(super) fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.extra.get_or_insert_default().idle_timeout = Some(timeout);
    }

    // In which lists it stands.

    /// Has the connection flushed at the end of this turn.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, dirty: &mut Vec<Token>) {
        if self.marks & DIRTY == 0 {
            self.marks |= DIRTY;
            dirty.push(self.token);
        }
    }

    pub(super) const fn is_flushed(&mut self) {
        self.marks &= !DIRTY;
    }

    /// Has the connection go on in the next turn.
    pub(crate) fn mark_runnable(&mut self, runnable: &mut Vec<Token>) {
        if self.marks & RUNNABLE == 0 {
            self.marks |= RUNNABLE;
            runnable.push(self.token);
        }
    }

    pub(super) const fn runs(&mut self) {
        self.marks &= !RUNNABLE;
    }

    // What went both ways.

    /// More than usual depends from now on on what goes both ways.
    pub(super) const fn is_watched(&mut self) {
        self.marks |= WATCHED;
    }

    /// What is remembered of that.
    fn watch(&mut self) -> &mut Extra {
        self.is_watched();
        self.extra.get_or_insert_default()
    }

    /// The peer sent something. Returns whether more than usual depends on that.
    #[inline]
    pub(super) const fn received(&mut self) -> bool {
        self.marks |= HEARD;
        self.marks & WATCHED != 0
    }

    /// The kernel took so many bytes. Returns whether more than usual depends on that.
    #[inline]
    pub(super) const fn sent(&mut self, count: usize) -> bool {
        if count > 0 {
            self.marks |= PROGRESSED;
        }
        self.marks & WATCHED != 0
    }

    /// The peer sent so many bytes on a connection that is watched.
    pub(super) fn watch_received(&mut self, count: usize) {
        let Some(extra) = &mut self.extra else { return };
        if let Some(owed) = &mut extra.owed {
            *owed = owed.saturating_sub(count);
        }
        if let Some(traffic) = &mut extra.traffic {
            traffic.received_bytes += count as u64;
        }
    }

    /// The kernel took so many bytes on a connection that is watched.
    pub(super) fn watch_sent(&mut self, count: usize) {
        let Some(extra) = &mut self.extra else { return };
        if count > 0 {
            extra.unacknowledged = None;
        }
        if let Some(traffic) = &mut extra.traffic {
            traffic.sent_bytes += count as u64;
        }
    }

    /// Callbacks were made for `frames`, made `replies`, and left `queued` bytes.
    #[inline]
    pub(crate) fn called(&mut self, frames: usize, replies: u32, queued: usize) {
        if self.marks & WATCHED != 0
            && let Some(Extra { traffic: Some(traffic), .. }) = self.extra.as_deref_mut()
        {
            traffic.frames += frames as u64;
            traffic.replies += u64::from(replies);
        }
        if self.usage != Usage::Used && (frames > 0 || queued > 0) {
            // A request was complete, or something is to be sent: from now on it is not unused.
            self.usage = Usage::Used;
            self.conn.deadlines().clear(Kind::Unused);
        }
    }

    /// Whether the peer sent anything since this was last asked.
    pub(super) const fn was_heard(&mut self) -> bool {
        let was = self.marks & HEARD != 0;
        self.marks &= !HEARD;
        was
    }

    // What was ever done on it.

    /// The connection opens.
    pub(super) const fn opens(&mut self) {
        // One that was asked for is never unused: it waits for our requests, not for those of a peer.
        self.usage = if self.is_outgoing() { Usage::Used } else { Usage::Unused };
    }

    /// Its address is counted, and its handshake is to come.
    pub(super) const fn is_let_in(&mut self) {
        self.usage = Usage::LetIn;
    }

    /// Whether its address is counted.
    pub(super) fn counts(&self) -> bool {
        self.usage > Usage::Arriving && !self.is_outgoing()
    }

    /// Whether it has opened at some time: the handler knows it, and its address is counted.
    pub(crate) fn has_opened(&self) -> bool {
        self.usage > Usage::LetIn
    }

    /// A proxy has said who the client is, or that it does not know.
    pub(super) fn arrived_as(&mut self, client: Option<Peer>) {
        self.peer = PackedPeer::behind(self.peer.peer(), client);
    }

    /// The proxy through which the client came, if it came through one.
    pub(crate) fn via(&self) -> Option<Peer> {
        self.peer.via()
    }

    /// Whether no request was ever complete on it, nothing was ever sent, and it does not close.
    pub(super) fn is_unused(&self) -> bool {
        self.usage == Usage::Unused && self.conn.state().handles()
    }

    /// What it was sent as it opened does not keep it while others wait.
    pub(crate) fn was_only_greeted(&mut self) {
        if !self.is_outgoing() {
            self.usage = self.usage.min(Usage::Greeted);
        }
    }

    /// For how many milliseconds it has been unused, if others may take its place for that.
    pub(super) fn unused_for(&self, now: u32) -> Option<u32> {
        let (bars, state) = (self.conn.bars(), self.conn.state());
        let goes_on = state.handles() || state == State::Arriving;
        let may_go = self.rules.unused_timeout.is_some()
            && self.usage < Usage::Used
            && !self.is_outgoing()
            && goes_on
            && !bars.has(Bars::OUR_TURN);
        may_go.then(|| now.wrapping_sub(self.since))
    }

    /// We receive again: from now on it counts how long it is unused.
    pub(super) const fn is_received_from_since(&mut self, now: u32) {
        self.since = now;
    }

    // Receiving, and the memory account.

    #[inline]
    pub(super) const fn receives(&self) -> bool {
        matches!(self.receiving, Receiving::On)
    }

    pub(super) const fn is_starved(&self) -> bool {
        matches!(self.receiving, Receiving::Starved)
    }

    /// The driver has stopped receiving by itself.
    pub(super) const fn receiving_ended(&mut self) {
        self.receiving = Receiving::Off;
    }

    /// Whether nothing is to be settled or decided: it holds nothing, and is received from.
    #[inline]
    pub(super) fn is_at_rest(&self) -> bool {
        self.accounted == 0 && self.receives() && self.conn.is_at_rest()
    }

    /// Decides whether it is received from: it wants to be, and does not hold too much. Returns what
    /// to ask of the driver, if that changed.
    #[inline]
    pub(super) fn decide_receiving(&mut self, memory: &mut Memory) -> Option<bool> {
        let receiving = match self.conn.wants_receive() {
            true if self.is_withheld(memory) => Receiving::Starved,
            true => Receiving::On,
            false => Receiving::Off,
        };
        let before = mem::replace(&mut self.receiving, receiving);
        if before == receiving {
            return None;
        }
        if (before == Receiving::Starved) != (receiving == Receiving::Starved) {
            memory.starve(receiving == Receiving::Starved);
        }
        let (was_on, on) = (before == Receiving::On, receiving == Receiving::On);
        (was_on != on && self.end < End::Closing).then_some(on)
    }

    /// Whether it took something since that was last forgotten.
    pub(super) const fn has_progressed(&self) -> bool {
        self.marks & PROGRESSED != 0
    }

    pub(super) const fn forget_progress(&mut self) {
        self.marks &= !PROGRESSED;
    }

    /// Whether it is our turn: the peer can do nothing until we receive from it.
    pub(super) const fn waits_for_us(&self) -> bool {
        let bars = self.conn.bars();
        bars.has(Bars::OUR_TURN)
            || self.is_starved()
            || bars.has(Bars::HELD) && !bars.has(Bars::PRESSURED)
    }

    // How far its end has come.

    /// Whether the handler has not been told of its end.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.end, End::No | End::Shut)
    }

    /// Whether our side, which has finished, is to be shut down: once, when everything is sent.
    pub(super) fn is_to_be_shut(&mut self) -> bool {
        let is_sent = self.conn.outbound().is_empty() && !self.conn.expects_answers();
        let now = self.end == End::No && self.conn.finishes() && is_sent;
        if now {
            self.end = End::Shut;
        }
        now
    }

    pub(super) const fn end(&self) -> End {
        self.end
    }

    /// Its end has come as far as `end`. Returns how far it had come before.
    pub(super) const fn ends(&mut self, end: End) -> End {
        mem::replace(&mut self.end, end)
    }

    // What `sound.rs` asks.

    pub(super) const fn is_dirty(&self) -> bool {
        self.marks & DIRTY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;

    /// With a codec, a session and the timers of a handler it is one allocation, of a size that an
    /// allocator has: of 192 bytes, 32 are left for those. What few connections have is `Extra`.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Slot>() <= 160, "{} bytes", size_of::<Slot>());
    }
}
