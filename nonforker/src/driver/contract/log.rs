//! What a driver reports, held against the contract: each report by itself, in every case.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
};

use super::READ_MAX;
use crate::{
    address::Peer,
    conn::buffer::Buffer,
    driver::{AttemptId, Completion, ListenerId, Sent, Token},
};

/// What was asked for a token, and what has been reported about it.
#[derive(Default)]
pub(super) struct Track {
    pub(super) received: Vec<u8>,
    pub(super) urgent: Vec<u8>,
    pub(super) ended: bool,
    pub(super) failed: bool,
    pub(super) send_failed: bool,
    /// Bytes that the kernel took.
    pub(super) sent: usize,
    /// What is left of a batch that came back.
    pub(super) rest: Option<Buffer>,
    pub(super) closed: bool,
    /// Bytes of which the kernel took nothing before the close.
    pub(super) unsent: Option<usize>,
    receiving: bool,
    /// Receiving was turned off, and nothing has come since: one piece may, or the end.
    may_be_late: bool,
    pub(super) closing: bool,
    /// Where the bytes in flight are, and how many.
    in_flight: Option<(*const u8, usize)>,
    /// The wait that brought the last `Received`.
    served: usize,
    /// How many bytes came in it.
    share: usize,
}

impl Track {
    pub(super) const fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn send(&mut self, batch: &Buffer) {
        assert!(!self.is_sending(), "a case has one send in flight");
        self.in_flight = Some((batch.bytes().as_ptr(), batch.bytes().len()));
    }

    /// A batch comes back: the one that is in flight, and itself, not a copy.
    fn take_back(&mut self, batch: &Buffer) {
        let back = Some((batch.bytes().as_ptr(), batch.bytes().len()));
        assert_eq!(self.in_flight.take(), back, "what comes back is what was in flight");
    }

    pub(super) const fn receive(&mut self, on: bool) {
        self.may_be_late = !on && (self.receiving || self.may_be_late);
        self.receiving = on;
    }

    /// Whether something may come: if receiving is off, this once.
    const fn may_come(&mut self) -> bool {
        let was_late = std::mem::replace(&mut self.may_be_late, false);
        self.receiving || was_late
    }

    fn note_received(&mut self, bytes: &[u8], wait: usize) {
        assert!(self.may_come(), "one piece comes after receiving was turned off");
        assert!((1..=READ_MAX).contains(&bytes.len()), "{} bytes", bytes.len());
        if self.served < wait {
            self.served = wait;
            self.share = 0;
        }
        self.share += bytes.len();
        assert!(self.share <= READ_MAX, "{} bytes in a wait", self.share);
        self.received.extend_from_slice(bytes);
    }

    fn note_end(&mut self) {
        assert!(self.may_come(), "the end comes only while receiving is on, or just after");
        assert!(!self.ended && !self.failed, "there is one end");
        self.ended = true;
        self.receiving = false;
    }

    pub(super) fn note_sent(&mut self, Sent { mut batch, result }: Sent) {
        self.take_back(&batch);
        let Ok(count) = result else {
            if self.closing {
                self.unsent = Some(batch.bytes().len());
            } else {
                self.send_failed = true;
                self.rest = Some(batch);
            }
            return;
        };
        assert!((1..=batch.bytes().len()).contains(&count), "{count} bytes sent");
        batch.advance(count);
        self.sent += count;
        self.rest = (!batch.bytes().is_empty()).then_some(batch);
    }

    fn note_closed(&mut self) {
        assert!(self.closing, "nobody asked for it to be closed");
        assert!(!self.is_sending(), "the batch comes back before the last word");
        self.closed = true;
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receiving, ended, failed, send_failed, closing, closed, .. } = self;
        write!(f, "received {}, urgent {}, ", self.received.len(), self.urgent.len())?;
        write!(f, "sent {}, in flight {:?}; ", self.sent, self.in_flight)?;
        write!(f, "receiving {receiving}, ended {ended}, failed {failed}, ")?;
        write!(f, "send failed {send_failed}, closing {closing}, closed {closed}")
    }
}

