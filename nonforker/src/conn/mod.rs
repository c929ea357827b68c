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
//! 1. Bytes arrive: while [`may_handle`](Connection::may_handle) they are decoded and handled;
//!    what no frame took is [kept](inbound::Inbound::keep).
//! 2. Replies are appended to [`outbound`](Connection::outbound).
//! 3. At the end of the turn the engine [takes](outbound::Outbound::take) what is queued, sends
//!    it, and [reports](Connection::apply) an empty queue as [`Event::Flushed`].
//! 4. It receives while [`wants_receive`](Connection::wants_receive).
//! 5. [`close`](Connection::close) and [`fail`](Connection::fail) end it; the first reason counts.

pub(crate) mod buffer;
pub(crate) mod deadlines;
pub(crate) mod inbound;
pub(crate) mod outbound;
#[cfg_attr(not(test), expect(dead_code, reason = "the engine does not receive headers yet"))]
pub(crate) mod proxy;
pub(crate) mod state;

use self::{
    deadlines::Deadlines,
    inbound::Inbound,
    outbound::Outbound,
    state::{Event, State},
};
use crate::error::CloseReason;

/// The most bytes that are thrown away while a connection closes, before it is cut off.
pub(crate) const DISCARD_MAX: u32 = 16 * 1024 * 1024;

/// One accepted stream, from accept to closed.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) deadlines: Deadlines,
    /// The handler does not want frames for now.
    pub(crate) paused: bool,
    /// The server drains: what has not arrived by now is not waited for.
    pub(crate) cut: bool,
    /// The driver shall reset the connection instead of closing it in order.
    reset: bool,
    /// An event came that cannot come. Never true, says every test.
    illegal: bool,
    discarded: u32,
    reason: Option<Box<CloseReason>>,
}

impl Connection {
    /// A connection that has just been accepted.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Open,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            deadlines: Deadlines::default(),
            paused: false,
            cut: false,
            reset: false,
            illegal: false,
            discarded: 0,
            reason: None,
        }
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// Whether the close has to be a reset.
    pub(crate) const fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether an event came that cannot come.
    pub(crate) const fn is_illegal(&self) -> bool {
        self.illegal
    }

    /// Why it ended, or is about to; once.
    pub(crate) fn take_reason(&mut self) -> Option<CloseReason> {
        self.reason.take().map(|reason| *reason)
    }

    /// Moves the state. An event that cannot happen ends the connection.
    pub(crate) const fn apply(&mut self, event: Event) {
        self.state = match self.state.after(event) {
            Ok(state) => state,
            Err(_) => {
                self.illegal = true;
                State::Closing
            }
        };
    }

    /// Asks for a close once everything queued is sent. The first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.reason.get_or_insert_with(|| Box::new(reason));
        self.inbound.held = false;
        self.apply(Event::CloseRequested);
    }

    /// Ends it at once, with a reset towards the peer if `reset`. The first reason counts.
    pub(crate) fn fail(&mut self, reason: CloseReason, reset: bool) {
        self.reason.get_or_insert_with(|| Box::new(reason));
        self.reset |= reset;
        self.apply(Event::Failed);
    }

    /// Whether the handler may be given the next frame.
    pub(crate) const fn may_handle(&self) -> bool {
        self.state.handles() && !self.paused && !self.outbound.is_pressured()
    }

    /// Whether the driver should receive.
    pub(crate) const fn wants_receive(&self) -> bool {
        match self.state {
            State::Open => self.may_handle() && !self.inbound.held && !self.cut,
            State::Draining => self.discarded < DISCARD_MAX,
            State::Lingering => true,
            State::HalfClosed | State::Finishing | State::Closing | State::Closed => false,
        }
    }

    /// Whether all frames are handled and the end of the stream is what comes next.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.inbound.ended && !self.inbound.held && self.may_handle()
    }

    /// Counts bytes that are thrown away. Returns whether it is enough.
    pub(crate) fn discard(&mut self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.discarded = self.discarded.saturating_add(count);
        self.discarded >= DISCARD_MAX
    }

    /// The memory its buffers take, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.inbound.capacity() + self.outbound.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, State};
    use crate::error::CloseReason;

    #[test]
    fn the_first_reason_counts() {
        let mut conn = Connection::new();
        conn.close(CloseReason::ByHandler);
        conn.fail(CloseReason::WriteTimeout, true);
        assert!(matches!(conn.take_reason(), Some(CloseReason::ByHandler)));
        assert_eq!(conn.state(), State::Closing);
        assert!(conn.is_reset());
        assert!(!conn.is_illegal());
    }

    #[test]
    fn a_connection_that_may_not_handle_does_not_receive() {
        let mut conn = Connection::new();
        assert!(conn.wants_receive());
        conn.paused = true;
        assert!(!conn.wants_receive(), "paused");
        conn.paused = false;
        conn.inbound.held = true;
        assert!(!conn.wants_receive(), "frames are held");
        conn.close(CloseReason::ByHandler);
        assert!(conn.wants_receive(), "what comes now is thrown away");
    }
}
