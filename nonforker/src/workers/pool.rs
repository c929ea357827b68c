//! The workers: which of them lives, what each was given, and when it is late.
//!
//! Nothing here knows a connection but by its id: what is to be written, is given to a closure.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use super::{
    BytesCodec, Restart, WorkerError, Workers, framed,
    queue::{Asked, Queue, Settled},
};
use crate::{
    codec::EncodeError, context::ConnId, reconnect::Reconnect, ticket::Ticket,
    workers::clients::WorkerClients,
};

/// The most bytes that a worker is given before it has answered, unless it is one request.
const GIVEN_MAX: usize = 1 << 20;

/// How soon an end comes that counts as fast.
const FAST: Duration = Duration::from_secs(1);

/// How many ends in a row may be fast.
const FAST_MAX: u32 = 5;

/// The first wait before a worker is started again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A request that a worker has.
#[derive(Debug)]
struct Given {
    asked: Asked<ConnId>,
    bytes: usize,
}

#[derive(Debug)]
struct Worker {
    /// Its connection, while that stands.
    conn: Option<ConnId>,
    /// When it was started.
    since: Option<Instant>,
    /// What it has not answered, the oldest first.
    given: VecDeque<Given>,
    bytes: usize,
    /// When the oldest of these became that.
    oldest: Option<Instant>,
    /// It was given a request since its start.
    was_used: bool,
    reconnect: Reconnect,
}

/// What is to be done when a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Restart,
    GiveUp,
}

/// See the [module](self).
pub(super) struct Pool<W: BytesCodec, C: BytesCodec> {
    pub(super) settings: Workers<W, C>,
    /// The name of both services.
    pub(super) name: String,
    replies: C,
    pub(super) queue: Queue<ConnId, Ticket<WorkerClients<W, C>>>,
    workers: Vec<Worker>,
    /// Clients that wait for the queue to be shorter.
    pub(super) held: VecDeque<ConnId>,
    /// How many ends in a row were fast.
    fast: u32,
    /// A worker has stood at some time.
    pub(super) has_begun: bool,
    /// A timer looks for workers that are late.
    pub(super) is_watched: bool,
    /// Nothing is started any more, and what is asked gets the error.
    pub(super) is_over: bool,
}

impl<W: BytesCodec, C: BytesCodec> Pool<W, C> {
    pub(super) fn new(settings: Workers<W, C>, codec: C, name: String) -> Self {
        let workers = (0..settings.count).map(|_| Worker {
            conn: None,
            since: None,
            given: VecDeque::new(),
            bytes: 0,
            oldest: None,
            was_used: false,
            reconnect: Reconnect::new(WAITS.0, WAITS.1),
        });
        Self {
            name,
            replies: settings.replies.clone().unwrap_or(codec),
            queue: Queue::new(),
            workers: workers.collect(),
            held: VecDeque::new(),
            fast: 0,
            has_begun: false,
            is_watched: false,
            is_over: false,
            settings,
        }
    }

    /// A client has asked. Returns whether it is to be held back.
    pub(super) fn ask(
        &mut self,
        client: ConnId,
        ticket: Ticket<WorkerClients<W, C>>,
        payload: &[u8],
    ) -> bool {
        let refused = match framed(&self.settings.codec, payload) {
            _ if self.is_over => self.error(),
            Ok(framed) => {
                if let Err(ticket) = self.queue.ask(client, ticket, framed) {
                    give(ticket, None);
                }
                let is_full = self.queue.pending() >= self.settings.queue;
                if is_full {
                    self.held.push_back(client);
                }
                return is_full;
            }
            Err(EncodeError::TooLong { .. }) => {
                Settled::Refuse("the request is too long for the worker")
            }
            Err(_) => Settled::Refuse("the request contains what ends one of the worker"),
        };
        match self.queue.expect(client, ticket) {
            Ok(asked) => self.queue.answer(asked, refused, give),
            Err(ticket) => give(ticket, None),
        }
        false
    }

    fn error(&self) -> Settled {
        match &self.settings.error {
            WorkerError::Reply(text) => Settled::Reply(text.clone()),
            WorkerError::Close => Settled::Close,
        }
    }

