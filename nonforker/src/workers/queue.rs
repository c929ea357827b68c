//! What clients have asked and not got yet: whose request goes to a worker next, and in which order
//! replies go back.
//!
//! ```text
//!  ask ──▶ pending, in a list for each client ── next: each client in turn ──▶ given to a worker
//!                                                                               │
//!  ready ◀── as soon as all earlier ones of the client are there ◀── answer ────┘
//! ```
//!
//! Invariants:
//!
//! - A client is in `turns` exactly once while it has a request that is pending.
//! - A client is known while a reply of it is awaited. `awaited` has a place for each request, in the
//!   order in which they came; the first place is never one with a reply.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use super::gate::Left;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The payload of the reply.
    Reply(Vec<u8>),
    /// The client is closed, behind the replies before.
    Close,
    /// The same, and why.
    Refuse(&'static str),
}

/// Which request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<K> {
    pub(super) client: K,
    number: u64,
}

#[derive(Debug)]
struct Awaited<T> {
    ticket: T,
    settled: Option<Settled>,
}

/// A request that no worker has yet.
#[derive(Debug)]
struct Pending {
    number: u64,
    framed: Vec<u8>,
    left: Left,
}

#[derive(Debug)]
struct Asking<T> {
    awaited: VecDeque<Awaited<T>>,
    /// The number of the first one that is awaited.
    first: u64,
    pending: VecDeque<Pending>,
    /// It is being closed: known until it has [left](Queue::forget), and nothing more is asked.
    closes: bool,
}

/// See the [module](self). `K` names a client, and `T` is what its reply is given with.
#[derive(Debug)]
pub(super) struct Queue<K, T> {
    clients: HashMap<K, Asking<T>>,
    /// Clients with requests that are pending, the next one first.
    turns: VecDeque<K>,
    pending: usize,
}

impl<K: Copy + Eq + Hash, T> Queue<K, T> {
    pub(super) fn new() -> Self {
        Self { clients: HashMap::new(), turns: VecDeque::new(), pending: 0 }
    }

    /// How many requests wait for a worker.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    /// A request of so many bytes has come. `framed` is what a worker gets.
    ///
    /// # Errors
    ///
    /// The ticket of a client that is being closed.
    pub(super) fn ask(
        &mut self,
        client: K,
        ticket: T,
        framed: Vec<u8>,
        bytes: usize,
    ) -> Result<(), T> {
        let request = self.expect(client, ticket)?;
        let Some(asking) = self.clients.get_mut(&client) else { return Ok(()) };
        if asking.pending.is_empty() {
            self.turns.push_back(client);
        }
        let left = Left::one(bytes);
        asking.pending.push_back(Pending { number: request.number, framed, left });
        self.pending += 1;
        Ok(())
    }

    /// A request has come that no worker gets: the caller has an [answer](Self::answer).
    ///
    /// # Errors
    ///
    /// The ticket of a client that is being closed.
    pub(super) fn expect(&mut self, client: K, ticket: T) -> Result<Asked<K>, T> {
        let asking = self.clients.entry(client).or_insert_with(|| Asking {
            awaited: VecDeque::new(),
            first: 0,
            pending: VecDeque::new(),
            closes: false,
        });
        if asking.closes {
            return Err(ticket);
        }
        let number = asking.first + asking.awaited.len() as u64;
        asking.awaited.push_back(Awaited { ticket, settled: None });
        Ok(Asked { client, number })
    }

    /// Takes the request that a worker gets next. It waits no more.
    pub(super) fn next(&mut self) -> Option<(Asked<K>, Vec<u8>, Left)> {
        while let Some(client) = self.turns.pop_front() {
            let Some(asking) = self.clients.get_mut(&client) else { continue };
            let Some(Pending { number, framed, left }) = asking.pending.pop_front() else {
                continue;
            };
            if !asking.pending.is_empty() {
                self.turns.push_back(client);
            }
            self.pending -= 1;
            return Some((Asked { client, number }, framed, left));
        }
        None
    }

    /// A request is settled. Calls `ready` for what can go to the client now, in order. If
    /// the client has left, nothing happens. Returns what waits no more.
    pub(super) fn answer(
        &mut self,
        request: Asked<K>,
        settled: Settled,
        mut ready: impl FnMut(T, Option<Settled>),
    ) -> Left {
        let mut left = Left::default();
        let Some(asking) = self.clients.get_mut(&request.client) else { return left };
        let settles_the_end = !matches!(settled, Settled::Reply(_));
        let at = request.number.checked_sub(asking.first).and_then(|at| usize::try_from(at).ok());
        if let Some(awaited) = at.and_then(|at| asking.awaited.get_mut(at)) {
            awaited.settled.get_or_insert(settled);
        }
        // Nothing is sent behind the end of a client, so nothing more is asked for it.
        if settles_the_end && !asking.closes {
            asking.closes = true;
            asking.pending.retain(|pending| {
                let stays = pending.number < request.number;
                if !stays {
                    left += pending.left;
                }
                stays
            });
            self.pending -= left.requests;
            if asking.pending.is_empty() {
                self.turns.retain(|&client| client != request.client);
            }
        }
        let mut closes = false;
        while let Some(front) = asking.awaited.front()
            && (closes || front.settled.is_some())
            && let Some(Awaited { ticket, settled }) = asking.awaited.pop_front()
        {
            asking.first += 1;
            // What comes behind the end of a client is not sent.
            ready(ticket, settled.clone().filter(|_| !closes));
            closes |= !matches!(settled, Some(Settled::Reply(_)));
        }
        if !asking.closes && asking.awaited.is_empty() {
            self.clients.remove(&request.client);
        }
        left
    }

