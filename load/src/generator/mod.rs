//! The loop that loads the server: one thread, one `epoll_wait` for all connections, one read and
//! one write per connection and wake-up.
//!
//! ```text
//!  wait ──▶ read ──▶ compare ──▶ count ──▶ as many requests as replies came, in one write
//! ```
//!
//! Nothing is allocated per message. The clock is read once per read: what is measured is when the
//! replies were taken, and when the requests that follow from them left.
//!
//! Here: waiting, failing, and the phases of a run. `roles`: what each kind of connection does.
//! `schedule`: requests that are due at a time. Not here: what messages look like (`messages`),
//! when a reply is right (`client`).

mod roles;
mod schedule;
mod tally;

use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

pub(crate) use self::roles::Role;
pub use self::tally::Tally;
use self::{roles::Round, schedule::Schedule};
use crate::{
    client::{Check, Client, Fault},
    clock::{Clock, nanos},
    error::Error,
    faults::Faults,
    messages::Messages,
    progress::{Phase, Progress},
    stream::Stream,
};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};

/// Bytes read at a time.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Events taken at a time.
const EVENTS: usize = 512;

/// How often deadlines, signals and the progress are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long the load waits for what is in flight in the end, at least.
const DRAIN_MIN: Duration = Duration::from_secs(1);

/// The token of the schedule's timer.
const TIMER: Token = Token(usize::MAX);

/// How the load is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Requests that a normal connection keeps unanswered, and lines of a broadcast's round.
    pub(crate) in_flight: usize,
    /// The same for a flooding connection.
    pub(crate) flood_in_flight: usize,
    pub(crate) check: Check,
    /// How long a reply may take.
    pub(crate) timeout: Duration,
    /// How long a trickling connection waits between two bytes.
    pub(crate) trickle_interval: Duration,
    /// Requests per second over all normal connections; None is a closed loop.
    pub(crate) rate: Option<f64>,
    /// Whether to wait without sleeping.
    pub(crate) spin: bool,
}

/// Connections under load.
#[derive(Debug)]
pub(crate) struct Generator<'r> {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Connections without which there is nothing to go on for.
    open: usize,
    messages: Messages,
    manner: Manner,
    schedule: Option<Schedule>,
    round: Round,
    /// Connections that could write more, but others come first.
    again: VecDeque<usize>,
    buffer: Vec<u8>,
    clock: Clock,
    next_tick: u64,
    next_trickle: u64,
    /// Whether replies are followed by requests.
    asks: bool,
    /// Whether bytes of requests or replies have moved since this was last looked at.
    has_moved: bool,
    look: Look,
    interrupted: &'r AtomicBool,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
}

/// What has been looked at of what the kernel has received.
///
/// The kernel shows at most [`EVENTS`] connections at a time, and the process may be kept from running
/// at any point. So a reply is missing at a time only if a look that began then did not show it.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// What had arrived by then has been seen.
    seen: u64,
    /// When the present look began.
    began: u64,
    /// Connections that it may not have shown.
    left: usize,
}

impl Look {
    /// The kernel is asked next.
    fn begin(&mut self, now: u64, connections: usize) {
        if self.left == 0 {
            (self.began, self.left) = (now, connections);
        }
    }

    /// The number of connections that the kernel has shown.
    fn show(&mut self, connections: usize) {
        self.left = if connections < EVENTS { 0 } else { self.left.saturating_sub(connections) };
        if self.left == 0 {
            self.seen = self.began;
        }
    }
}

