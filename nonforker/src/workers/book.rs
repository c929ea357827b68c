//! Which client has which ID, which worker it stays with, and the lines that wait for each worker.
//!
//! ```text
//!  a client ── open ──▶ told ── its end: close ID end ──▶ ends ── close ID, or its time is over ──▶ gone
//!     │                   │                                                                          ▲
//!     │ nothing is        │ it breaks, is closed: close ID REASON; or the worker ends                │
//!     │ written           └──────────────────────────────────────────────────────────────────────────┤
//!     └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//!
//! - IDs are numbers from 1 on, and none is given twice.
//! - Behind each `open` that was written, one `close` is written, or the worker has ended. Without an
//!   `open` no other line is.
//! - A client stays with its worker. What a worker says of others' clients is of unknown IDs.
//! - A line whose ID has no client any more is for a worker that knew the client.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    mem,
    time::Instant,
};

use super::{
    gate::Left,
    lines::{self, Why},
};
use crate::address::Peer;

/// What waits no more, and the client that it is of.
type OfClient<K> = (K, Left);

/// A line that waits for a worker.
#[derive(Debug)]
struct Line<K> {
    id: u64,
    framed: Vec<u8>,
    what: What<K>,
}

#[derive(Debug)]
enum What<K> {
    Open,
    /// Of this client, a request of so many bytes.
    Data(K, usize),
    Close,
}

#[derive(Debug)]
struct Member<K> {
    client: K,
    worker: usize,
    /// Its worker has read that it is there.
    told: bool,
    /// It has finished sending: its worker reads that, and is to say when it is done.
    ends: bool,
}

/// What a worker has, or is to get.
#[derive(Debug)]
struct Share<K> {
    members: usize,
    lines: VecDeque<Line<K>>,
}

impl<K: Copy> What<K> {
    fn left(&self) -> Option<OfClient<K>> {
        match *self {
            Self::Data(client, bytes) => Some((client, Left::one(bytes))),
            Self::Open | Self::Close => None,
        }
    }
}

impl<K: Copy> Share<K> {
    /// Drops the lines of IDs that do not stay. Returns what waits no more.
    fn drop_lines(&mut self, stays: impl Fn(u64) -> bool) -> Vec<OfClient<K>> {
        let mut left = Vec::new();
        self.lines.retain(|line| {
            let stays = stays(line.id);
            left.extend(line.what.left().filter(|_| !stays));
            stays
        });
        left
    }
}

/// See the [module](self). `K` names a client.
#[derive(Debug)]
pub(super) struct Book<K> {
    last: u64,
    members: BTreeMap<u64, Member<K>>,
    ids: HashMap<K, u64>,
    shares: Vec<Share<K>>,
    /// Clients that have finished, and when their time is over.
    ending: VecDeque<(Instant, u64)>,
}

impl<K: Copy + Eq + Hash> Book<K> {
    pub(super) fn new(workers: usize) -> Self {
        let share = || Share { members: 0, lines: VecDeque::new() };
        Self {
            last: 0,
            members: BTreeMap::new(),
            ids: HashMap::new(),
            shares: (0..workers).map(|_| share()).collect(),
            ending: VecDeque::new(),
        }
    }

    /// A client has come. It stays with the worker that has the fewest, of those that live if any does.
    pub(super) fn open(
        &mut self,
        client: K,
        peer: &Peer,
        lives: impl Fn(usize) -> bool,
        framed: impl Fn(&[u8]) -> Vec<u8>,
    ) {
        let shares = self.shares.iter().enumerate();
        let Some((worker, _)) = shares.min_by_key(|&(at, share)| (!lives(at), share.members))
        else {
            return;
        };
        self.last += 1;
        let id = self.last;
        self.members.insert(id, Member { client, worker, told: false, ends: false });
        self.ids.insert(client, id);
        let framed = framed(&lines::open(id, peer));
        let share = &mut self.shares[worker];
        share.members += 1;
        share.lines.push_back(Line { id, framed, what: What::Open });
    }

    /// A client has said something: its ID, if it still has one.
    pub(super) fn id(&self, client: K) -> Option<u64> {
        self.ids.get(&client).copied()
    }

