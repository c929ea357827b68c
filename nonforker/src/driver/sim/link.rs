//! One simulated connection: what is under way in each direction, and what each side has seen.
//!
//! ```text
//!  client ── Up ──▶ up ──▶ Received ──▶ server
//!  inbox ◀── unread ◀── Down ◀── Send ── server
//!            └─ at most `window` bytes from Send to inbox ─┘
//! ```

use std::time::Duration;

use crate::{conn::buffer::Buffer, driver::Token};

/// How a direction of a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Open,
    Finished,
    Reset,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Whatever arrives, at once.
    #[default]
    All,
    /// Nothing.
    Stalled,
    /// That many bytes each time.
    Slow { bytes: usize, every: Duration },
}

/// Where the server has the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// On its way, or waiting to be accepted.
    #[default]
    Backlog,
    /// Accepted, not yet adopted.
    Accepted,
    Adopted(Token),
    Closed,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Bytes that have arrived at the server and are not received yet, from `up_start` on.
    pub(crate) up: Vec<u8>,
    pub(crate) up_start: usize,
    /// How the client's direction ended, as far as that has arrived.
    pub(crate) up_end: End,
    /// Bytes and ends leave one after the other: nothing arrives before this.
    pub(crate) up_clock: Duration,
    pub(crate) urgent: Option<u8>,
    /// The server was told of `up_end`.
    pub(crate) told_end: bool,
    /// The client had finished in order when its reset arrived, and the server was not told of that.
    pub(crate) untold_finish: bool,

    /// Bytes from the server that are under way.
    pub(crate) down_flying: usize,
    pub(crate) down_clock: Duration,
    /// Bytes that have arrived at the client and are not read yet.
    pub(crate) unread: Vec<u8>,
    /// The most bytes between the server's send and the client's read.
    pub(crate) window: usize,
    /// How the server's direction ended, as far as that has arrived.
    pub(crate) down_end: End,

    /// Bytes that the client has read and its script has not taken.
    pub(crate) inbox: Vec<u8>,
    pub(crate) reading: Reading,
    /// The client has finished sending.
    pub(crate) half_closed: bool,
    /// The client is gone: whatever arrives for it is answered with a reset.
    pub(crate) gone: bool,

    pub(crate) side: Side,
    pub(crate) receiving: bool,
    pub(crate) sending: Option<Buffer>,
    /// The server has finished sending.
    pub(crate) shut: bool,
    /// No report about the connection comes before this.
    pub(crate) report_clock: Duration,
    /// It is in the world's queue of those to be looked at.
    pub(crate) queued: bool,
}

impl Link {
    /// How many bytes wait to be received.
    pub(crate) const fn arrived(&self) -> usize {
        self.up.len() - self.up_start
    }

    /// How many bytes the server may send now.
    pub(crate) const fn room(&self) -> usize {
        self.window.saturating_sub(self.down_flying + self.unread.len())
    }

    /// Whether the client has seen the end of what the server sends, and read all of it.
    pub(crate) fn is_ended(&self) -> bool {
        self.down_end == End::Reset || (self.down_end == End::Finished && self.unread.is_empty())
    }

    /// How the client's direction ended, if the server was not told of it. Then it is told now, and
    /// receives no more.
    pub(crate) const fn take_end(&mut self) -> Option<End> {
        if matches!(self.up_end, End::Open) || self.told_end {
            return None;
        }
        self.receiving = false;
        // A reset behind an end is told after it.
        let has_finished = std::mem::replace(&mut self.untold_finish, false);
        self.told_end = !has_finished;
        Some(if has_finished { End::Finished } else { self.up_end })
    }

    /// Whether the server has let go of it.
    pub(crate) fn is_closed(&self) -> bool {
        self.side == Side::Closed
    }

    /// Moves up to `count` unread bytes to the inbox. Returns how many.
    pub(crate) fn read(&mut self, count: usize) -> usize {
        let count = count.min(self.unread.len());
        if count == self.unread.len() && self.inbox.is_empty() {
            std::mem::swap(&mut self.inbox, &mut self.unread);
        } else {
            self.inbox.extend(self.unread.drain(..count));
        }
        count
    }
}
