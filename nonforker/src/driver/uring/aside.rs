//! What has to wait until somebody wants it: bytes and the end behind them, by connection.
//!
//! ```text
//!  stash ──▶ [piece][piece][piece] end ──▶ next, in shares of a turn ──▶ end
//! ```
//!
//! Each piece is copied out of its receive buffer into memory of just its length, and that memory
//! goes when the piece has been delivered. Most connections have nothing here, and so no entry.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use rustix::io::Errno;

use crate::driver::Token;

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    /// The number of the error.
    Broken(i32),
}

impl End {
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::Broken(error.raw_os_error().unwrap_or(Errno::CONNRESET.raw_os_error()))
    }
}

/// What one connection has aside.
#[derive(Debug, Default)]
struct Entry {
    /// Bytes that came while they were not wanted, or beyond the turn's share.
    pieces: VecDeque<Box<[u8]>>,
    /// How much of the first piece has been delivered, and of all of them has not.
    delivered: usize,
    bytes: usize,
    /// It comes behind them.
    end: Option<End>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Aside {
    entries: BTreeMap<Token, Entry>,
    /// The bytes of all pieces.
    bytes: usize,
}

impl Aside {
    /// How many bytes are stashed, of everybody.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn stash(&mut self, token: Token, bytes: &[u8]) {
        self.bytes += bytes.len();
        let entry = self.entries.entry(token).or_default();
        entry.bytes += bytes.len();
        entry.pieces.push_back(bytes.into());
    }

    /// How many bytes of a connection have not been delivered.
    pub(super) fn bytes_of(&self, token: Token) -> usize {
        self.entries.get(&token).map_or(0, |entry| entry.bytes)
    }

    /// Up to `most` bytes of a connection's first piece, with which it is to be served. They have
    /// been [served](Self::served) afterwards.
    pub(super) fn next(&self, token: Token, most: usize) -> &[u8] {
        let Some(entry) = self.entries.get(&token) else { return &[] };
        let piece = entry.pieces.front().map_or(&[][..], |piece| &piece[entry.delivered..]);
        &piece[..most.min(piece.len())]
    }

    /// So many bytes of a connection's first piece have been delivered.
    pub(super) fn served(&mut self, token: Token, count: usize) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        entry.delivered += count;
        entry.bytes -= count;
        if entry.pieces.front().is_some_and(|piece| piece.len() == entry.delivered) {
            entry.pieces.pop_front();
            self.bytes -= std::mem::take(&mut entry.delivered);
        }
    }

    pub(super) fn set_end(&mut self, token: Token, end: End) {
        self.entries.entry(token).or_default().end = Some(end);
    }

    pub(super) fn end(&self, token: Token) -> Option<End> {
        self.entries.get(&token)?.end
    }

    /// Forgets a connection.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(entry) = self.entries.remove(&token) {
            self.bytes -= entry.pieces.iter().map(|piece| piece.len()).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::KeyData;

    use super::*;

    #[test]
    fn what_is_stashed_comes_in_order_and_is_accounted_for() {
        let (token, other) = (KeyData::from_ffi(1).into(), KeyData::from_ffi(2).into());
        let mut aside = Aside::default();
        aside.stash(token, b"abcd");
        aside.stash(token, b"ef");
        aside.stash(other, b"xyz");
        assert_eq!(aside.bytes(), 9);
        let mut served = Vec::new();
        while aside.bytes_of(token) > 0 {
            let bytes = aside.next(token, 3).to_vec();
            aside.served(token, bytes.len());
            served.push(bytes);
        }
        assert_eq!(served, [&b"abc"[..], b"d", b"ef"]);
        assert_eq!(aside.bytes(), 3);
        aside.set_end(token, End::Finished);
        assert_eq!(aside.end(token), Some(End::Finished));
        aside.forget(token);
        aside.forget(other);
        assert_eq!(aside.bytes(), 0);
        assert!(aside.entries.is_empty(), "nobody is remembered");
    }
}
