//! One connection without I/O: no socket, no clock, no thread.
//!
//! ```text
//!             ┌──────────── Connection ────────────┐
//!  bytes ───▶ │ inbound ──▶ (frames, the handler)   │
//!             │                     │               │
//!  bytes ◀─── │ outbound ◀── replies┘               │
//!             │ state, deadlines, reason            │
//!             └─────────────────────────────────────┘
//! ```
//!
//! The engine drives it:
//!
//! 1. Bytes arrive. If [`Bars::is_none`] and nothing is kept they are decoded where they lie; what no
//!    frame took is [taken in](Connection::take_in).
//! 2. Its queue is [lent](Connection::lend) to callbacks as an [`Output`](output::Output), to which
//!    they push replies, and [taken back](Connection::take_back).
//! 3. At the end of the turn the engine sends the [next batch](Connection::next_batch), and
//!    [applies](Connection::apply) an empty queue as [`Event::Flushed`].
//! 4. It receives while [`wants_receive`](Connection::wants_receive).
//! 5. [`close`](Connection::close) and [`fail`](Connection::fail) end it; the first reason counts.

mod ahead;
pub(crate) mod bars;
pub(crate) mod buffer;
pub(crate) mod deadlines;
pub(crate) mod encrypted;
mod inbound;
pub(crate) mod outbound;
pub(crate) mod output;
pub(crate) mod payload;
pub(crate) mod pipe;
mod proxy;
pub(crate) mod pushed;
mod sealing;
pub(crate) mod state;
pub(crate) mod tickets;

use self::{
    bars::Bars,
    buffer::Buffer,
    deadlines::{Deadlines, Kind, Tick},
    encrypted::Encrypted,
    inbound::Inbound,
    outbound::{Lent, Outbound, Watermarks},
    pipe::{Opening, Pipe},
    state::{Event, Incoming, Manner, State},
    tickets::Tickets,
};
use crate::error::CloseReason;

/// The most bytes that are thrown away while a connection closes, before it is cut off.
pub(crate) const DISCARD_MAX: u32 = 16 * 1024 * 1024;

/// One accepted stream, from accept to closed.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    pipe: Pipe,
    bars: Bars,
    incoming: Incoming,
    manner: Manner,
    inbound: Inbound,
    outbound: Outbound,
    deadlines: Deadlines,
    /// Most connections do not end just now, have no ticket open, and are not encrypted.
    rare: Option<Box<Rare>>,
}

/// What a connection has that ends, has yet to answer, or is encrypted.
#[derive(Debug, Default)]
struct Rare {
    /// Why, until its handler gets the reason.
    reason: Option<CloseReason>,
    /// How many bytes of the peer were thrown away.
    discarded: u32,
    tickets: Option<Box<Tickets>>,
    /// Its TLS, if it has any.
    encrypted: Option<Box<Encrypted>>,
}

impl Rare {
    /// Whether it is of no use.
    const fn is_vacant(&self) -> bool {
        let Self { reason, discarded, tickets, encrypted } = self;
        reason.is_none() && *discarded == 0 && tickets.is_none() && encrypted.is_none()
    }
}

impl Connection {
    /// A connection that has just been accepted. It is open at once if its pipe is plain.
    pub(crate) fn new(pipe: Pipe) -> Self {
        let state = if pipe == Pipe::Plain { State::Open } else { State::Arriving };
        let mut bars = Bars::default();
        bars.follow(state);
        Self {
            state,
            pipe,
            bars,
            incoming: Incoming::Flows,
            manner: Manner::InOrder,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            deadlines: Deadlines::default(),
            rare: None,
        }
    }

