//! In which order reports are delivered.
//!
//! ```text
//!  reports of one look ──▶ of everybody ──────────────────▶ sink
//!                     └──▶ large pieces of those who flood ─▶ sink, behind everybody
//! ```
//!
//! What a sink that has enough leaves is delivered by the next waits, which hand over what this one
//! led to. What they fetch comes after it; but before what those who flood have brought, of which
//! each look lets at least one pass. So whoever floods waits for the others, and they do not wait
//! for it.

use std::collections::VecDeque;

use slotmap::{Key, KeyData};

use super::{
    Incoming, UringDriver,
    receiving::is_much,
    report::{Kind, Report},
};
use crate::driver::{Next, Sink, Token};

/// The reports that wait for others.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// So many of those that were fetched come next.
    left: usize,
    /// The pieces of those who flood: one of each at most, since they are received from piece by
    /// piece.
    floods: VecDeque<Report>,
    /// Some of these waited when there was a look, and none had its turn since.
    owed: bool,
}

impl Round {
    /// Whether reports of the last look are left, or pieces whose turn has come.
    pub(super) const fn is_behind(&self) -> bool {
        self.left > 0 || self.owed
    }

    /// How many bytes of a connection wait for the others.
    pub(super) fn bytes_of(&self, token: Token) -> usize {
        let who = token.data().as_ffi();
        let of_it = self.floods.iter().filter(|report| report.name.who == who);
        of_it.filter_map(|report| report.lent.as_ref()).map(|lent| lent.length).sum()
    }

    /// Whether something is left to be delivered.
    pub(super) fn is_left(&self) -> bool {
        self.left > 0 || !self.floods.is_empty()
    }
}

impl UringDriver {
    /// Delivers what was fetched, as far as the sink takes it. Returns whether everybody has told.
    pub(super) fn serve_reports(&mut self, sink: &mut Sink<'_, Incoming>) -> bool {
        if self.round.left == 0 && !self.round.owed {
            self.round.left = self.ring.waiting();
            self.round.owed = !self.round.floods.is_empty();
        }
        let mut next = Next::Return;
        while self.round.left > 0 && next != Next::Enough {
            self.round.left -= 1;
            let Some(report) = self.ring.next() else { continue };
            if self.is_of_flood(&report) {
                self.round.floods.push_back(report);
            } else {
                next = self.take(report, sink);
            }
        }
        if self.round.left > 0 {
            return false;
        }
        while next != Next::Enough
            && let Some(report) = self.round.floods.pop_front()
        {
            self.round.owed = false;
            next = self.take(report, sink);
        }
        true
    }

    /// Whether a report can wait for others: much from somebody who is received from piece by
    /// piece, so that nothing can overtake it. Half of the buffers are left to the others.
    fn is_of_flood(&self, report: &Report) -> bool {
        report.lent.as_ref().is_some_and(|lent| is_much(lent.length, &self.options))
            && !report.more
            && report.name.kind == Kind::Receive
            && self.round.floods.len() < usize::from(self.ring.buffers.count()) / 2
            && self
                .connections
                .get(Token::from(KeyData::from_ffi(report.name.who)))
                .is_some_and(|connection| connection.comes_in_pieces())
    }
}
