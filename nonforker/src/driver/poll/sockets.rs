//! The connections of the poll driver, and whose turn it is.
//!
//! ```text
//!  an edge ── note ──▶ its turn ──▶ sink
//!                         └── has more ──▶ turns ── serve_more ──▶ its next turn ──▶ sink
//! ```
//!
//! Invariant: a connection that could be read from without a new edge, and is wanted to be, is among
//! those that have more.

use std::mem;

use mio::event::Event;
use slotmap::SecondaryMap;
use socket2::Socket;

use super::entry::Entry;
use crate::{
    conn::buffer::Buffer,
    driver::{Next, Sent, Sink, Token, turns::Turns},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sockets {
    entries: SecondaryMap<Token, Entry>,
    /// Also of those that receive again and may have something.
    pub(super) turns: Turns,
    /// Where all of them are read into.
    scratch: Box<[u8]>,
}

impl Sockets {
    pub(super) fn new(read_max: usize) -> Self {
        Self {
            entries: SecondaryMap::new(),
            turns: Turns::default(),
            scratch: vec![0; read_max].into_boxed_slice(),
        }
    }

    pub(super) fn adopt(&mut self, token: Token, socket: Socket) {
        self.entries.insert(token, Entry::new(socket));
    }

    pub(super) fn socket(&self, token: Token) -> Option<&Socket> {
        self.entries.get(token).map(|entry| &entry.socket)
    }

    /// Takes a connection out, with what was in flight.
    pub(super) fn release(&mut self, token: Token) -> Option<(Socket, Option<Buffer>)> {
        self.entries.remove(token).map(|entry| (entry.socket, entry.sending))
    }

    pub(super) fn receive(&mut self, token: Token, on: bool) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.receiving = on;
            if on && entry.is_readable() {
                enqueue(&mut self.turns, entry, token);
            }
        }
    }

    #[inline]
    pub(super) fn send(&mut self, token: Token, batch: Buffer) -> Option<Sent> {
        let entry = self.entries.get_mut(token)?;
        debug_assert!(entry.sending.is_none(), "one send in flight");
        entry.send(batch)
    }

    /// Remembers what an edge says, and gives its connection a turn if it does not wait for one.
    #[inline]
    pub(super) fn note(
        &mut self,
        token: Token,
        event: &Event,
        sink: &mut Sink<'_, Socket>,
    ) -> Next {
        let Some(entry) = self.entries.get_mut(token) else { return Next::Return };
        entry.note(event);
        if entry.queued {
            return Next::Return;
        }
        take_turn(entry, token, &mut self.turns, &mut self.scratch, sink)
    }

    /// Gives the first `count` of those that have more a turn, as far as the sink takes it.
    pub(super) fn serve_more(&mut self, count: usize, sink: &mut Sink<'_, Socket>) {
        for _ in 0..count {
            let Some(token) = self.turns.pop_more() else { return };
            let Some(entry) = self.entries.get_mut(token) else { continue };
            entry.queued = false;
            let next = take_turn(entry, token, &mut self.turns, &mut self.scratch, sink);
            if next == Next::Enough {
                return;
            }
        }
    }
}

/// Serves a connection. If it may have more, it comes again.
#[inline(always)]
fn take_turn(
    entry: &mut Entry,
    token: Token,
    turns: &mut Turns,
    scratch: &mut [u8],
    sink: &mut Sink<'_, Socket>,
) -> Next {
    let next = entry.serve(token, scratch, sink);
    if entry.is_readable() && entry.receiving {
        enqueue(turns, entry, token);
    }
    next
}

/// Has a connection served after the next look for edges.
fn enqueue(turns: &mut Turns, entry: &mut Entry, token: Token) {
    if !mem::replace(&mut entry.queued, true) {
        turns.push_more(token);
    }
}