    /// Gives requests to workers, as long as there are both. `write` sends to a worker.
    pub(super) fn feed(&mut self, now: Instant, mut write: impl FnMut(ConnId, &[u8])) {
        let Self { workers, settings, queue, .. } = self;
        let in_flight = settings.in_flight;
        while queue.pending() > 0
            && let free = workers
                .iter_mut()
                .filter(|worker| worker.given.len() < in_flight && worker.bytes < GIVEN_MAX)
            && let Some((worker, conn)) = free
                .filter_map(|worker| worker.conn.map(|conn| (worker, conn)))
                .min_by_key(|(worker, _)| worker.given.len())
            && let Some((asked, framed)) = queue.next()
        {
            write(conn, &framed);
            worker.bytes += framed.len();
            worker.given.push_back(Given { asked, bytes: framed.len() });
            worker.oldest.get_or_insert(now);
            worker.was_used = true;
        }
    }

    /// The clients that need not be held back any more.
    pub(super) fn released(&mut self) -> Vec<ConnId> {
        let room = self.settings.queue.saturating_sub(self.queue.pending());
        self.held.drain(..room.min(self.held.len())).collect()
    }

    /// A client has left.
    pub(super) fn forget(&mut self, client: ConnId) {
        self.queue.forget(client);
        self.held.retain(|&held| held != client);
    }

    /// A worker stands.
    pub(super) fn begins(&mut self, worker: usize, conn: ConnId, now: Instant) {
        let worker = &mut self.workers[worker];
        worker.conn = Some(conn);
        worker.since = Some(now);
        worker.was_used = false;
        self.has_begun = true;
    }

    /// A worker has sent a frame. Returns whether it was asked for one.
    pub(super) fn replied(&mut self, worker: usize, payload: &[u8], now: Instant) -> bool {
        let worker = &mut self.workers[worker];
        let Some(Given { asked, bytes }) = worker.given.pop_front() else { return false };
        worker.bytes -= bytes;
        worker.oldest = (!worker.given.is_empty()).then_some(now);
        worker.reconnect.succeeded();
        self.fast = 0;
        let settled = match framed(&self.replies, payload) {
            Ok(_) => Settled::Reply(payload.to_vec()),
            Err(EncodeError::TooLong { .. }) => {
                Settled::Refuse("the reply of the worker is too long for the client")
            }
            Err(_) => Settled::Refuse("the reply of the worker contains what ends one"),
        };
        self.queue.answer(asked, settled, give);
        true
    }

    /// A worker has ended, or could not be started.
    pub(super) fn ended(&mut self, worker: usize, now: Instant) -> Ended {
        let error = self.error();
        let worker = &mut self.workers[worker];
        worker.conn = None;
        worker.bytes = 0;
        worker.oldest = None;
        let soon = worker.since.take().is_none_or(|since| now < since + FAST);
        let is_fast = soon && !mem::take(&mut worker.was_used);
        for Given { asked, .. } in mem::take(&mut worker.given) {
            self.queue.answer(asked, error.clone(), give);
        }
        self.fast = if is_fast { self.fast + 1 } else { 0 };
        if self.fast >= FAST_MAX && self.settings.restart == Restart::UnlessFast {
            return Ended::GiveUp;
        }
        Ended::Restart
    }

    pub(super) fn reconnect(&mut self, worker: usize) -> &mut Reconnect {
        &mut self.workers[worker].reconnect
    }

    /// Workers that are late, by their connections, and when to look again.
    pub(super) fn late(&self, now: Instant) -> (Vec<ConnId>, Option<Instant>) {
        let Some(timeout) = self.settings.timeout else { return (Vec::new(), None) };
        let due = |worker: &Worker| Some((worker.conn?, worker.oldest?.checked_add(timeout)?));
        let (mut late, mut next) = (Vec::new(), None::<Instant>);
        for (conn, due) in self.workers.iter().filter_map(due) {
            if due <= now {
                late.push(conn);
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        (late, next)
    }

    /// Nothing is started any more: what waits gets the error.
    pub(super) fn gives_up(&mut self) {
        self.is_over = true;
        let error = self.error();
        while let Some((asked, _)) = self.queue.next() {
            self.queue.answer(asked, error.clone(), give);
        }
    }
}

/// Answers a request of a client.
pub(super) fn give<W: BytesCodec, C: BytesCodec>(
    ticket: Ticket<WorkerClients<W, C>>,
    settled: Option<Settled>,
) {
    // A client that has left meanwhile waits for nothing.
    let _ = match settled {
        Some(Settled::Reply(payload)) => ticket.then(move |_, conn| conn.send(&payload[..])),
        Some(Settled::Close) => ticket.then(|_, conn| conn.close()),
        Some(Settled::Refuse(why)) => {
            ticket.then(move |_, _| -> crate::handler::Outcome { Err(why.into()) })
        }
        None => ticket.then(|_, _| {}),
    };
}