/// Somebody accepted and not yet adopted.
pub(super) struct Arrival<S> {
    pub(super) listener: ListenerId,
    pub(super) socket: S,
    pub(super) peer: Peer,
}

/// A connection that the driver has made, not yet adopted.
pub(super) struct Made<S> {
    pub(super) attempt: AttemptId,
    pub(super) socket: S,
    pub(super) peer: Peer,
}

/// Everything that was reported.
pub(super) struct Log<S> {
    pub(super) tracks: BTreeMap<Token, Track>,
    pub(super) accepting: Vec<bool>,
    pub(super) arrivals: VecDeque<Arrival<S>>,
    pub(super) accept_failures: usize,
    /// Attempts that have no answer yet.
    pub(super) attempts: BTreeSet<AttemptId>,
    pub(super) connected: VecDeque<Made<S>>,
    pub(super) connect_failures: Vec<(AttemptId, io::Error)>,
    pub(super) wakes: usize,
    /// How much was reported, in how many waits.
    pub(super) reports: usize,
    pub(super) waits: usize,
    /// Whether the present wait has had its sleep.
    pub(super) awake: bool,
    /// The sink of the wait before had enough.
    pub(super) had_enough: bool,
}

impl<S> Log<S> {
    pub(super) const fn new() -> Self {
        Self {
            tracks: BTreeMap::new(),
            accepting: Vec::new(),
            arrivals: VecDeque::new(),
            accept_failures: 0,
            attempts: BTreeSet::new(),
            connected: VecDeque::new(),
            connect_failures: Vec::new(),
            wakes: 0,
            reports: 0,
            waits: 0,
            awake: false,
            had_enough: false,
        }
    }

    /// A wait begins.
    pub(super) const fn begin(&mut self) {
        self.waits += 1;
        self.awake = false;
    }

    /// Notes a report, unless the contract does not allow it.
    pub(super) fn note(&mut self, completion: Completion<'_, S>) {
        let (wait, awake) = (self.waits, self.awake);
        match completion {
            Completion::Awake => {
                assert!(!awake, "a wait sleeps once");
                self.awake = true;
                return;
            }
            Completion::Accepted { listener, socket, peer } => {
                assert!(awake, "this was slept for");
                assert!(self.accepting[listener], "nobody is reported while accepting is off");
                self.arrivals.push_back(Arrival { listener, socket, peer });
            }
            Completion::AcceptFailed { listener, .. } => {
                assert!(self.accepting[listener], "accepting cannot fail while it is off");
                self.accepting[listener] = false;
                self.accept_failures += 1;
            }
            Completion::Connected { attempt, socket, peer } => {
                assert!(self.attempts.remove(&attempt), "one answer to an attempt that is wanted");
                self.connected.push_back(Made { attempt, socket, peer });
            }
            Completion::ConnectFailed { attempt, error } => {
                assert!(self.attempts.remove(&attempt), "one answer to an attempt that is wanted");
                self.connect_failures.push((attempt, error));
            }
            Completion::Woken => {
                assert!(awake, "this was slept for");
                self.wakes += 1;
            }
            Completion::Received { token, bytes } => {
                assert!(awake || self.had_enough, "this was slept for");
                self.live(token).note_received(bytes, wait);
            }
            Completion::EndOfStream { token } => self.live(token).note_end(),
            Completion::Urgent { token, byte } => self.live(token).urgent.push(byte),
            Completion::Sent { token, sent } => self.live(token).note_sent(sent),
            Completion::Failed { token, error } => {
                let track = self.live(token);
                assert!(!track.failed, "a connection breaks once: {error}");
                track.failed = true;
                track.receiving = false;
            }
            Completion::Closed { token } => self.live(token).note_closed(),
        }
        self.reports += 1;
    }

    fn live(&mut self, token: Token) -> &mut Track {
        let track = self.tracks.get_mut(&token).expect("the token was adopted");
        assert!(!track.closed, "`Closed` is the last word about a token");
        track
    }
}
