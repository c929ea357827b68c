//! Which clients may ask now: so many requests wait for a worker, and clients beyond that are held back.
//!
//! ```text
//!  a request ──▶ admits ──┬─▶ waits ── left: a worker has it, or nobody wants it any more
//!                          └─▶ held: the client keeps it ◀── released, with a place of its own
//! ```
//!
//! Each shard has its own, with its part of the places. What waits is never more than there are places:
//! a client that is let go on has one, and nobody takes it meanwhile.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

/// See the [module](self). `K` names a client.
#[derive(Debug)]
pub(super) struct Gate<K> {
    places: usize,
    bytes_max: usize,
    /// How many requests wait, and their bytes.
    waiting: usize,
    bytes: usize,
    /// Clients that are held back, the next one first, with some that have left.
    turns: VecDeque<K>,
    /// Those that have not left.
    held: HashSet<K>,
    /// Clients that were let go on, and have not asked yet.
    released: HashSet<K>,
}

impl<K: Copy + Eq + Hash> Gate<K> {
    pub(super) fn new(places: usize, bytes_max: usize) -> Self {
        Self {
            places,
            bytes_max,
            waiting: 0,
            bytes: 0,
            turns: VecDeque::new(),
            held: HashSet::new(),
            released: HashSet::new(),
        }
    }

    /// A request of so many bytes has come. Returns whether it may wait; if not, its client is held back.
    pub(super) fn admits(&mut self, client: K, bytes: usize) -> bool {
        let has_place = self.released.remove(&client);
        if !has_place && (!self.held.is_empty() || !self.has_room()) {
            if self.held.insert(client) {
                self.turns.push_back(client);
            }
            return false;
        }
        self.waiting += 1;
        self.bytes += bytes;
        true
    }

    fn has_room(&self) -> bool {
        self.waiting + self.released.len() < self.places && self.bytes < self.bytes_max
    }

    /// So many requests of so many bytes wait no more.
    pub(super) const fn left(&mut self, left: Left) {
        self.waiting -= left.requests;
        self.bytes -= left.bytes;
    }

    /// The next client that may go on, if there is a place for it.
    pub(super) fn release(&mut self) -> Option<K> {
        while self.has_room()
            && let Some(client) = self.turns.pop_front()
        {
            if self.held.remove(&client) {
                self.released.insert(client);
                return Some(client);
            }
        }
        None
    }

    /// A client has left. What it has asked is not its own any more, and goes by itself.
    pub(super) fn forget(&mut self, client: K) {
        self.released.remove(&client);
        if self.held.remove(&client) && self.turns.len() > 2 * self.held.len() + 16 {
            self.turns.retain(|client| self.held.contains(client));
        }
    }
}

/// Requests that do not wait any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl Left {
    pub(super) const fn one(bytes: usize) -> Self {
        Self { requests: 1, bytes }
    }
}

impl std::ops::AddAssign for Left {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, Left};

    #[test]
    fn no_more_wait_than_there_are_places_and_each_has_its_turn() {
        let mut gate = Gate::new(2, 100);
        assert!(gate.admits(1, 1) && gate.admits(1, 1));
        assert!(!gate.admits(1, 1) && !gate.admits(2, 1) && !gate.admits(3, 1));
        assert_eq!(gate.release(), None);
        gate.left(Left::one(1));
        assert_eq!((gate.release(), gate.release()), (Some(1), None));
        assert!(!gate.admits(4, 1), "the place is that of 1");
        assert!(gate.admits(1, 1));
        assert!(!gate.admits(1, 1), "it has one turn");
        gate.left(Left { requests: 2, bytes: 2 });
        gate.forget(2);
        assert_eq!((gate.release(), gate.release()), (Some(3), Some(4)));
        gate.forget(3);
        assert_eq!(gate.release(), Some(1));
    }

    #[test]
    fn a_request_that_is_long_holds_others_back() {
        let mut gate = Gate::new(10, 100);
        assert!(gate.admits(1, 1000));
        assert!(!gate.admits(2, 1));
        gate.left(Left::one(1000));
        assert_eq!(gate.release(), Some(2));
        assert!(gate.admits(2, 1));
    }

    #[test]
    fn clients_that_come_and_leave_take_no_memory() {
        let mut gate = Gate::new(1, 100);
        assert!(gate.admits(0, 1));
        for client in 1..10_000 {
            assert!(!gate.admits(client, 1));
            gate.forget(client);
        }
        assert!(gate.turns.len() < 20, "{}", gate.turns.len());
    }
}
