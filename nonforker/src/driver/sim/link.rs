//! One simulated connection: what is under way in each direction, and what each side has seen.
//!
//! ```text
//!  client ── Up ──▶ up ──▶ Received ──▶ server
//!  inbox ◀── unread ◀── Down ◀── Send ── server
//!            └─ at most `window` bytes from Send to inbox ─┘
//! ```

use std::{mem, time::Duration};

use crate::{address::Peer, conn::buffer::Buffer, driver::Token};

/// How a direction of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Finished,
    Reset,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Whatever arrives, at once.
    All,
    /// Nothing.
    Stalled,
    /// That many bytes each time.
    Slow { bytes: usize, every: Duration },
}

/// Where the server has the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way, or waiting to be accepted.
    Backlog,
    /// Accepted, not yet adopted.
    Accepted,
    Adopted(Token),
    Closed,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Link {
    /// Bytes that have arrived at the server and are not received yet, from `up_start` on.
    pub(crate) up: Vec<u8>,
    pub(crate) up_start: usize,
    /// How the client's direction ended, as far as that has arrived.
    pub(crate) up_end: End,
    /// Bytes and ends leave one after the other: nothing arrives before this.
    pub(crate) up_clock: Duration,
    pub(crate) urgent: Option<u8>,
    /// `up_end` was reported to the server.
    pub(crate) end_reported: bool,
    /// The client had finished in order when its reset arrived, and that was not reported to the server.
    pub(crate) finish_unreported: bool,

    /// Bytes from the server that are under way.
    pub(crate) down_flying: usize,
    pub(crate) down_clock: Duration,
    /// Bytes that have arrived at the client and are not read yet.
    pub(crate) unread: Vec<u8>,
    /// The most bytes between the server's send and the client's read.
    pub(crate) window: usize,
    /// There is room again only when a third of the window is free, as in a kernel.
    pub(crate) coarse: bool,
    /// How the server's direction ended, as far as that has arrived.
    pub(crate) down_end: End,

    /// Bytes that the client has read and its script has not taken.
    pub(crate) inbox: Vec<u8>,
    pub(crate) reading: Reading,
    /// The client has finished sending.
    pub(crate) half_closed: bool,
    /// The client is gone: whatever arrives for it is answered with a reset.
    pub(crate) gone: bool,

    /// The client's address, as the server sees it.
    pub(crate) peer: Peer,
    pub(crate) state: State,
    /// The shard that has accepted it.
    pub(crate) shard: usize,
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
    /// A client that has done nothing yet.
    pub(super) fn new(window: usize, coarse: bool, peer: Peer) -> Self {
        Self {
            up: Vec::new(),
            up_start: 0,
            up_end: End::Open,
            up_clock: Duration::ZERO,
            urgent: None,
            end_reported: false,
            finish_unreported: false,
            down_flying: 0,
            down_clock: Duration::ZERO,
            unread: Vec::new(),
            window,
            coarse,
            down_end: End::Open,
            inbox: Vec::new(),
            reading: Reading::All,
            half_closed: false,
            gone: false,
            peer,
            state: State::Backlog,
            shard: 0,
            receiving: false,
            sending: None,
            shut: false,
            report_clock: Duration::ZERO,
            queued: false,
        }
    }

    /// The client's direction ends. A reset destroys what the server has not received, unless the
    /// client had finished before: then kernels keep the bytes and the end, and report the reset
    /// behind them.
    pub(super) fn end_up(&mut self, end: End) {
        if self.up_end == End::Reset {
            return;
        }
        if end == End::Reset {
            self.finish_unreported = self.up_end == End::Finished && !self.end_reported;
            if !self.finish_unreported {
                self.lose_input();
            }
        }
        self.up_end = end;
        self.end_reported = false;
    }

    /// Destroys what has arrived, with the end that came behind it.
    pub(super) fn lose_input(&mut self) {
        if self.arrived() > 0 {
            self.up_end = End::Open;
        }
        self.up.clear();
        self.up_start = 0;
    }

    /// Whether the end of the stream is what the server receives next.
    pub(super) const fn is_finished(&self) -> bool {
        let has_finished = matches!(self.up_end, End::Finished) || self.finish_unreported;
        self.arrived() == 0 && has_finished
    }

    /// How many bytes wait to be received.
    pub(crate) const fn arrived(&self) -> usize {
        self.up.len() - self.up_start
    }

    /// Takes out what has arrived, to be lent to the server: the bytes, and where they begin.
    pub(super) fn lend(&mut self) -> (Vec<u8>, usize) {
        (mem::take(&mut self.up), mem::replace(&mut self.up_start, 0))
    }

    /// Puts the bytes back of which the server has taken those before `start`. More may have
    /// arrived while it had them, or a reset, which destroys them.
    pub(super) fn give_back(&mut self, mut lent: Vec<u8>, start: usize) {
        if self.up_end == End::Reset && !self.finish_unreported {
            return;
        }
        lent.append(&mut self.up);
        self.up = lent;
        self.up_start = start;
        if self.arrived() == 0 {
            self.up.clear();
            self.up_start = 0;
        }
    }

    /// How many bytes the server may send now.
    pub(crate) const fn room(&self) -> usize {
        let free = self.window.saturating_sub(self.down_flying + self.unread.len());
        if self.coarse && free < self.window / 3 { 0 } else { free }
    }

    /// How many bytes the server has sent and the client has not read: only what is read counts as
    /// acknowledged, as with a peer's kernel that has no room.
    pub(crate) const fn unacknowledged(&self) -> usize {
        self.down_flying + self.unread.len()
    }

    /// Whether the client has seen the end of what the server sends, and read all of it.
    pub(crate) fn is_ended(&self) -> bool {
        self.down_end == End::Reset || (self.down_end == End::Finished && self.unread.is_empty())
    }

    /// How the client's direction ended, if the server does not know yet. It counts as reported now, and
    /// receives no more.
    pub(crate) const fn take_end(&mut self) -> Option<End> {
        if matches!(self.up_end, End::Open) || self.end_reported {
            return None;
        }
        self.receiving = false;
        // A reset behind an end is reported after it.
        let has_finished = mem::replace(&mut self.finish_unreported, false);
        self.end_reported = !has_finished;
        Some(if has_finished { End::Finished } else { self.up_end })
    }

    /// Whether the server has let go of it.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Moves up to `count` unread bytes to the inbox. Returns how many.
    pub(crate) fn read(&mut self, count: usize) -> usize {
        let count = count.min(self.unread.len());
        if count == self.unread.len() && self.inbox.is_empty() {
            mem::swap(&mut self.inbox, &mut self.unread);
        } else {
            self.inbox.extend(self.unread.drain(..count));
        }
        count
    }
}