    /// A connection that does not stand yet.
    pub(crate) fn connecting() -> Self {
        let mut conn = Self::new(Pipe::Plain);
        conn.state = State::Connecting;
        conn.bars.follow(conn.state);
        conn
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    #[inline]
    pub(crate) const fn bars(&self) -> Bars {
        self.bars
    }

    pub(crate) const fn incoming(&self) -> Incoming {
        self.incoming
    }

    /// How it is to be closed.
    pub(crate) const fn manner(&self) -> Manner {
        self.manner
    }

    /// Why it ended, or is about to; once.
    pub(crate) fn take_reason(&mut self) -> Option<CloseReason> {
        self.rare.as_mut()?.reason.take()
    }

    // How it ends.

    /// Moves the state. An event that cannot happen ends the connection.
    pub(crate) const fn apply(&mut self, event: Event) {
        self.state = match self.state.after(event) {
            Ok(state) => state,
            Err(_) => {
                self.manner = Manner::Illegal;
                State::Closing
            }
        };
        self.bars.follow(self.state);
        if self.state.has_finished() && matches!(self.incoming, Incoming::Flows) {
            self.incoming = Incoming::Finished;
        }
    }

    /// The server drains: what has not arrived by now is not waited for.
    pub(crate) const fn cut(&mut self) {
        self.incoming = Incoming::Cut;
    }

    /// The handler is told that the peer has finished. Returns whether that is news.
    pub(crate) fn tell_end(&mut self) -> bool {
        std::mem::replace(&mut self.incoming, Incoming::Told) != Incoming::Told
    }

    /// Our side ends once everything queued is sent. Frames are still handled.
    pub(crate) fn finish(&mut self) {
        if let Some(tickets) = self.rare.as_mut().and_then(|rare| rare.tickets.as_mut()) {
            tickets.finish();
        }
        self.bars.set(Bars::MUTE, true);
    }

    /// Whether our side ends, or has ended, and frames are still handled.
    pub(crate) const fn finishes(&self) -> bool {
        self.bars.has(Bars::MUTE) && self.state.handles()
    }

    /// Asks for a close once everything queued is sent, and open tickets are answered if it is a close
    /// in order. The first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        let Some(reason) = self.closes_behind_tickets(reason) else { return };
        self.rare.get_or_insert_default().reason.get_or_insert(reason);
        self.bars.set(Bars::HELD, false);
        for kind in [Kind::Frame, Kind::Delay, Kind::User, Kind::Unused] {
            self.deadlines.clear(kind);
        }
        self.apply(Event::CloseRequested);
    }

    /// Ends it at once, with a reset towards the peer if `reset`. The first reason counts.
    pub(crate) fn fail(&mut self, reason: CloseReason, reset: bool) {
        self.rare.get_or_insert_default().reason.get_or_insert(reason);
        if reset && self.manner == Manner::InOrder {
            self.manner = Manner::Reset;
        }
        self.apply(Event::Failed);
    }

    // What comes in.

    /// Opens the pipe up with all bytes that have arrived so far.
    pub(crate) fn open_up(&mut self, input: &[u8]) -> Opening {
        let opening = self.pipe.open_up(input);
        if matches!(opening, Opening::Opened { .. }) {
            self.pipe = self.pipe_behind();
        }
        opening
    }

    pub(crate) const fn pause(&mut self, on: bool) {
        self.bars.set(Bars::PAUSED, on);
    }

    /// What arrives goes to another connection from now on. A pause ends, and a frame that had begun is
    /// none.
    pub(crate) const fn relay(&mut self) {
        self.bars.set(Bars::RELAYED, true);
        self.bars.set(Bars::PAUSED, false);
        self.bars.set(Bars::HELD, false);
        self.deadlines.clear(Kind::Frame);
    }

    /// What arrives on a relayed connection waits, or does so no more.
    pub(crate) const fn block(&mut self, on: bool) {
        self.bars.set(Bars::BLOCKED, on);
    }

    /// Whether all that has arrived on a relayed connection was passed on, and nothing more will come.
    pub(crate) fn has_passed_all_on(&self) -> bool {
        !matches!(self.incoming, Incoming::Flows) && self.inbound.is_empty()
    }

    /// Frames wait for a ticket that they may need, or do so no more.
    pub(crate) const fn wait_for_tickets(&mut self, on: bool) {
        self.bars.set(Bars::TICKETLESS, on);
        if !on {
            // It goes on in its turn, and is received from again then.
            self.bars.set(Bars::HELD, true);
        }
    }

    /// Whether what arrives now can be decoded where it lies.
    #[inline]
    pub(crate) const fn takes_frames_in_place(&self) -> bool {
        self.bars.is_none() && self.inbound.is_empty()
    }

    /// Whether nothing is kept or queued, and only frames may come: it does not end, and has no records.
    #[inline]
    pub(crate) const fn is_at_rest(&self) -> bool {
        matches!(self.incoming, Incoming::Flows)
            && self.takes_frames_in_place()
            && !self.bars.has(Bars::ENDS)
            && !self.is_encrypted()
            && self.outbound.is_empty()
    }