impl<'r> Generator<'r> {
    /// Takes over these connections. The normal ones come first.
    pub(crate) fn new(
        streams: Vec<(Role, Stream)>,
        messages: Messages,
        manner: Manner,
        interrupted: &'r AtomicBool,
    ) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::Wait)?;
        let count = streams.len();
        let mut clients = Vec::with_capacity(count);
        for (nth, (role, stream)) in streams.into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let mut source = SourceFd(&stream.as_raw_fd());
            let registered = poll.registry().register(&mut source, Token(nth), both);
            registered.map_err(Error::Wait)?;
            let first = if role.is_broadcast() { 0 } else { messages.first(nth, count) };
            clients.push(Client::new(role, stream, &messages, first));
        }
        let normal = clients.iter().filter(|client| client.role == Role::Normal).count();
        let schedule = manner.rate.map(|rate| Schedule::new(rate, normal, &poll)).transpose();
        let loaded = clients.iter().filter(|client| !client.role.is_slow()).count();
        Ok(Self {
            schedule: schedule.map_err(Error::Wait)?,
            poll,
            events: Events::with_capacity(EVENTS),
            open: if loaded > 0 { loaded } else { clients.len() },
            clients,
            messages,
            manner,
            round: Round::default(),
            again: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            clock: Clock::start(),
            next_tick: 0,
            next_trickle: 0,
            asks: true,
            has_moved: false,
            look: Look::default(),
            interrupted,
            tally: Tally::new(),
            faults: Faults::default(),
        })
    }

    /// Loads the server for so long, and returns how long it was: less if it was interrupted or
    /// no connection is left.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        time: Duration,
        progress: &mut dyn Progress,
    ) -> Result<Duration, Error> {
        let began = self.clock.now();
        let end = began.saturating_add(nanos(time));
        progress.begin(phase, Some(time));
        let mut now = began;
        while now < end && self.goes_on() {
            self.turn(now, Duration::from_nanos(end - now))?;
            now = self.clock.now();
            if self.tick(now) {
                progress.show(Duration::from_nanos(now - began), self.tally.messages);
            }
        }
        Ok(Duration::from_nanos(now - began))
    }

    /// Waits until no reply is missing. A connection that is late fails.
    pub(crate) fn quiet(&mut self) -> Result<(), Error> {
        while self.goes_on() && self.is_owed() {
            self.turn_and_tick()?;
        }
        Ok(())
    }

    /// Asks for nothing new, and waits for what is in flight: until all of it is answered, or for
    /// longer than [`patience`](Self::patience) nothing moves.
    ///
    /// It does so after an interruption, too: the report is to say whether the server answers.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.asks = false;
        if let Some(schedule) = &mut self.schedule {
            schedule.stop();
            // What has not left was not asked of the server. It is on the load's books only.
            self.clients.iter_mut().for_each(|client| client.withdraw(&self.messages));
        }
        let mut moved_at = self.clock.now();
        self.has_moved = false;
        while self.open > 0 && self.is_owed() {
            if self.look.seen.saturating_sub(moved_at) > self.patience() {
                break;
            }
            let now = self.turn_and_tick()?;
            if std::mem::take(&mut self.has_moved) {
                moved_at = now;
            }
        }
        Ok(())
    }

    /// How long to wait for the next bytes in the end. A server that answers is a little slower at
    /// times than it was before, and so is a machine that is busy.
    fn patience(&self) -> u64 {
        let slowest = self.tally.slowest.unwrap_or(0);
        nanos(DRAIN_MIN).saturating_add(slowest.saturating_mul(2))
    }

    /// Fails the connections whose reply is missing.
    pub(crate) fn fail_what_is_owed(&mut self) {
        let now = self.clock.now();
        let slowest = self.tally.slowest.unwrap_or(0);
        for nth in 0..self.clients.len() {
            if let Some(at) = self.oldest(nth) {
                let age = now.saturating_sub(at);
                self.drop_if_failed(nth, Err(Fault::Unanswered { age, slowest }));
            }
        }
    }

    /// Requests without a reply so far, those that never left and those of failed connections
    /// counted.
    pub(crate) fn unanswered(&self) -> usize {
        self.clients.iter().map(|client| client.awaited() + client.withdrawn()).sum()
    }

    /// Whether a reply is missing on a connection that is open.
    pub(crate) fn is_owed(&self) -> bool {
        self.clients.iter().any(|client| client.awaited() > 0 && client.stream.is_some())
    }

    /// When the request was put up for sending, or due, whose reply is missing longest; None
    /// if none is missing, or the connection has failed.
    fn oldest(&self, nth: usize) -> Option<u64> {
        let client = &self.clients[nth];
        match &self.schedule {
            _ if client.awaited() == 0 || client.stream.is_none() => None,
            Some(schedule) if client.role == Role::Normal => {
                Some(schedule.due_after(nth, client.replies()))
            }
            _ => client.oldest(),
        }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.clients.iter().filter(|client| client.stream.is_some()).count()
    }

    /// Whether somebody wants the run to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.open > 0 && !self.is_interrupted()
    }

    fn turn_and_tick(&mut self) -> Result<u64, Error> {
        self.turn(self.clock.now(), TICK)?;
        let now = self.clock.now();
        self.tick(now);
        Ok(now)
    }

    fn turn(&mut self, now: u64, patience: Duration) -> Result<(), Error> {
        self.release(now).map_err(Error::Wait)?;
        self.push_again();
        let patience = match self.manner.spin || !self.again.is_empty() {
            true => Duration::ZERO,
            false => patience.min(self.pause()),
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.look.begin(now, self.clients.len());
        let polled = self.poll.poll(&mut events, Some(patience));
        let mut shown = 0;
        for event in &events {
            shown += 1;
            if event.token() == TIMER {
                continue;
            }
            let nth = event.token().0;
            let went = self.serve(nth, event);
            self.drop_if_failed(nth, went);
        }
        self.events = events;
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(Error::Wait(error)),
            Err(_) => Ok(()),
            Ok(()) => {
                self.look.show(shown);
                Ok(())
            }
        }
    }

    /// The longest that nobody looks after deadlines.
    fn pause(&self) -> Duration {
        if self.schedule.is_some() && !cfg!(target_os = "linux") {
            return Duration::from_millis(1);
        }
        // A connection is late by at most half of its time.
        let timeout = (self.manner.timeout / 4).max(Duration::from_millis(1));
        TICK.min(timeout).min(self.manner.trickle_interval)
    }

    /// Looks after deadlines, if it is time to. Says whether it was.
    fn tick(&mut self, now: u64) -> bool {
        if now < self.next_tick {
            return false;
        }
        self.next_tick = now + nanos(self.pause());
        self.trickle(now);
        self.give_up_on_the_late(now);
        true
    }

    /// Ends a connection that failed, and counts the failure. Does nothing after a success.
    fn drop_if_failed(&mut self, nth: usize, went: Result<(), Fault>) {
        let Err(fault) = went else { return };
        if !self.clients[nth].end() {
            return;
        }
        let role = self.clients[nth].role;
        if role.is_slow() {
            // That is what a server may do to them.
            self.tally.slow_closed += 1;
            self.open -= usize::from(!self.clients.iter().any(|client| !client.role.is_slow()));
            return;
        }
        self.open = if role == Role::Sender { 0 } else { self.open - 1 };
        self.faults.count(nth, &fault);
        self.charge(nth, &fault);
        if role == Role::Receiver && self.clients[nth].awaited() > 0 {
            self.delivered();
        }
    }

    /// Counts how long those requests have waited in vain whose replies did not come. In an open loop
    /// all of them are counted in the end.
    fn charge(&mut self, nth: usize, fault: &Fault) {
        let now = self.clock.now();
        let Self { clients, tally, schedule, .. } = self;
        let client = &clients[nth];
        let is_silent = matches!(fault, Fault::Late { .. } | Fault::Unanswered { .. });
        if is_silent && schedule.is_none() && client.role != Role::Flooding {
            client.ages(now, |age, count| tally.charge(age, count));
        }
    }

    fn give_up_on_the_late(&mut self, now: u64) {
        let timeout = nanos(self.manner.timeout);
        for nth in 0..self.clients.len() {
            let Some(at) = self.oldest(nth) else { continue };
            if self.look.seen.saturating_sub(at) > timeout {
                self.drop_if_failed(nth, Err(Fault::Late { age: now.saturating_sub(at) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_before_a_whole_look() {
        let mut look = Look::default();
        look.begin(100, 2 * EVENTS + 1);
        for (shown, seen) in [(EVENTS, 0), (EVENTS, 0), (EVENTS, 100)] {
            look.begin(150, 2 * EVENTS + 1);
            look.show(shown);
            assert_eq!(look.seen, seen, "there may be more");
        }
        look.begin(200, 2 * EVENTS + 1);
        look.show(EVENTS - 1);
        assert_eq!(look.seen, 200, "there is no more");
    }
}
