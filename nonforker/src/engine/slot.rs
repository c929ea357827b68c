//! What the engine remembers about one connection, beside the [`Connection`] itself.
//!
//! A slot says in which lists the connection stands, what of it is in which account, and what was
//! last asked about its peer. Every function that changes these together is here.

use std::{mem, rc::Rc, sync::Arc, time::Duration};

pub(crate) use super::marks::End;
use super::{
    marks::{Marks, Receiving, Usage},
    memory::Memory,
    rules::Rules,
    stats::Counters,
    timers::Scheduled,
};
use crate::{
    address::{PackedPeer, Peer},
    conn::{Connection, bars::Bars, deadlines::Kind, pipe::Pipe, state::State},
    driver::Token,
};

/// Which service a connection belongs to: an index.
pub(crate) type ServiceId = u32;

/// The kernel was not asked.
const NOT_ASKED: u32 = u32::MAX;

/// A connection and what the engine has to remember about it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) conn: Connection,
    token: Token,
    pub(super) rules: Rc<Rules>,
    peer: PackedPeer,
    marks: Marks,
    receiving: Receiving,
    end: End,
    usage: Usage,
    /// When it was accepted or last paused, in milliseconds, whose count comes round after 49 days.
    since: u32,
    /// How many bytes that had arrived when a deadline was due are to be delivered before it is
    /// judged, and one more for the end of the stream. [`NOT_ASKED`] if none was due.
    owed: u32,
    /// How many bytes the peer's kernel had not acknowledged when that was last asked, since ours
    /// took some: [`NOT_ASKED`] if it was not.
    unacknowledged: u32,
    /// The buffer bytes that are in the memory account.
    accounted: usize,
    pub(super) scheduled: Scheduled,
    /// What few connections have.
    extra: Option<Box<Extra>>,
}

/// What few connections have, so that the others are smaller.
#[derive(Debug, Default)]
struct Extra {
    /// What went both ways, if every end is logged.
    traffic: Option<Traffic>,
    /// An idle timeout of its own; for ever, if that is `None`.
    idle_timeout: Option<Option<Duration>>,
    /// What it has subscribed to.
    topics: Vec<Arc<[u8]>>,
    /// How many messages were dropped that it had subscribed to.
    dropped: u64,
}

/// What went both ways on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) since: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) frames: u64,
    pub(crate) replies: u64,
}

impl Slot {
    /// A connection that was accepted `now`, in milliseconds.
    pub(crate) fn new(token: Token, peer: Peer, rules: Rc<Rules>, pipe: Pipe, now: u32) -> Self {
        Self {
            conn: Connection::new(pipe),
            token,
            rules,
            peer: peer.into(),
            marks: Marks::default(),
            receiving: Receiving::Off,
            end: End::No,
            usage: Usage::Arriving,
            since: now,
            owed: NOT_ASKED,
            unacknowledged: NOT_ASKED,
            accounted: 0,
            scheduled: Scheduled::default(),
            extra: None,
        }
    }

    /// Counts what goes both ways from `now` on, in nanoseconds.
    pub(super) fn count_traffic(&mut self, now: u64) {
        let traffic =
            Traffic { since: now, received_bytes: 0, sent_bytes: 0, frames: 0, replies: 0 };
        self.extra.get_or_insert_default().traffic = Some(traffic);
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

    // What is published to it.

    /// What it has subscribed to.
    pub(super) fn topics(&self) -> &[Arc<[u8]>] {
        self.extra.as_ref().map_or(&[], |extra| &extra.topics)
    }

    pub(super) fn note_topic(&mut self, topic: Arc<[u8]>) {
        self.extra.get_or_insert_default().topics.push(topic);
    }

    /// Returns whether it had subscribed to the topic.
    pub(super) fn forget_topic(&mut self, topic: &[u8]) -> bool {
        let Some(extra) = &mut self.extra else { return false };
        let found = extra.topics.iter().position(|name| **name == *topic);
        found.map(|index| extra.topics.swap_remove(index)).is_some()
    }

    pub(super) fn take_topics(&mut self) -> Vec<Arc<[u8]>> {
        self.extra.as_mut().map(|extra| mem::take(&mut extra.topics)).unwrap_or_default()
    }

    /// How many messages were dropped that it had subscribed to.
    pub(crate) fn dropped(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.dropped)
    }

    pub(super) fn drops(&mut self, count: u64) {
        self.extra.get_or_insert_default().dropped += count;
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
        if self.marks.set(Marks::DIRTY) {
            dirty.push(self.token);
        }
    }

    pub(super) const fn is_flushed(&mut self) {
        self.marks.take(Marks::DIRTY);
    }

    /// Has the connection go on in the next turn.
    pub(crate) fn mark_runnable(&mut self, runnable: &mut Vec<Token>) {
        if self.marks.set(Marks::RUNNABLE) {
            runnable.push(self.token);
        }
    }

    pub(super) const fn runs(&mut self) {
        self.marks.take(Marks::RUNNABLE);
    }

    // What went both ways.

    #[inline]
    fn counted(&mut self) -> Option<&mut Traffic> {
        self.extra.as_mut()?.traffic.as_mut()
    }

    /// The peer sent so many bytes.
    #[inline]
    pub(super) fn received(&mut self, count: usize) {
        self.marks.set(Marks::HEARD);
        if self.owed != NOT_ASKED {
            self.owed = self.owed.saturating_sub(saturate(count));
        }
        if let Some(traffic) = self.counted() {
            traffic.received_bytes += count as u64;
        }
    }

    /// The kernel took so many bytes.
    #[inline]
    pub(super) fn sent(&mut self, count: usize) {
        if count > 0 {
            self.marks.set(Marks::PROGRESSED);
            self.unacknowledged = NOT_ASKED;
        }
        if let Some(traffic) = self.counted() {
            traffic.sent_bytes += count as u64;
        }
    }

