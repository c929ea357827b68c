//! The driver over io_uring: operations are the kernel's own, and so are completions.
//!
//! ```text
//!  submit(Op) ──▶ submission queue ─┐          one enter per turn
//!  wait ────────────────────────────┴──▶ enter ──▶ reports ──▶ sink
//!                                          received bytes lie in the ring's buffers
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `ring`, `buffers`, `flights`, `report` | what is shared with the kernel; all `unsafe` |
//! | `probe` | whether this kernel has what is needed |
//! | `listener`, `connecting`, `receiving`, `urgent`, `sending`, `watching` | what becomes of each operation |
//! | `connection` | what is remembered of each connection |
//!
//! A receive brings one piece, and is armed again when the next wait begins. To turn receiving off
//! is to arm no more.
//!
//! A connection that is closed goes in three steps: what is in flight is cancelled, its last
//! reports are awaited, the descriptor is closed. Then comes `Closed`.

mod buffers;
mod connecting;
mod connection;
mod flights;
mod listener;
mod probe;
mod receiving;
mod report;
mod ring;
mod sending;
mod size;
mod urgent;
mod watching;

use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::{read, write},
};
use slotmap::{Key, KeyData, SecondaryMap};
use socket2::Socket;

use self::{
    connection::{Arm, Connection, Fact},
    listener::Watched,
    report::{Kind, Name, Report},
    ring::Ring,
    size::Size,
};
use super::{
    Clock, Completion, Driver, ListenerId, ListenerShare, Next, Op, Options, Sent, Sink, Token,
    Waker,
    accepting::Listeners,
    connecting::Attempts,
    socket::{Listener, credentials, unacknowledged, unread},
    turns::Turns,
};
use crate::{
    address::{Address, PeerCredentials},
    conn::buffer::Buffer,
};

const POLLIN: u32 = 0x1;
const POLLPRI: u32 = 0x2;
const POLLOUT: u32 = 0x4;
const POLLERR: u32 = 0x8;
const POLLHUP: u32 = 0x10;
const POLLRDHUP: u32 = 0x2000;

/// How long a wait sleeps on sends that nobody awaits. It is longer than a busy server sleeps, so
/// that it costs such a one nothing, and when all is quiet their buffers come back nevertheless.
const MOMENT: Duration = Duration::from_millis(10);

const WAKE: Name = Name { kind: Kind::Wake, key: 0 };

/// A connection that has not been adopted yet.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: Socket,
    /// Its listener was opened for a handler that wants urgent bytes.
    urgent: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct UringDriver {
    ring: Ring,
    event: Arc<OwnedFd>,
    options: Options,
    listeners: Listeners<Watched>,
    attempts: Attempts<connecting::Wanted>,
    connections: SecondaryMap<Token, Connection>,
    turns: Turns,
    /// Connections to be received from by the ring when the next wait begins.
    unarmed: Vec<Token>,
    /// Connections that are to be watched if they are silent when the next wait begins.
    maybe_silent: Vec<Token>,
    done: Vec<Completion<'static, Incoming>>,
    /// The next enter has a result at once that no report of the ring announces: the wait does not
    /// sleep.
    hurry: bool,
    /// When the listeners that other shards have too were last looked at, in nanoseconds.
    looked_at: u64,
    /// The most bytes that the ring receives at a time.
    piece: usize,
    /// Where connections are read into by calls.
    scratch: Box<[u8]>,
}

