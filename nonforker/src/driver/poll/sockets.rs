//! The connections of the poll driver, and whose turn it is.
//!
//! ```text
//!  an edge ── note ──▶ its turn ──▶ sink
//!                         └── has more ──▶ turns ── serve_more ──▶ its next turn ──▶ sink
//! ```
//!
//! Invariant: a connection that could be read from without a new edge, and is wanted to be, is among
//! those that have more.

use slotmap::SecondaryMap;
use socket2::Socket;

use super::entry::{Entry, Waiting};
use crate::{
    conn::buffer::Buffer,
    driver::{Next, Sink, Token, turns::Turns},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sockets {
    entries: SecondaryMap<Token, Entry>,
    /// Also of those that receive again and may have something.
    pub(super) turns: Turns,
    /// Where all of them are read into.
    scratch: Box<[u8]>,
    waiting: Waiting,
}

impl Sockets {
    pub(super) fn new(read_max: usize) -> Self {
        Self {
            entries: SecondaryMap::new(),
            turns: Turns::default(),
            scratch: vec![0; read_max].into_boxed_slice(),
            waiting: Waiting::new(),
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
        let entry = self.entries.remove(token)?;
        Some((entry.socket, self.waiting.remove(&token)))
    }

    pub(super) fn receive(&mut self, token: Token, on: bool) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.receive(on);
            if entry.queue() {
                self.turns.push_more(token);
            }
        }
    }

    /// A connection, and where its sends wait.
    #[inline]
    pub(super) fn sending(&mut self, token: Token) -> Option<(&mut Entry, &mut Waiting)> {
        Some((self.entries.get_mut(token)?, &mut self.waiting))
    }

    /// Remembers what a report says, and gives its connection a turn if it does not wait for one.
    #[inline]
    pub(super) fn note(&mut self, token: Token, says: u16, sink: &mut impl Sink<Socket>) -> Next {
        let Self { entries, turns, scratch, waiting } = self;
        let Some(entry) = entries.get_mut(token) else { return Next::Return };
        if entry.note(says) {
            return Next::Return;
        }
        let next = entry.serve(token, scratch, waiting, sink);
        if entry.queue() {
            turns.push_more(token);
        }
        next
    }

    /// Gives the first `count` of those that have more a turn, as far as the sink takes it. Who may
    /// have still more comes again, behind the next look.
    pub(super) fn serve_more(&mut self, count: usize, sink: &mut impl Sink<Socket>) {
        let Self { entries, turns, scratch, waiting } = self;
        for _ in 0..count {
            let Some(token) = turns.pop_more() else { return };
            let Some(entry) = entries.get_mut(token) else { continue };
            let next = entry.serve(token, scratch, waiting, sink);
            if entry.queue() {
                turns.push_more(token);
            }
            if next == Next::Enough {
                return;
            }
        }
    }
}