    /// Callbacks were made for `frames`, and made `replies`.
    #[inline]
    pub(crate) fn called(&mut self, frames: usize, replies: u32) {
        if let Some(traffic) = self.counted() {
            traffic.frames += frames as u64;
            traffic.replies += u64::from(replies);
        }
    }

    /// Whether the peer sent anything since this was last asked.
    pub(super) const fn was_heard(&mut self) -> bool {
        self.marks.take(Marks::HEARD)
    }

    // What was ever done on it.

    /// The connection opens.
    pub(super) const fn opens(&mut self) {
        self.usage = Usage::Unused;
    }

    /// Whether it has opened at some time: the handler knows it, and its address is counted.
    pub(super) fn has_opened(&self) -> bool {
        self.usage > Usage::Arriving
    }

    /// A proxy has said who the client is, or that it does not know.
    pub(super) fn arrived_as(&mut self, client: Option<Peer>) {
        self.peer = PackedPeer::behind(self.peer.peer(), client);
    }

    /// The proxy through which the client came, if it came through one.
    pub(crate) fn via(&self) -> Option<Peer> {
        self.peer.via()
    }

    /// A request was complete, or something is to be sent: from now on it is not unused.
    #[inline]
    pub(crate) fn is_used(&mut self) {
        if self.usage != Usage::Used {
            self.usage = Usage::Used;
            self.conn.deadlines().clear(Kind::Unused);
        }
    }

    /// Whether no request was ever complete on it, nothing was ever sent, and it does not close.
    pub(super) fn is_unused(&self) -> bool {
        self.usage == Usage::Unused && self.conn.state().handles()
    }

    /// What it was sent as it opened does not keep it while others wait.
    pub(crate) fn was_only_greeted(&mut self) {
        self.usage = self.usage.min(Usage::Greeted);
    }

    /// For how many milliseconds it has been unused, if others may take its place for that.
    pub(super) fn unused_for(&self, now: u32) -> Option<u32> {
        let (bars, state) = (self.conn.bars(), self.conn.state());
        let goes_on = state.handles() || state == State::Arriving;
        let may_go = self.rules.unused_timeout.is_some()
            && self.usage < Usage::Used
            && goes_on
            && !bars.has(Bars::OUR_TURN);
        may_go.then(|| now.wrapping_sub(self.since))
    }

    /// We receive again: from now on it counts how long it is unused.
    pub(super) const fn is_received_from_since(&mut self, now: u32) {
        self.since = now;
    }

    // What was last asked about its peer.

    /// Whether some of what had arrived when a deadline was first due may not be delivered yet, if
    /// `unread` bytes are not. Behind the last of them the stream may end, which no count of bytes
    /// shows: so it is asked once more when they are delivered.
    pub(super) fn is_owed(&mut self, unread: usize) -> bool {
        let with_end = saturate(unread.saturating_add(1));
        if self.owed == NOT_ASKED {
            self.owed = with_end;
        }
        let is_owed = self.receives() && self.owed > 0;
        if self.owed.min(with_end) == 1 {
            self.owed = 0;
        }
        is_owed
    }

    /// Nothing is owed any more: what was is delivered.
    pub(crate) const fn owes_nothing(&mut self) {
        self.owed = NOT_ASKED;
    }

    /// How many bytes the peer's kernel has not acknowledged, now and when that was last asked.
    pub(super) fn asked_unacknowledged(&mut self, left: usize) -> (usize, Option<usize>) {
        let left = saturate(left);
        let before = mem::replace(&mut self.unacknowledged, left);
        (left as usize, (before != NOT_ASKED).then_some(before as usize))
    }

    /// Whether the peer had not taken all when that was last asked.
    pub(super) const fn has_left_some(&self) -> bool {
        self.unacknowledged != NOT_ASKED && self.unacknowledged > 0
    }

    /// What was asked does not count any more: the connection lingers.
    pub(super) const fn forget_what_was_asked(&mut self) {
        self.owed = NOT_ASKED;
        self.unacknowledged = NOT_ASKED;
    }

    // Receiving, and the memory account.

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

    /// Decides whether it is received from: it wants to be, and does not hold too much. Returns what
    /// to ask of the driver, if that changed.
    #[inline]
    pub(super) fn decide_receiving(&mut self, memory: &mut Memory) -> Option<bool> {
        let receiving = match self.conn.wants_receive() {
            true if memory.withholds(self.accounted) => Receiving::Starved,
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

    /// What it holds, and whether it is about to give that back.
    pub(super) fn holding(&self) -> (Token, usize, bool) {
        (self.token, self.accounted, self.end == End::Closing)
    }

    pub(super) const fn accounted(&self) -> usize {
        self.accounted
    }

    /// Settles what the connection holds with the account of all.
    #[inline]
    pub(super) fn settle_account(&mut self, memory: &mut Memory) {
        let capacity = self.conn.capacity();
        if capacity == self.accounted && self.end < End::Closing {
            return;
        }
        if self.accounted == 0 {
            // What has just begun to hold something is not in the way.
            self.marks.set(Marks::PROGRESSED);
        }
        memory.account(self.token, self.accounted, capacity, self.end == End::Closing);
        self.accounted = capacity;
    }

    /// Whether it took something since that was last forgotten.
    pub(super) const fn has_progressed(&self) -> bool {
        self.marks.has(Marks::PROGRESSED)
    }

    pub(super) const fn forget_progress(&mut self) {
        self.marks.take(Marks::PROGRESSED);
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
        self.marks.has(Marks::DIRTY)
    }
}

/// In the width in which it is remembered.
fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(NOT_ASKED - 1)
}
