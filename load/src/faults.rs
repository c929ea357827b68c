//! What went wrong, counted by kind, and the first of it in words.

use std::fmt;

use crate::client::Fault;

/// Connections that failed, by why.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Faults {
    /// Connections that could not be opened.
    pub connect: u64,
    /// Connections that the server closed, or that broke, while replies were due.
    pub closed: u64,
    /// Connections with a reply that differs from its request, or that nobody asked for.
    pub wrong: u64,
    /// Connections whose reply is missing at the end, or for longer than a reply may take.
    pub late: u64,
    /// What happened first.
    pub first: Option<String>,
}

impl Faults {
    /// Counts what happened to a connection.
    pub(crate) fn count(&mut self, connection: usize, fault: &Fault) {
        match fault {
            Fault::Closed | Fault::Broken(_) => self.closed += 1,
            Fault::Wrong { .. } | Fault::Unasked => self.wrong += 1,
            Fault::Late { .. } | Fault::Unanswered { .. } => self.late += 1,
        }
        self.remember(format_args!("connection {connection}: {fault}"));
    }

    /// Counts connections that could not be opened.
    pub(crate) fn not_opened(&mut self, count: u64, why: fmt::Arguments<'_>) {
        self.connect += count;
        self.remember(why);
    }

    /// Connections that failed, in whatever way.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.connect + self.closed + self.wrong + self.late
    }

    fn remember(&mut self, what: fmt::Arguments<'_>) {
        self.first.get_or_insert_with(|| what.to_string());
    }
}