    /// Whether the driver should receive.
    pub(crate) fn wants_receive(&self) -> bool {
        match self.state {
            State::Open => {
                let may = self.bars.is_none() || self.bars.only_shakes() || self.bars.relays();
                may && matches!(self.incoming, Incoming::Flows)
            }
            State::Draining => self.rare.as_ref().is_none_or(|rare| rare.discarded < DISCARD_MAX),
            State::Arriving => {
                matches!(self.incoming, Incoming::Flows) && !self.bars.has(Bars::HELD)
            }
            State::Lingering => true,
            State::Connecting
            | State::HalfClosed
            | State::Finishing
            | State::Closing
            | State::Closed => false,
        }
    }

    /// Whether all frames are handled and the end of the stream is what comes next.
    pub(crate) const fn is_at_end(&self) -> bool {
        let is_free = self.bars.is_none() && !self.bars.has(Bars::PENDING);
        !matches!(self.incoming, Incoming::Flows) && is_free
    }

    /// Takes in bytes that no frame took, in a buffer from `allocate` (given the least capacity it
    /// must have) if the present one is too small. Returns the outgrown buffer.
    pub(crate) fn take_in(
        &mut self,
        bytes: &[u8],
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> Option<Buffer> {
        self.inbound.keep(bytes, allocate)
    }

    /// What no frame took so far.
    pub(crate) fn kept(&self) -> &[u8] {
        self.inbound.bytes()
    }

    /// Takes out what no frame took so far: to throw it away, or to decode it and then
    /// [give it back](Self::keep_rest).
    pub(crate) const fn take_kept(&mut self) -> Option<Buffer> {
        self.inbound.take()
    }

    /// Puts what was kept back, less the `consumed` first bytes. Returns a buffer nobody needs now.
    pub(crate) fn keep_rest(&mut self, kept: Buffer, consumed: usize) -> Option<Buffer> {
        self.inbound.give_back(kept, consumed)
    }

    /// What is kept may hold complete frames that have to wait. Returns whether any of it does.
    pub(crate) fn hold(&mut self) -> bool {
        let has_more = !self.inbound.is_empty() || self.is_encrypted() && self.has_unread_records();
        let held = self.state.handles() && has_more;
        self.bars.set(Bars::HELD, held);
        held
    }

    /// Frames that were held can be handled now, if there are any. Returns whether that is so.
    pub(crate) const fn release_held(&mut self) -> bool {
        let can = self.bars.is_at_most_held() && self.bars.has(Bars::HELD);
        if can {
            self.bars.set(Bars::HELD, false);
        }
        can
    }

    /// Counts bytes that are thrown away. Returns whether it is enough.
    pub(crate) fn discard(&mut self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let discarded = &mut self.rare.get_or_insert_default().discarded;
        *discarded = discarded.saturating_add(count);
        *discarded >= DISCARD_MAX
    }

    // What goes out.

    pub(crate) const fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// How many bytes are queued or in flight, or wait behind tickets.
    pub(crate) fn queued(&self) -> usize {
        self.outbound.queued() + self.held()
    }

    /// Takes the queue out for replies to be pushed.
    #[inline(always)]
    pub(crate) fn lend(&mut self) -> Lent {
        if self.outbound.is_empty() && self.rare.is_none() {
            return Lent { buffer: None, hint: self.outbound.hint as usize, elsewhere: 0 };
        }
        let (buffer, hint) = (self.outbound.lend(), self.outbound.hint as usize);
        Lent { buffer, hint, elsewhere: self.elsewhere() }
    }

    /// How many bytes are in flight, or go ahead of what is pending, or wait behind tickets.
    fn elsewhere(&self) -> usize {
        self.outbound.in_flight + self.outbound.bytes_ahead() + self.held()
    }

    /// Puts the queue back. Something is in it.
    #[inline]
    pub(crate) fn take_back(&mut self, queue: Buffer) {
        debug_assert!(self.outbound.pending.is_none(), "what is pending was lent");
        self.outbound.pending = Some(queue);
    }

    /// What is to be sent now: nothing while a send is in flight or the kernel is out of buffers. It is in
    /// flight from here until it is [sent](Self::sent).
    #[inline]
    pub(crate) fn next_batch(&mut self) -> Option<Buffer> {
        if self.bars.has(Bars::ENDING) && !self.state.sends() {
            return None;
        }
        match self.outbound.in_flight {
            0 => self.outbound.take_next(),
            _ => self.next_unsent(),
        }
    }

    /// Takes what was sent in part, unless the kernel is out of buffers.
    pub(crate) fn next_unsent(&mut self) -> Option<Buffer> {
        let waits = self.deadlines.get(Kind::Retry).is_some();
        if waits { None } else { self.outbound.take_unsent() }
    }

    /// A batch of records is in flight.
    pub(crate) fn departs(&mut self, batch: &Buffer) {
        self.outbound.departs(batch);
    }

    /// Takes `batch` back, `count` bytes of it sent. Returns the buffer if all of it is gone.
    #[inline(always)]
    pub(crate) fn sent(&mut self, count: usize, batch: Buffer) -> Option<Buffer> {
        let spare = self.outbound.sent(count, batch);
        if self.outbound.is_empty() {
            self.deadlines.clear(Kind::Write);
        }
        spare
    }

    /// Whether the handler is to be told that pressure fell: it has hysteresis, so that a connection
    /// that hovers at one mark does not flap.
    #[inline]
    pub(crate) fn is_relieved(&self, marks: &Watermarks) -> bool {
        self.bars.has(Bars::PRESSURED) && self.queued() <= marks.low
    }

    /// Pressure fell and the handler is told. Returns whether that is so.
    pub(crate) fn relieve(&mut self, marks: &Watermarks) -> bool {
        let relieved = self.is_relieved(marks);
        if relieved {
            self.bars.set(Bars::PRESSURED, false);
        }
        relieved
    }

    /// Throws away everything that is not in flight. Returns the buffers for the pool.
    pub(crate) fn discard_output(&mut self) -> [Option<Buffer>; 2] {
        self.bars.set(Bars::PRESSURED, false);
        self.outbound.discard()
    }

    /// The memory its buffers take, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        let rare =
            if self.rare.is_some() { self.held_capacity() + self.kept_of_records() } else { 0 };
        self.inbound.capacity() + self.outbound.capacity() + rare
    }

