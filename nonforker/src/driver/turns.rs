//! In which order the connections of a driver are served: one that floods comes after the others.
//!
//! ```text
//!  a look ──▶ its reports, of everybody ──▶ sink
//!  more   ──▶ one share of each ──────────▶ sink, behind the reports
//!    ▲              │
//!    └── had more ──┘
//! ```
//!
//! A connection that has more than its share of a wait is in `more`. It gets its next share after
//! the reports of the next look. So a flood waits for the others, and they do not wait for it.
//!
//! A sink that has enough ends a wait early, and the next wait goes on there. It does not look
//! again before the reports of the last look are delivered, and one connection of `more` is served.
//! So neither waits for ever.

use std::collections::VecDeque;

use super::Token;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Turns {
    more: VecDeque<Token>,
    /// Reports of the last look that are not delivered: its last ones.
    left: usize,
    /// `more` had connections at the last look, and none of them was served since.
    more_is_due: bool,
}

impl Turns {
    /// Whether the last look is not delivered completely.
    pub(super) const fn are_behind(&self) -> bool {
        self.left > 0 || self.more_is_due
    }

    /// A look brought this number of reports.
    pub(super) fn looked(&mut self, reports: usize) {
        self.left = reports;
        self.more_is_due = !self.more.is_empty();
    }

    /// How many reports of the last look are left.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    /// A report is about to be delivered.
    pub(super) const fn next_report(&mut self) {
        self.left -= 1;
    }

    /// How many connections have more.
    pub(super) fn count_more(&self) -> usize {
        self.more.len()
    }

    /// A connection has more than its share. The caller makes sure that it is here once.
    pub(super) fn push_more(&mut self, token: Token) {
        self.more.push_back(token);
    }

    /// Takes the connection that waits longest.
    pub(super) fn pop_more(&mut self) -> Option<Token> {
        self.more_is_due = false;
        self.more.pop_front()
    }
}
