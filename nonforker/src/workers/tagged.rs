//! The tagged protocol: each client has a name to the worker it stays with, which may speak unasked.
//!
//! ```text
//!  client ── frame ──▶ data ID PAYLOAD ──▶ book.rs: a line for its worker ──▶ while it takes them
//!  client ◀── framed here ── data ID PAYLOAD ◀── conns.rs ◀── worker
//! ```
//!
//! A line for a worker waits here while the worker has more than a MiB before it; what clients say has a
//! place in the [gate](super::gate) until then. What a worker says goes to the client at once, and a client
//! that does not take it is closed: no worker waits for a client.

use std::time::Instant;

use super::{
    BytesCodec,
    channel::ToClients,
    framed,
    gate::Left,
    lines::{self, Said, Why},
    pool::{Pool, refusal, refusal_of_reply},
};
use crate::{address::Peer, context::ConnId};

/// What a line of a worker was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Line,
    /// It is for a client that there is not, or not any more.
    UnknownId,
    /// It is none.
    BadLine,
}

/// A line of ours as the worker's codec frames it: what is wrong with it, is the worker's to see.
fn encoded<W: BytesCodec>(prototype: &W, line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.len() + 2);
    let _ = prototype.clone().encode(line, &mut bytes);
    bytes
}

impl<W: BytesCodec, C: BytesCodec> Pool<W, C> {
    /// A client has come.
    pub(super) fn open(&mut self, client: ConnId, peer: &Peer) {
        let Self { book: Some(book), workers, settings, is_over: false, .. } = self else {
            return self.tell(client, ToClients::Close { client });
        };
        let lives = |worker: usize| workers[worker].conn.is_some();
        book.open(client, peer, lives, |line| encoded(&settings.codec, line));
    }

    /// A client has said something. It had a place for that.
    ///
    /// # Errors
    ///
    /// Why the client is to be closed.
    pub(super) fn data(&mut self, client: ConnId, payload: &[u8]) -> Result<(), &'static str> {
        let bytes = payload.len();
        let id = self.book.as_ref().and_then(|book| book.id(client));
        let line = id.map(|id| (id, framed(&self.settings.codec, &lines::data(id, payload))));
        match (line, &mut self.book) {
            (Some((id, Ok(framed))), Some(book)) => {
                book.data(id, framed, bytes);
                Ok(())
            }
            (Some((_, Err(error))), _) => {
                self.left(client, Left::one(bytes));
                Err(refusal(&error))
            }
            // It is being closed.
            _ => {
                self.left(client, Left::one(bytes));
                Ok(())
            }
        }
    }

    /// A client has finished sending.
    pub(super) fn end(&mut self, client: ConnId, now: Instant) {
        let until = self.settings.timeout.and_then(|timeout| now.checked_add(timeout));
        if let Some(book) = &mut self.book {
            book.ends(client, until, |line| encoded(&self.settings.codec, line));
        }
    }

    /// A client is gone, or is to be.
    pub(super) fn gone(&mut self, client: ConnId, why: Why) {
        let Some(book) = &mut self.book else { return self.forget(client) };
        let left = book.close(client, why, |line| encoded(&self.settings.codec, line));
        left.into_iter().for_each(|(client, left)| self.left(client, left));
    }

    /// A worker has ended: so do its clients, or those only that it knew.
    pub(super) fn disperse(&mut self, worker: usize, all: bool) {
        let Some(book) = &mut self.book else { return };
        let (clients, left) = book.worker_ended(worker, all);
        left.into_iter().for_each(|(client, left)| self.left(client, left));
        clients.into_iter().for_each(|client| self.tell(client, ToClients::Close { client }));
    }

    /// Writes lines to workers that take them.
    pub(super) fn feed_tagged(&mut self, mut write: impl FnMut(ConnId, &[u8]) -> bool) {
        for number in 0..self.workers.len() {
            let Some(conn) = self.workers[number].conn else { continue };
            let mut takes = true;
            while let Some(book) = &mut self.book
                && book.has_lines(number)
                && takes
            {
                takes = write(conn, &[]);
                if takes && let Some((line, left)) = book.next(number) {
                    takes = write(conn, &line);
                    self.workers[number].was_used = true;
                    if let Some((client, left)) = left {
                        self.left(client, left);
                    }
                }
            }
        }
    }

    /// Whether a worker that lives takes no more lines for now.
    pub(super) fn is_any_full(&self) -> bool {
        let Some(book) = &self.book else { return false };
        let mut workers = self.workers.iter().enumerate();
        workers.any(|(number, worker)| worker.conn.is_some() && book.has_lines(number))
    }

    /// A worker has written a line.
    pub(super) fn heard(&mut self, worker: usize, line: &[u8]) -> Heard {
        let client_of = |id| self.book.as_ref().and_then(|book| book.client_of(id, worker));
        let (client, payload) = match Said::read(line) {
            Said::Nothing => return Heard::BadLine,
            Said::Data { id, payload } => (client_of(id), Some(payload)),
            Said::Close { id } => (client_of(id), None),
        };
        self.succeeds(worker);
        let Some(client) = client else { return Heard::UnknownId };
        match payload.map(|payload| framed(&self.replies, payload)) {
            Some(Ok(_)) if self.is_full_for(client) => {
                self.gone(client, Why::Limit);
                self.tell(client, ToClients::Overflows { client });
            }
            Some(Ok(framed)) => self.tell(client, ToClients::Send { client, framed }),
            Some(Err(error)) => self.refuse(client, refusal_of_reply(&error)),
            None => {
                self.gone(client, Why::Worker);
                self.tell(client, ToClients::Close { client });
            }
        }
        Heard::Line
    }

    /// Closes a client, and says why.
    pub(super) fn refuse(&mut self, client: ConnId, why: &'static str) {
        self.gone(client, Why::Limit);
        self.tell(client, ToClients::Refuse { client, why });
    }

    /// Closes clients that have ended and whose time is over.
    pub(super) fn end_late(&mut self, now: Instant) {
        while let Some(client) = self.book.as_mut().and_then(|book| book.over(now)) {
            self.gone(client, Why::Timeout);
            self.tell(client, ToClients::Close { client });
        }
    }
}