    /// A line for the worker of a client, a request of so many bytes.
    pub(super) fn data(&mut self, id: u64, framed: Vec<u8>, bytes: usize) {
        if let Some(member) = self.members.get(&id) {
            let what = What::Data(member.client, bytes);
            self.shares[member.worker].lines.push_back(Line { id, framed, what });
        }
    }

    /// A client has finished sending: its worker has until then to say what is left.
    pub(super) fn ends(
        &mut self,
        client: K,
        until: Option<Instant>,
        framed: impl Fn(&[u8]) -> Vec<u8>,
    ) {
        let Some(id) = self.id(client) else { return };
        let Some(member) = self.members.get_mut(&id) else { return };
        if !mem::replace(&mut member.ends, true) {
            let framed = framed(&lines::close(id, Why::End));
            self.shares[member.worker].lines.push_back(Line { id, framed, what: What::Close });
            self.ending.extend(until.map(|until| (until, id)));
        }
    }

    /// The client of an ID, if it is one that this worker knows.
    pub(super) fn client_of(&self, id: Option<u64>, worker: usize) -> Option<K> {
        let member = self.members.get(&id?)?;
        (member.worker == worker && member.told).then_some(member.client)
    }

    /// A client is gone, or is to be. Its worker reads why, unless it has read that it ends. Returns what
    /// waits no more.
    pub(super) fn close(
        &mut self,
        client: K,
        why: Why,
        framed: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Vec<OfClient<K>> {
        let Some(id) = self.ids.remove(&client) else { return Vec::new() };
        let Some(Member { worker, told, ends, .. }) = self.members.remove(&id) else {
            return Vec::new();
        };
        let share = &mut self.shares[worker];
        share.members -= 1;
        if !told {
            return share.drop_lines(|of| of != id);
        }
        if !ends {
            let framed = framed(&lines::close(id, why));
            share.lines.push_back(Line { id, framed, what: What::Close });
        }
        Vec::new()
    }

    /// Whether lines wait for a worker.
    pub(super) fn has_lines(&self, worker: usize) -> bool {
        !self.shares[worker].lines.is_empty()
    }

    /// Takes the next line for a worker, which is written now. Returns with it what waits no more.
    pub(super) fn next(&mut self, worker: usize) -> Option<(Vec<u8>, Option<OfClient<K>>)> {
        let Line { id, framed, what } = self.shares[worker].lines.pop_front()?;
        if let What::Open = what
            && let Some(member) = self.members.get_mut(&id)
        {
            member.told = true;
        }
        Some((framed, what.left()))
    }

    /// A worker has ended. Returns the clients that it knew, which go with it, or `all` of its clients, and
    /// what waits no more.
    pub(super) fn worker_ended(&mut self, worker: usize, all: bool) -> (Vec<K>, Vec<OfClient<K>>) {
        let (gone, stay): (BTreeMap<_, _>, _) = mem::take(&mut self.members)
            .into_iter()
            .partition(|(_, member)| member.worker == worker && (member.told || all));
        self.members = stay;
        self.shares[worker].members -= gone.len();
        let clients: Vec<_> = gone.into_values().map(|member| member.client).collect();
        for client in &clients {
            self.ids.remove(client);
        }
        let members = &self.members;
        let left = self.shares[worker].drop_lines(|of| members.contains_key(&of));
        (clients, left)
    }

    /// When the time of the next client that has ended is over, if it is still there.
    pub(super) fn next_over(&self) -> Option<Instant> {
        self.ending.front().map(|&(until, _)| until)
    }

    /// Takes the next client whose time to end is over.
    pub(super) fn over(&mut self, now: Instant) -> Option<K> {
        while let Some(&(until, id)) = self.ending.front() {
            let client = self.members.get(&id).map(|member| member.client);
            if client.is_some() && until > now {
                return None;
            }
            self.ending.pop_front();
            if client.is_some() {
                return client;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Book, Left, Why};
    use crate::address::Peer;

    fn framed(line: &[u8]) -> Vec<u8> {
        line.to_vec()
    }

    fn open(book: &mut Book<char>, client: char) {
        book.open(client, &Peer::Unix, |_| true, framed);
    }

    fn data(book: &mut Book<char>, client: char, text: &str) {
        let id = book.id(client).expect("it is there");
        book.data(id, text.as_bytes().to_vec(), text.len());
    }

    fn written(book: &mut Book<char>, worker: usize) -> Vec<String> {
        let next = || book.next(worker).map(|(line, _)| line);
        std::iter::from_fn(next).map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }

    #[test]
    fn each_client_stays_with_the_worker_that_had_the_fewest() {
        let mut book = Book::new(2);
        for client in ['a', 'b', 'c'] {
            open(&mut book, client);
        }
        assert_eq!(written(&mut book, 0), ["open 1 unix", "open 3 unix"]);
        assert_eq!(written(&mut book, 1), ["open 2 unix"]);
        assert_eq!(book.client_of(Some(2), 1), Some('b'));
        assert_eq!(book.client_of(Some(2), 0), None, "it is the other one's");
        assert!(book.close('a', Why::Reset, framed).is_empty());
        assert!(book.close('c', Why::Reset, framed).is_empty());
        book.open('d', &Peer::Unix, |worker| worker == 1, framed);
        assert_eq!(written(&mut book, 0), ["close 1 reset", "close 3 reset"]);
        assert_eq!(written(&mut book, 1), ["open 4 unix"], "it lives, and no ID comes twice");
    }

    #[test]
    fn behind_each_opening_that_was_written_one_close_is() {
        let mut book = Book::new(1);
        for client in ['a', 'b', 'c', 'd'] {
            open(&mut book, client);
        }
        data(&mut book, 'b', "hello");
        assert_eq!(book.close('b', Why::Reset, framed), [('b', Left::one(5))]);
        book.ends('c', None, framed);
        assert_eq!(
            written(&mut book, 0),
            ["open 1 unix", "open 3 unix", "open 4 unix", "close 3 end"]
        );
        // The end waits for the worker while the connection breaks.
        book.ends('a', None, framed);
        assert!(book.close('a', Why::Reset, framed).is_empty());
        assert!(book.close('a', Why::Reset, framed).is_empty());
        assert!(book.close('c', Why::Reset, framed).is_empty());
        book.ends('c', None, framed);
        data(&mut book, 'd', "bye");
        assert!(book.close('d', Why::Worker, framed).is_empty());
        open(&mut book, 'e');
        assert!(book.close('e', Why::Reset, framed).is_empty());
        assert_eq!(written(&mut book, 0), ["close 1 end", "bye", "close 4 worker"]);
    }

    #[test]
    fn the_end_of_a_worker_takes_those_that_it_knew() {
        let mut book = Book::new(1);
        open(&mut book, 'a');
        written(&mut book, 0);
        open(&mut book, 'b');
        data(&mut book, 'a', "lost");
        data(&mut book, 'b', "kept");
        assert_eq!(book.client_of(Some(2), 0), None, "it cannot know it yet");
        let (gone, left) = book.worker_ended(0, false);
        assert_eq!((gone, left), (vec!['a'], vec![('a', Left::one(4))]));
        assert_eq!(book.id('a'), None);
        assert_eq!(written(&mut book, 0), ["open 2 unix", "kept"]);
        open(&mut book, 'c');
        assert_eq!(book.worker_ended(0, true).0, ['b', 'c']);
        assert!(!book.has_lines(0));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn the_time_to_end_is_over_once() {
        let (mut book, now) = (Book::new(1), Instant::now());
        let later = |secs| now + Duration::from_secs(secs);
        for (at, client) in (1..).zip(['a', 'b', 'c']) {
            open(&mut book, client);
            book.ends(client, Some(later(at)), framed);
        }
        book.close('a', Why::End, framed);
        assert_eq!((book.next_over(), book.over(now)), (Some(later(1)), None));
        assert_eq!(book.next_over(), Some(later(2)));
        assert_eq!(book.over(later(3)), Some('b'));
        assert_eq!(book.over(later(3)), Some('c'));
        assert_eq!((book.next_over(), book.over(later(3))), (None, None));
    }
}
