//! The loop that loads the server: one thread, one `epoll_wait` for all connections, one read and
//! one write per connection and wake-up.
//!
//! ```text
//!  wait ──▶ read ──▶ compare ──▶ count ──▶ as many requests as replies came, in one write
//! ```
//!
//! Nothing is allocated per message. The clock is read once per read: what was measured is when the
//! replies were taken, and when the requests that follow from them left.
//!
//! Not here: what messages look like (`messages`), when a reply is right (`client`).

use std::{
    io::{self, Read},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, event::Event, unix::SourceFd};
use socket2::Socket;

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

/// Longer latencies count as this: an hour, in nanoseconds.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// What came back within the window.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    /// Nanoseconds from request to reply.
    pub(crate) latencies: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX, LATENCY_DIGITS);
        Self { messages: 0, latencies: latencies.expect("the bounds are valid") }
    }

    fn clear(&mut self) {
        self.messages = 0;
        self.latencies.reset();
    }
}

/// How the load is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) in_flight: usize,
    pub(crate) check: Check,
    pub(crate) timeout: Duration,
}

/// Connections under load.
pub(crate) struct Load<'r> {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    open: usize,
    messages: Messages,
    manner: Manner,
    buffer: Vec<u8>,
    clock: Clock,
    next_tick: u64,
    interrupted: &'r AtomicBool,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
}

impl<'r> Load<'r> {
    /// Takes over these connections.
    pub(crate) fn new(
        sockets: Vec<Socket>,
        messages: Messages,
        manner: Manner,
        interrupted: &'r AtomicBool,
    ) -> Result<Self, Ending> {
        let failed = |error: io::Error| Ending::Failed(format!("cannot wait for replies: {error}"));
        let poll = Poll::new().map_err(failed)?;
        let count = sockets.len();
        let mut clients = Vec::with_capacity(count);
        for (nth, socket) in sockets.into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let mut source = SourceFd(&socket.as_raw_fd());
            poll.registry().register(&mut source, Token(nth), both).map_err(failed)?;
            clients.push(Client::new(socket, messages.start(nth, count)));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            open: clients.len(),
            clients,
            messages,
            manner,
            buffer: vec![0; READ_BYTES],
            clock: Clock::start(),
            next_tick: 0,
            interrupted,
            tally: Tally::new(),
            faults: Faults::default(),
        })
    }

    /// Sends the first requests.
    pub(crate) fn begin(&mut self) {
        for nth in 0..self.clients.len() {
            let now = self.clock.now();
            let asked = self.ask(nth, self.manner.in_flight, now);
            self.settle(nth, asked);
        }
    }

    /// Forgets what was counted so far.
    pub(crate) fn reset(&mut self) {
        self.tally.clear();
    }

    /// Loads the server for so long, and returns how long it was: less if it was interrupted or
    /// no connection is left.
    pub(crate) fn run(&mut self, time: Duration, progress: &Progress) -> Result<Duration, Ending> {
        let began = self.clock.now();
        let end = began.saturating_add(nanos(time));
        progress.begin(time);
        let mut now = began;
        while now < end && self.open > 0 && !self.interrupted.load(Relaxed) {
            self.turn(Duration::from_nanos(end - now).min(TICK))?;
            now = self.clock.now();
            if now >= self.next_tick {
                self.next_tick = now + nanos(TICK);
                self.give_up_on_the_late(now);
                progress.show(Duration::from_nanos(now - began), self.tally.messages);
            }
        }
        Ok(Duration::from_nanos(now - began))
    }

    fn turn(&mut self, patience: Duration) -> Result<(), Ending> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(patience));
        for event in &events {
            let nth = event.token().0;
            let went = self.serve(nth, event);
            self.settle(nth, went);
        }
        self.events = events;
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(Ending::Failed(format!("cannot wait for replies: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Does for one connection what an event makes possible.
    fn serve(&mut self, nth: usize, event: &Event) -> Result<(), Fault> {
        let mut replies = 0;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            replies = self.receive(nth, event.is_read_closed())?;
        }
        if replies > 0 {
            let now = self.clock.now();
            let Self { clients, tally, .. } = self;
            clients[nth].heard = now;
            tally.messages += replies as u64;
            clients[nth].answered(replies, |asked, count| {
                tally.latencies.saturating_record_n(now - asked, count as u64);
            });
            return self.ask(nth, replies, now);
        }
        match self.clients[nth].has_unsent() {
            true => self.clients[nth].flush(&self.messages),
            false => Ok(()),
        }
    }

    /// Reads what there is, and returns how many replies are complete with it.
    ///
    /// A read that does not fill the buffer has emptied the socket, unless its end has been seen:
    /// then only reading it is the end.
    fn receive(&mut self, nth: usize, is_finished: bool) -> Result<usize, Fault> {
        let client = &mut self.clients[nth];
        let mut replies = 0;
        loop {
            let Some(mut socket) = client.socket.as_ref() else { return Ok(0) };
            let count = match socket.read(&mut self.buffer) {
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::Broken(error)),
            };
            replies += client.take(&self.buffer[..count], &self.messages, self.manner.check)?;
            if count < self.buffer.len() && !is_finished {
                return Ok(replies);
            }
        }
    }

    /// Sends so many requests in one write.
    fn ask(&mut self, nth: usize, count: usize, now: u64) -> Result<(), Fault> {
        let client = &mut self.clients[nth];
        client.ask(count, &self.messages, now);
        client.stamp(count, now);
        client.flush(&self.messages)
    }

    /// Drops a connection that went wrong.
    fn settle(&mut self, nth: usize, went: Result<(), Fault>) {
        if let Err(fault) = went
            && self.clients[nth].socket.take().is_some()
        {
            self.open -= 1;
            self.faults.count(nth, &fault);
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