    // By when.

    /// When this kind is due, if it is set.
    pub(crate) const fn deadline(&self, kind: Kind) -> Option<Tick> {
        self.deadlines.get(kind)
    }

    pub(crate) const fn deadlines(&mut self) -> &mut Deadlines {
        &mut self.deadlines
    }

    /// The earliest of all deadlines.
    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.deadlines.earliest()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Bars, Buffer, Connection,
        outbound::{Lent, Watermarks},
        output::{Bounds, Origin, Output},
        pipe::Pipe,
        state::{Event, Manner, State},
    };
    use crate::{codec::Raw, error::CloseReason};

    const MARKS: Watermarks = Watermarks { high: 100, low: 40, cap: 200 };
    const BOUNDS: Bounds =
        Bounds { high: 100, cap: 200, spacious: 1 << 20, space: 1 << 30, room: 1 << 30 };

    /// What a handler sends in one callback.
    fn send(conn: &mut Connection, origin: Origin, bytes: &[u8]) {
        let Lent { buffer, hint, elsewhere } = conn.lend();
        let buffer = buffer.unwrap_or_else(|| Buffer::with_capacity(hint));
        let mut output = Output::new(buffer, elsewhere, BOUNDS, origin);
        output.push(conn, &mut Raw::new(), bytes);
        let (buffer, _) = output.into_parts();
        if !buffer.is_empty() {
            conn.take_back(buffer);
        }
    }

    /// What the kernel takes of the next batch.
    fn flush(conn: &mut Connection, count: usize) -> Vec<u8> {
        let batch = conn.next_batch().expect("bytes are queued");
        let taken = batch.bytes()[..count].to_vec();
        conn.sent(count, batch);
        taken
    }

    #[test]
    fn the_first_reason_counts() {
        let mut conn = Connection::new(Pipe::Plain);
        conn.close(CloseReason::ByHandler);
        conn.fail(CloseReason::WriteTimeout, true);
        assert!(matches!(conn.take_reason(), Some(CloseReason::ByHandler)));
        assert_eq!((conn.state(), conn.manner()), (State::Closing, Manner::Reset));
    }

    #[test]
    fn a_whole_life_without_io() {
        let mut conn = Connection::new(Pipe::Plain);
        assert!(conn.takes_frames_in_place() && conn.wants_receive());
        conn.take_in(b"half a requ", Buffer::with_capacity);
        assert!(!conn.takes_frames_in_place() && conn.wants_receive(), "its rest is waited for");
        let kept = conn.take_kept().expect("it is kept");
        conn.keep_rest(kept, 11);
        send(&mut conn, Origin::Reply, b"reply");
        assert_eq!(flush(&mut conn, 2), b"re");
        send(&mut conn, Origin::Reply, b"-two");
        conn.apply(Event::PeerFinished);
        assert!(conn.is_at_end() && !conn.wants_receive());
        assert!(conn.tell_end() && !conn.tell_end(), "once");
        conn.close(CloseReason::PeerFinished);
        send(&mut conn, Origin::Reply, b"too late");
        assert_eq!(flush(&mut conn, 3), b"ply");
        assert_eq!(flush(&mut conn, 4), b"-two");
        assert!(conn.outbound().is_empty());
        conn.apply(Event::Flushed);
        conn.apply(Event::Released);
        assert_eq!((conn.state(), conn.manner()), (State::Closed, Manner::InOrder));
        assert_eq!(conn.capacity(), 0);
    }

    #[test]
    fn a_side_that_has_finished_takes_no_more_replies_and_goes_on_with_frames() {
        let mut conn = Connection::new(Pipe::Plain);
        send(&mut conn, Origin::Reply, b"last");
        assert!(!conn.bars.has(Bars::ENDS));
        conn.finish();
        send(&mut conn, Origin::Reply, b"reply");
        send(&mut conn, Origin::Push, b"push");
        assert_eq!(conn.outbound().queued(), 4, "what comes behind the end is dropped");
        assert!(conn.takes_frames_in_place() && conn.wants_receive());
        conn.take_in(b"a frame", Buffer::with_capacity);
        assert!(conn.hold() && conn.release_held(), "it bars no frame");
        assert!(conn.finishes() && conn.bars.has(Bars::ENDS));
        flush(&mut conn, 4);
        conn.apply(Event::Flushed);
        assert_eq!(conn.state(), State::Open);
        conn.apply(Event::PeerFinished);
        assert!(conn.is_at_end() && conn.finishes());
        conn.close(CloseReason::PeerFinished);
        assert!(!conn.finishes(), "now it closes");
    }

    #[test]
    fn pressure_rises_above_high_and_falls_at_low() {
        let mut conn = Connection::new(Pipe::Plain);
        send(&mut conn, Origin::Reply, &[b'x'; 100]);
        assert!(conn.bars().is_none(), "at the high watermark");
        send(&mut conn, Origin::Reply, b"x");
        assert!(conn.bars().has(Bars::PRESSURED), "above it");
        for (sent, queued, relieved) in [(30, 71, false), (30, 41, false), (1, 40, true)] {
            flush(&mut conn, sent);
            assert_eq!(conn.outbound().queued(), queued);
            assert_eq!(conn.relieve(&MARKS), relieved, "{queued} queued");
        }
        send(&mut conn, Origin::Reply, &[b'x'; 60]);
        assert!(conn.bars().is_none(), "no flapping between the marks");
    }

    #[test]
    fn a_push_beyond_the_cap_ends_the_connection_and_a_reply_does_not() {
        for (origin, first, second, ends) in [
            (Origin::Reply, 150, 150, false),
            (Origin::Push, 500, 0, false),
            (Origin::Push, 150, 50, false),
            (Origin::Push, 150, 51, true),
        ] {
            let mut conn = Connection::new(Pipe::Plain);
            send(&mut conn, origin, &vec![b'x'; first]);
            if second > 0 {
                send(&mut conn, origin, &vec![b'x'; second]);
            }
            let ended = matches!(conn.take_reason(), Some(CloseReason::OutputOverflow));
            assert_eq!(ended, ends, "{origin:?} of {first} and {second} bytes");
        }
    }

    #[test]
    fn what_keeps_it_from_the_next_frame_keeps_it_from_receiving() {
        let mut conn = Connection::new(Pipe::Plain);
        conn.pause(true);
        assert!(!conn.wants_receive(), "paused");
        conn.take_in(b"a frame", Buffer::with_capacity);
        assert!(conn.hold() && !conn.release_held(), "still paused");
        conn.pause(false);
        assert!(!conn.wants_receive(), "frames are held");
        assert!(conn.release_held() && !conn.release_held());
        assert!(conn.wants_receive());
        conn.close(CloseReason::ByHandler);
        assert!(conn.wants_receive(), "what comes now is thrown away");
    }
}
