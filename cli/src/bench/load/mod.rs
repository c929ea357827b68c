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

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use socket2::Socket;

pub(crate) use self::{roles::Role, tally::Tally};
use self::{roles::Round, schedule::Schedule};
use super::{
    client::{Check, Client, Fault},
    clock::{Clock, nanos},
    faults::Faults,
    messages::Messages,
    progress::Progress,
};
use crate::ending::Ending;

/// Bytes read at a time.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Events taken at a time.
const EVENTS: usize = 512;

/// How often deadlines, signals and the progress are looked at.
const TICK: Duration = Duration::from_millis(100);

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
pub(crate) struct Load<'r> {
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
    interrupted: &'r AtomicBool,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
}

fn cannot_wait(error: &io::Error) -> Ending {
    Ending::Failed(format!("cannot wait for replies: {error}"))
}

impl<'r> Load<'r> {
    /// Takes over these connections. The normal ones come first.
    pub(crate) fn new(
        sockets: Vec<(Role, Socket)>,
        messages: Messages,
        manner: Manner,
        interrupted: &'r AtomicBool,
    ) -> Result<Self, Ending> {
        let poll = Poll::new().map_err(|error| cannot_wait(&error))?;
        let count = sockets.len();
        let mut clients = Vec::with_capacity(count);
        for (nth, (role, socket)) in sockets.into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let mut source = SourceFd(&socket.as_raw_fd());
            let registered = poll.registry().register(&mut source, Token(nth), both);
            registered.map_err(|error| cannot_wait(&error))?;
            let first = if role.is_broadcast() { 0 } else { messages.first(nth, count) };
            clients.push(Client::new(role, socket, &messages, first));
        }
        let normal = clients.iter().filter(|client| client.role == Role::Normal).count();
        let schedule = manner.rate.map(|rate| Schedule::new(rate, normal, &poll)).transpose();
        let loaded = clients.iter().filter(|client| !client.role.is_slow()).count();
        Ok(Self {
            schedule: schedule.map_err(|error| cannot_wait(&error))?,
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
            interrupted,
            tally: Tally::new(),
            faults: Faults::default(),
        })
    }

    /// Loads the server for so long, and returns how long it was: less if it was interrupted or
    /// no connection is left.
    pub(crate) fn run(&mut self, time: Duration, progress: &Progress) -> Result<Duration, Ending> {
        let began = self.clock.now();
        let end = began.saturating_add(nanos(time));
        progress.begin(time);
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

    /// Asks for nothing new, and waits until nothing is owed: at most so long.
    pub(crate) fn quiet(&mut self, time: Duration) -> Result<(), Ending> {
        if let Some(schedule) = &mut self.schedule {
            schedule.stop();
        }
        let mut now = self.clock.now();
        let end = now.saturating_add(nanos(time));
        while now < end && self.goes_on() && !self.is_owed_nothing() {
            self.turn(now, Duration::from_nanos(end - now))?;
            now = self.clock.now();
            self.tick(now);
        }
        Ok(())
    }

    /// Requests without a reply so far.
    pub(crate) fn unanswered(&self) -> usize {
        self.clients.iter().map(Client::awaited).sum()
    }

    fn is_owed_nothing(&self) -> bool {
        self.clients.iter().all(|client| client.awaited() == 0 || client.socket.is_none())
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.clients.iter().filter(|client| client.socket.is_some()).count()
    }

    /// Whether somebody wants the run to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    fn goes_on(&self) -> bool {
        self.open > 0 && !self.is_interrupted()
    }

    fn turn(&mut self, now: u64, patience: Duration) -> Result<(), Ending> {
        self.release(now).map_err(|error| cannot_wait(&error))?;
        self.push_again();
        let patience = match self.manner.spin || !self.again.is_empty() {
            true => Duration::ZERO,
            false => patience.min(self.pause()),
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(patience));
        for event in events.iter().filter(|event| event.token() != TIMER) {
            let nth = event.token().0;
            let went = self.serve(nth, event);
            self.settle(nth, went);
        }
        self.events = events;
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(cannot_wait(&error)),
            _ => Ok(()),
        }
    }

    /// The longest that nobody looks after deadlines.
    fn pause(&self) -> Duration {
        if self.schedule.is_some() && !cfg!(target_os = "linux") {
            return Duration::from_millis(1);
        }
        TICK.min(self.manner.trickle_interval)
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

    /// Drops a connection that went wrong.
    fn settle(&mut self, nth: usize, went: Result<(), Fault>) {
        let Err(fault) = went else { return };
        if self.clients[nth].socket.take().is_none() {
            return;
        }
        let role = self.clients[nth].role;
        let was_owed = self.clients[nth].forget() > 0;
        if role.is_slow() {
            // That is what a server may do to them.
            self.tally.slow_closed += 1;
            self.open -= usize::from(!self.clients.iter().any(|client| !client.role.is_slow()));
            return;
        }
        self.open = if role == Role::Sender { 0 } else { self.open - 1 };
        self.faults.count(nth, &fault);
        if role == Role::Receiver && was_owed {
            self.delivered();
        }
    }

    fn give_up_on_the_late(&mut self, now: u64) {
        let timeout = nanos(self.manner.timeout);
        for nth in 0..self.clients.len() {
            let client = &self.clients[nth];
            if client.awaited() > 0 && now.saturating_sub(client.heard) > timeout {
                self.settle(nth, Err(Fault::Late));
            }
        }
    }
}