    /// Forgets a client: its requests that are pending go to no worker. Returns what waits no more.
    pub(super) fn forget(&mut self, client: K) -> Left {
        let mut left = Left::default();
        if let Some(asking) = self.clients.remove(&client) {
            asking.pending.iter().for_each(|pending| left += pending.left);
            self.pending -= asking.pending.len();
            if !asking.pending.is_empty() {
                self.turns.retain(|&other| other != client);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Left, Queue, Settled};

    fn text(of: &(Asked<u32>, Vec<u8>, Left)) -> String {
        String::from_utf8_lossy(&of.1).into_owned()
    }

    fn reply(text: &str) -> Settled {
        Settled::Reply(text.as_bytes().to_vec())
    }

    /// What goes to clients: their tickets and replies.
    fn answer(
        queue: &mut Queue<u32, &'static str>,
        request: Asked<u32>,
        settled: Settled,
    ) -> Vec<(&'static str, Option<Settled>)> {
        let mut ready = Vec::new();
        queue.answer(request, settled, |ticket, settled| ready.push((ticket, settled)));
        ready
    }

    #[test]
    fn each_client_has_its_turn_however_much_another_has_asked() {
        let mut queue = Queue::new();
        for nth in 0..5 {
            assert_eq!(queue.ask(1, "", format!("1:{nth}").into_bytes(), 1), Ok(()));
        }
        assert_eq!(queue.ask(2, "", b"2:0".to_vec(), 1), Ok(()));
        assert_eq!(queue.ask(3, "", b"3:0".to_vec(), 1), Ok(()));
        assert_eq!(queue.ask(2, "", b"2:1".to_vec(), 1), Ok(()));
        let mut order = Vec::new();
        while let Some(next) = queue.next() {
            order.push(text(&next));
        }
        assert_eq!(order, ["1:0", "2:0", "3:0", "1:1", "2:1", "1:2", "1:3", "1:4"]);
        assert_eq!(queue.pending(), 0);
    }

    #[test]
    fn replies_go_back_in_the_order_of_the_requests() {
        let mut queue = Queue::new();
        for ticket in ["a", "b", "c"] {
            assert_eq!(queue.ask(1, ticket, Vec::new(), 1), Ok(()));
        }
        assert_eq!(queue.ask(2, "x", Vec::new(), 1), Ok(()));
        let given: Vec<_> = std::iter::from_fn(|| queue.next()).map(|(id, ..)| id).collect();
        let [a, x, b, c] = given[..] else { panic!("four were asked") };
        assert!(answer(&mut queue, c, reply("3")).is_empty());
        assert_eq!(answer(&mut queue, x, reply("9")), [("x", Some(reply("9")))]);
        assert_eq!(answer(&mut queue, a, reply("1")), [("a", Some(reply("1")))]);
        let last = [("b", Some(reply("2"))), ("c", Some(reply("3")))];
        assert_eq!(answer(&mut queue, b, reply("2")), last);
        assert!(answer(&mut queue, b, reply("2")).is_empty(), "nobody is known any more");
    }

    #[test]
    fn behind_the_end_of_a_client_nothing_is_sent_and_nothing_is_asked() {
        let mut queue = Queue::new();
        for ticket in ["a", "b", "c"] {
            assert_eq!(queue.ask(1, ticket, Vec::new(), 1), Ok(()));
        }
        let (a, b) = (queue.next().expect("a").0, queue.next().expect("b").0);
        assert!(answer(&mut queue, b, reply("2")).is_empty());
        let all = [("a", Some(Settled::Close)), ("b", None), ("c", None)];
        assert_eq!(answer(&mut queue, a, Settled::Close), all);
        assert_eq!((queue.pending(), queue.next()), (0, None));
        assert_eq!(queue.ask(1, "d", Vec::new(), 1), Err("d"));
        assert_eq!(queue.forget(1), Left::default());
    }

    #[test]
    fn who_has_left_is_asked_for_no_more() {
        let mut queue = Queue::new();
        assert_eq!(queue.ask(1, "a", Vec::new(), 1), Ok(()));
        assert_eq!(queue.ask(1, "b", Vec::new(), 1), Ok(()));
        assert_eq!(queue.ask(2, "x", Vec::new(), 1), Ok(()));
        let a = queue.next().expect("a").0;
        assert_eq!(queue.forget(1), Left::one(1));
        assert_eq!(queue.pending(), 1);
        assert!(answer(&mut queue, a, reply("late")).is_empty());
        assert_eq!(queue.next().expect("x").0.client, 2);
        assert_eq!(queue.next(), None);
    }
}
