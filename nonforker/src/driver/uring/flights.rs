//! Sends that the kernel carries out while they are submitted, and reports only if they fail.
//!
//! ```text
//!  depart ──▶ out ── enter, no report ──▶ landed: the kernel took all of it
//!              └──── enter, a report ───▶ bounced: the kernel took a part, or nothing
//! ```
//!
//! Such a send may not wait, and all of it is to be sent (`MSG_DONTWAIT`, `MSG_WAITALL`). So the
//! kernel is done with the bytes when that enter returns, and a reply costs no
//! completion of its own.
//!
//! Invariant: a flight is in `out` until the kernel is done with its bytes.

use std::mem;

use crate::conn::buffer::Buffer;

/// A send, and the key of its connection.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: u64,
    pub(super) batch: Buffer,
    /// The result that the kernel reported, if it did.
    report: Option<i32>,
}

/// A flight of which the kernel did not take everything.
#[derive(Debug)]
pub(super) struct Bounced {
    pub(super) key: u64,
    pub(super) batch: Buffer,
    /// As in a completion: how much was taken, or an error below 0.
    pub(super) result: i32,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Flights {
    out: Vec<Flight>,
    landed: Vec<Flight>,
    bounced: Vec<Bounced>,
}

impl Flights {
    pub(super) const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether any have landed or bounced.
    pub(super) const fn are_back(&self) -> bool {
        !self.landed.is_empty() || !self.bounced.is_empty()
    }

    /// Takes a batch in. Returns the number under which the kernel reports it.
    pub(super) fn depart(&mut self, key: u64, batch: Buffer) -> u64 {
        self.out.push(Flight { key, batch, report: None });
        self.out.len() as u64 - 1
    }

    /// The last one did not depart after all.
    pub(super) fn recall(&mut self) -> Option<Buffer> {
        self.out.pop().map(|flight| flight.batch)
    }

    /// Notes what the kernel reported of a flight.
    pub(super) fn note_report(&mut self, number: u64, result: i32) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        debug_assert!(index < self.out.len(), "the kernel names flights that are out");
        if let Some(flight) = self.out.get_mut(index) {
            flight.report = Some(result);
        }
    }

    /// Sorts the flights: all of them were submitted, and all reports are noted.
    pub(super) fn conclude(&mut self) {
        if self.out.iter().all(|flight| flight.report.is_none()) && self.landed.is_empty() {
            return mem::swap(&mut self.out, &mut self.landed);
        }
        for Flight { key, batch, report } in self.out.drain(..) {
            match report {
                None => self.landed.push(Flight { key, batch, report }),
                Some(result) => self.bounced.push(Bounced { key, batch, result }),
            }
        }
    }

    /// Those of which the kernel took everything. The list is to be [returned](Self::recycle).
    pub(super) fn landed(&mut self) -> Vec<Flight> {
        mem::take(&mut self.landed)
    }

    /// Takes an emptied list back, so that none has to be allocated in each turn.
    pub(super) fn recycle(&mut self, empty: Vec<Flight>) {
        debug_assert!(empty.is_empty() && self.landed.is_empty(), "all were seen to");
        self.landed = empty;
    }

    /// Those of which it did not.
    pub(super) fn bounced(&mut self) -> Vec<Bounced> {
        mem::take(&mut self.bounced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_without_a_report_has_landed() {
        let mut flights = Flights::default();
        let numbers: Vec<_> =
            (0..4).map(|key| flights.depart(key, Buffer::new(vec![1; 10]))).collect();
        flights.note_report(numbers[1], -11);
        flights.note_report(numbers[3], 4);
        assert!(flights.landed().is_empty(), "nothing is known before the conclusion");
        flights.conclude();
        let mut landed = flights.landed();
        assert_eq!(landed.drain(..).map(|flight| flight.key).collect::<Vec<_>>(), [0, 2]);
        let bounced = flights.bounced();
        let report: Vec<_> = bounced.iter().map(|it| (it.key, it.result)).collect();
        assert_eq!(report, [(1, -11), (3, 4)]);
        flights.recycle(landed);
        flights.conclude();
        assert!(flights.landed().is_empty() && flights.bounced().is_empty());
    }
}
