//! The workers: which of them lives, what each was given, and when it is late.
//!
//! Nothing here knows a connection but by its id: what is to be written, is given to a closure.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use super::{
    BytesCodec, Protocol, Restart, WorkerError, Workers,
    book::Book,
    channel::{Channel, ToClients},
    clients::WorkerClients,
    framed,
    gate::{Gate, Left},
    queue::{Asked, Queue, Settled},
};
use crate::{codec::EncodeError, context::ConnId, reconnect::Reconnect, ticket::Ticket};

/// The most bytes that a worker is given before it has answered, unless it is one request.
pub(super) const GIVEN_MAX: usize = 1 << 20;

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
pub(super) struct Worker {
    /// Its connection, while that stands.
    pub(super) conn: Option<ConnId>,
    /// When it was started.
    since: Option<Instant>,
    /// What it has not answered, the oldest first.
    given: VecDeque<Given>,
    bytes: usize,
    /// When the oldest of these became that.
    oldest: Option<Instant>,
    /// It was given a request since its start.
    pub(super) was_used: bool,
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
    pub(super) replies: C,
    /// Which clients of this shard may ask.
    pub(super) gate: Gate<ConnId>,
    queue: Queue<ConnId, Ticket<WorkerClients<W, C>>>,
    /// With the tagged protocol.
    pub(super) book: Option<Book<ConnId>>,
    pub(super) workers: Vec<Worker>,
    /// What workers and this module say to clients of this shard, and to those of each other one.
    pub(super) here: VecDeque<ToClients>,
    pub(super) elsewhere: Vec<Channel<ToClients>>,
    /// What waits no more, of each shard that does not know it yet.
    left: Vec<Left>,
    /// The most bytes that wait for another shard.
    bytes_max: usize,
    /// How many ends in a row were fast.
    pub(super) fast: u32,
    /// A worker has stood at some time.
    pub(super) has_begun: bool,
    /// A timer looks for workers that are late.
    pub(super) is_watched: bool,
    /// One looks for what a worker that was full or a mailbox takes now.
    pub(super) is_retried: bool,
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
        let is_tagged = settings.protocol == Protocol::Tagged;
        Self {
            name,
            replies: settings.replies.clone().unwrap_or(codec),
            gate: Gate::new(settings.queue, usize::MAX),
            queue: Queue::new(),
            book: is_tagged.then(|| Book::new(settings.count)),
            workers: workers.collect(),
            here: VecDeque::new(),
            elsewhere: Vec::new(),
            left: vec![Left::default()],
            bytes_max: usize::MAX,
            fast: 0,
            has_begun: false,
            is_watched: false,
            is_retried: false,
            is_over: false,
            settings,
        }
    }

    /// It is on this one of so many shards, which may have so many bytes of what waits.
    pub(super) fn begin(&mut self, shard: usize, shards: usize, bytes_max: usize) {
        let rest = if shard == 0 { self.settings.queue % shards } else { 0 };
        let places = self.settings.queue / shards + rest;
        self.gate = Gate::new(places.max(1), bytes_max);
        self.bytes_max = bytes_max;
        self.left = vec![Left::default(); shards];
        self.elsewhere = (0..shards).map(|_| Channel::new()).collect();
    }

    pub(super) const fn is_tagged(&self) -> bool {
        self.book.is_some()
    }

    /// Says something to a client.
    pub(super) fn tell(&mut self, client: ConnId, message: ToClients) {
        match self.elsewhere.get(client.shard()) {
            Some(channel) if client.shard() > 0 => {
                let bytes = match &message {
                    ToClients::Send { framed, .. } => framed.len(),
                    _ => 0,
                };
                channel.push(message, bytes);
            }
            _ => self.here.push_back(message),
        }
    }

    /// Whether so much waits for the shard of a client that it does not keep up.
    pub(super) fn is_full_for(&self, client: ConnId) -> bool {
        let channel = self.elsewhere.get(client.shard());
        channel.is_some_and(|channel| channel.bytes() >= self.bytes_max)
    }

    /// What a client has asked waits no more.
    pub(super) fn left(&mut self, client: ConnId, left: Left) {
        match client.shard() {
            0 => self.gate.left(left),
            shard => self.left[shard] += left,
        }
    }

    /// Tells other shards what waits no more.
    pub(super) fn settle(&mut self) {
        for (left, channel) in self.left.iter_mut().zip(&self.elsewhere).skip(1) {
            if left.requests > 0 {
                channel.push(ToClients::Left(mem::take(left)), 0);
            }
        }
    }

    /// A client has asked. It had a place for that.
    pub(super) fn ask(
        &mut self,
        client: ConnId,
        ticket: Ticket<WorkerClients<W, C>>,
        payload: &[u8],
    ) {
        let left = Left::one(payload.len());
        let refused = match framed(&self.settings.codec, payload) {
            _ if self.is_over => self.error(),
            Ok(framed) => {
                if let Err(ticket) = self.queue.ask(client, ticket, framed, payload.len()) {
                    give(ticket, None);
                    self.left(client, left);
                }
                return;
            }
            Err(error) => Settled::Refuse(refusal(&error)),
        };
        self.left(client, left);
        match self.queue.expect(client, ticket) {
            Ok(asked) => self.answer(asked, refused),
            Err(ticket) => give(ticket, None),
        }
    }

    fn answer(&mut self, asked: Asked<ConnId>, settled: Settled) {
        let left = self.queue.answer(asked, settled, give);
        self.left(asked.client, left);
    }

    fn error(&self) -> Settled {
        match &self.settings.error {
            WorkerError::Reply(text) => Settled::Reply(text.clone()),
            WorkerError::Close => Settled::Close,
        }
    }

    /// Gives requests to workers, as long as there are both. `write` sends to a worker, and says whether it
    /// takes more.
    pub(super) fn feed(&mut self, now: Instant, mut write: impl FnMut(ConnId, &[u8]) -> bool) {
        if self.is_tagged() {
            return self.feed_tagged(write);
        }
        let in_flight = self.settings.in_flight;
        while self.queue.pending() > 0
            && let free = self
                .workers
                .iter_mut()
                .filter(|worker| worker.given.len() < in_flight && worker.bytes < GIVEN_MAX)
            && let Some((worker, conn)) = free
                .filter_map(|worker| worker.conn.map(|conn| (worker, conn)))
                .min_by_key(|(worker, _)| worker.given.len())
            && let Some((asked, framed, left)) = self.queue.next()
        {
            write(conn, &framed);
            worker.bytes += framed.len();
            worker.given.push_back(Given { asked, bytes: framed.len() });
            worker.oldest.get_or_insert(now);
            worker.was_used = true;
            self.left(asked.client, left);
        }
    }

    /// A client has left.
    pub(super) fn forget(&mut self, client: ConnId) {
        let left = self.queue.forget(client);
        self.left(client, left);
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
    pub(super) fn replied(&mut self, number: usize, payload: &[u8], now: Instant) -> bool {
        let worker = &mut self.workers[number];
        let Some(Given { asked, bytes }) = worker.given.pop_front() else { return false };
        worker.bytes -= bytes;
        worker.oldest = (!worker.given.is_empty()).then_some(now);
        let settled = match framed(&self.replies, payload) {
            Ok(_) => Settled::Reply(payload.to_vec()),
            Err(error) => Settled::Refuse(refusal_of_reply(&error)),
        };
        self.succeeds(number);
        self.answer(asked, settled);
        true
    }

    /// A worker does what it is for.
    pub(super) fn succeeds(&mut self, worker: usize) {
        self.workers[worker].reconnect.succeeded();
        self.fast = 0;
    }

    /// A worker has ended, or could not be started.
    pub(super) fn ended(&mut self, number: usize, now: Instant) -> Ended {
        let error = self.error();
        self.disperse(number, false);
        let worker = &mut self.workers[number];
        worker.conn = None;
        worker.bytes = 0;
        worker.oldest = None;
        let soon = worker.since.take().is_none_or(|since| now < since + FAST);
        let is_fast = soon && !mem::take(&mut worker.was_used);
        for Given { asked, .. } in mem::take(&mut worker.given) {
            self.answer(asked, error.clone());
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

    /// When workers are late, by their connections.
    fn deadlines(&self) -> impl Iterator<Item = (ConnId, Instant)> {
        let timeout = self.settings.timeout;
        let due = move |worker: &Worker| worker.oldest?.checked_add(timeout?);
        self.workers.iter().filter_map(move |worker| Some((worker.conn?, due(worker)?)))
    }

    /// Workers that are late.
    pub(super) fn late(&self, now: Instant) -> Vec<ConnId> {
        self.deadlines().filter(|&(_, due)| due <= now).map(|(worker, _)| worker).collect()
    }

    /// When something is late next.
    pub(super) fn due(&self) -> Option<Instant> {
        let ending = self.book.as_ref().and_then(Book::next_over);
        self.deadlines().map(|(_, due)| due).chain(ending).min()
    }

    /// Nothing is started any more: what waits gets the error.
    pub(super) fn gives_up(&mut self) {
        self.is_over = true;
        let error = self.error();
        while let Some((asked, _, left)) = self.queue.next() {
            self.left(asked.client, left);
            self.answer(asked, error.clone());
        }
        (0..self.workers.len()).for_each(|worker| self.disperse(worker, true));
    }
}

/// Why a request is not passed on to a worker.
pub(super) const fn refusal(error: &EncodeError) -> &'static str {
    match error {
        EncodeError::TooLong { .. } => "the request is too long for the worker",
        EncodeError::Unframeable { .. } => "the request contains what ends a request of the worker",
    }
}

/// Why what a worker says is not passed on to a client.
pub(super) const fn refusal_of_reply(error: &EncodeError) -> &'static str {
    match error {
        EncodeError::TooLong { .. } => "the reply of the worker is too long for the client",
        EncodeError::Unframeable { .. } => {
            "the reply of the worker contains what ends a reply to the client"
        }
    }
}

/// Answers a request of a client.
fn give<W: BytesCodec, C: BytesCodec>(
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
