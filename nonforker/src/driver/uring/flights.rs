//! Sends that are carried out while they are handed over, and told of only if they fail.
//!
//! ```text
//!  depart ──▶ out ── enter, nothing told ──▶ landed: the kernel took all of it
//!              └──── enter, told of it ────▶ bounced: the kernel took a part, or nothing
//! ```
//!
//! Such a send may not wait, and all of it is to be sent (`MSG_DONTWAIT`, `MSG_WAITALL`). So the
//! kernel is done with it when the enter returns that handed it over, and a reply costs no
//! completion of its own.
//!
//! Invariant: a flight is in `out` until the kernel is done with its bytes.

use std::mem;

use crate::conn::buffer::Buffer;

/// A send and whose it is.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) who: u64,
    pub(super) batch: Buffer,
    /// What the kernel told of it, if it did.
    told: Option<i32>,
}

/// A flight of which the kernel did not take everything.
#[derive(Debug)]
pub(super) struct Bounced {
    pub(super) who: u64,
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

    /// Takes a batch in. Returns the number under which the kernel will tell of it.
    pub(super) fn depart(&mut self, who: u64, batch: Buffer) -> u64 {
        self.out.push(Flight { who, batch, told: None });
        self.out.len() as u64 - 1
    }

    /// The last one did not depart after all.
    pub(super) fn recall(&mut self) -> Option<Buffer> {
        self.out.pop().map(|flight| flight.batch)
    }

    /// The kernel told of a flight.
    pub(super) fn tell(&mut self, number: u64, result: i32) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        debug_assert!(index < self.out.len(), "the kernel names flights that are out");
        if let Some(flight) = self.out.get_mut(index) {
            flight.told = Some(result);
        }
    }

    /// Everything was handed over, and everything that was told has been heard.
    pub(super) fn conclude(&mut self) {
        if self.out.iter().all(|flight| flight.told.is_none()) && self.landed.is_empty() {
            return mem::swap(&mut self.out, &mut self.landed);
        }
        for Flight { who, batch, told } in self.out.drain(..) {
            match told {
                None => self.landed.push(Flight { who, batch, told }),
                Some(result) => self.bounced.push(Bounced { who, batch, result }),
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
    fn who_is_not_told_of_has_landed() {
        let mut flights = Flights::default();
        let numbers: Vec<_> =
            (0..4).map(|who| flights.depart(who, Buffer::new(vec![1; 10]))).collect();
        flights.tell(numbers[1], -11);
        flights.tell(numbers[3], 4);
        assert!(flights.landed().is_empty(), "nothing is known before the conclusion");
        flights.conclude();
        let mut landed = flights.landed();
        assert_eq!(landed.drain(..).map(|flight| flight.who).collect::<Vec<_>>(), [0, 2]);
        let bounced = flights.bounced();
        let told: Vec<_> = bounced.iter().map(|it| (it.who, it.result)).collect();
        assert_eq!(told, [(1, -11), (3, 4)]);
        flights.recycle(landed);
        flights.conclude();
        assert!(flights.landed().is_empty() && flights.bounced().is_empty());
    }
}