impl UringDriver {
    /// A driver, where the kernel has what it needs. The error says what is missing.
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        Self::with_size(options, Size::DEFAULT)
    }

    /// A driver with next to no room, so that nothing ever fits.
    #[cfg(test)]
    pub(crate) fn tight(options: Options) -> io::Result<Self> {
        Self::with_size(options, Size { submissions: 2, completions: 4, buffers: 8 })
    }

    /// How often what is rare has happened.
    #[cfg(test)]
    pub(crate) const fn tally(&self) -> size::Tally {
        self.ring.tally
    }

    fn with_size(options: Options, size: Size) -> io::Result<Self> {
        let mut ring = Ring::new(size)?;
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        ring.watch(WAKE, event.as_fd(), POLLIN, true)?;
        Ok(Self {
            ring,
            event,
            piece: receiving::piece(options.read_max),
            scratch: vec![0; options.read_max].into_boxed_slice(),
            listeners: Listeners::new(options.shared),
            attempts: Attempts::new(),
            options,
            connections: SecondaryMap::new(),
            turns: Turns::default(),
            unarmed: Vec::new(),
            maybe_silent: Vec::new(),
            done: Vec::new(),
            hurry: false,
            looked_at: 0,
        })
    }

    fn adopt(&mut self, token: Token, incoming: Incoming) {
        let Incoming { socket, urgent } = incoming;
        let mut connection = Connection::new(socket, urgent);
        // A Unix socket's reads stop short behind a descriptor that the peer passed.
        let is_unix = urgent && connection.socket.local_addr().is_ok_and(|at| at.is_unix());
        connection.set(Fact::PROBE, is_unix);
        self.connections.insert(token, connection);
        if urgent {
            self.watch_for_urgent(token);
        } else {
            self.check_silence(token);
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.closing = Some(reset);
        // A send that is carried out at once may end without a report, which ends no sleep.
        let is_sending = connection.is(Fact::SENDING);
        self.hurry |= is_sending;
        for (kind, armed) in [
            (Kind::Receive, connection.receive == Arm::Armed),
            (Kind::Watch, connection.watch == Arm::Armed),
            (Kind::Send, is_sending && connection.is(Fact::PARTIAL)),
        ] {
            if armed && self.ring.cancel(name(kind, token)).is_err() {
                // What cannot be cancelled ends with the stream.
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
        }
        self.release(token);
    }

    /// Closes a connection that is to be closed, once the kernel has no operation of it.
    fn release(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let Some(reset) = connection.closing.filter(|_| connection.is_released()) else { return };
        if reset {
            // A socket that cannot be told to reset is closed in order.
            let _ = connection.socket.set_linger(Some(Duration::ZERO));
        }
        self.connections.remove(token);
        self.done.push(Completion::Closed { token });
    }

    fn take(&mut self, report: Report, sink: &mut impl Sink<Incoming>) -> Next {
        let Name { kind, key } = report.name;
        let token = Token::from(KeyData::from_ffi(key));
        match kind {
            Kind::Listener => self.is_to_accept(&report),
            Kind::Connect => self.may_be_connected(report.name, sink),
            Kind::Receive => return self.received(token, report, sink),
            Kind::Send => {
                if let Some(batch) = report.batch {
                    let result = report.result.map(|count| count as usize);
                    self.sent(token, Sent { batch, result }, sink);
                }
            }
            Kind::Watch => self.watched(token, &report, sink),
            Kind::Wake => self.woken(&report, sink),
            Kind::Cancel | Kind::Flight => {}
        }
        Next::Return
    }

    fn woken(&mut self, report: &Report, sink: &mut impl Sink<Incoming>) {
        let _ = read(&self.event, &mut [0; 8]);
        sink.take(Completion::Woken);
        if !report.more {
            // It can only fail for lack of memory; then waits end by their timeouts.
            let _ = self.ring.watch(WAKE, self.event.as_fd(), POLLIN, true);
        }
    }

    /// Delivers what the ring brought, as far as the sink takes it.
    fn serve_reports(&mut self, sink: &mut impl Sink<Incoming>) -> Next {
        if !self.turns.are_behind() {
            self.turns.looked(self.ring.waiting());
        }
        let mut next = Next::Return;
        while self.turns.left() > 0 && next != Next::Enough {
            self.turns.next_report();
            if let Some(report) = self.ring.next() {
                next = self.take(report, sink);
            }
        }
        next
    }

    fn deliver(&mut self, sink: &mut impl Sink<Incoming>) -> Next {
        let mut next = Next::Sleep;
        for completion in self.done.drain(..) {
            if sink.take(completion) != Next::Sleep {
                next = Next::Return;
            }
        }
        next
    }
}

fn name(kind: Kind, token: Token) -> Name {
    Name { kind, key: token.data().as_ffi() }
}

impl Driver for UringDriver {
    type Socket = Incoming;

    fn listen(
        &mut self,
        listener: ListenerId,
        address: &Address,
        urgent: bool,
    ) -> io::Result<Address> {
        self.add_listener(listener, Listener::open(address, &self.options)?, urgent)
    }

    fn take_over(
        &mut self,
        listener: ListenerId,
        given: OwnedFd,
        urgent: bool,
    ) -> io::Result<Address> {
        self.add_listener(listener, Listener::take_over(given, &self.options)?, urgent)
    }

    fn share_of(&self, listener: ListenerId) -> io::Result<ListenerShare> {
        self.listeners.share_of(listener)
    }

    fn share(
        &mut self,
        listener: ListenerId,
        other: ListenerShare,
        urgent: bool,
    ) -> io::Result<Address> {
        self.add_listener(listener, other.socket()?, urgent)
    }

    fn submit(&mut self, op: Op<Incoming>) {
        match op {
            Op::Accept { listener, on } => self.turn_accepting(listener, on),
            Op::Unlisten { listener } => self.unlisten(listener),
            Op::Connect { attempt, to, urgent } => self.connect(attempt, &to, urgent),
            Op::Abandon { attempt } => self.abandon(attempt),
            Op::Adopt { token, socket } => self.adopt(token, socket),
            Op::Receive { token, on } => self.receive(token, on),
            Op::ShutdownWrite { token } => {
                if let Some(connection) = self.connections.get(token) {
                    // It fails only where the peer has already gone, which reading will tell.
                    let _ = connection.socket.shutdown(Shutdown::Write);
                }
            }
            Op::Close { token, reset } => self.close(token, reset),
        }
    }

    fn send(&mut self, token: Token, batch: Buffer, awaited: bool) -> Option<Sent> {
        let connection = self.connections.get_mut(token)?;
        debug_assert!(!connection.is(Fact::SENDING), "one send in flight");
        let (who, socket) = (token.data().as_ffi(), connection.socket.as_fd());
        let started = if connection.is(Fact::PARTIAL) {
            self.ring.send_patiently(who, socket, batch)
        } else {
            self.hurry |= awaited;
            self.ring.send_now(who, socket, batch)
        };
        connection.set(Fact::SENDING, started.is_ok());
        started.err()
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut impl Sink<Incoming>,
    ) -> io::Result<()> {
        self.arm_receives();
        self.watch_silent();
        let awake = self.deliver(sink) != Next::Sleep;
        let had_more = self.turns.count_more();
        let hurry = std::mem::take(&mut self.hurry);
        let at_hand = had_more > 0 || self.turns.are_behind() || self.listeners.may_accept();
        let busy = awake || hurry || at_hand;
        let timeout = match timeout {
            _ if busy => Some(Duration::ZERO),
            _ if !self.ring.flights().is_empty() => Some(timeout.unwrap_or(MOMENT).min(MOMENT)),
            _ => timeout,
        };
        let sleep_max = self.sleep_max();
        let timeout = match sleep_max {
            Some(most) => Some(timeout.unwrap_or(most).min(most)),
            None => timeout,
        };
        self.ring.enter(timeout)?;
        if sleep_max.is_some() {
            self.look_at_listeners();
        }
        sink.awake();
        if self.ring.flights().are_back() {
            self.serve_flights(sink);
        }
        if self.serve_reports(sink) != Next::Enough && had_more > 0 {
            self.serve_more(had_more, sink);
        }
        self.serve_listeners(sink);
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.turns.are_behind()
    }

    fn unread(&self, token: Token) -> usize {
        self.connections.get(token).map_or(0, |connection| unread(&connection.socket))
    }

    fn unacknowledged(&self, token: Token) -> Option<usize> {
        self.connections.get(token).and_then(|connection| unacknowledged(&connection.socket))
    }

    fn credentials(&self, token: Token) -> Option<PeerCredentials> {
        self.connections.get(token).and_then(|connection| credentials(&connection.socket))
    }

    fn clock(&self) -> Clock {
        Clock::System
    }

    fn waker(&self) -> Waker {
        let event = Arc::clone(&self.event);
        // It fails only if the counter is full, and then the driver wakes anyway.
        Waker::new(move || {
            let _ = write(&event, &1u64.to_ne_bytes());
        })
    }
}
