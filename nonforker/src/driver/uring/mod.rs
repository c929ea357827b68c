//! The driver over io_uring: operations are the kernel's own, and so are completions.
//!
//! ```text
//!  submit(Op) ──▶ submission queue ─┐          one enter per turn
//!  wait ────────────────────────────┴──▶ enter ──▶ reports ──▶ sink
//!                                          received bytes lie in the ring's buffers
//! ```
//!
//! Accepting, receiving and watching for urgent data are armed once and report many times. To
//! turn one off is to cancel it; what it still reports meanwhile is stashed, so that nothing is
//! lost and nothing comes that was not wanted.
//!
//! A connection that is closed goes in three steps: what is in flight is cancelled, its last
//! reports are awaited, the descriptor is closed. Then comes `Closed`.

mod connection;
mod listener;
mod receiving;
mod report;
mod ring;

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::Shutdown,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    socket::{MsgFlags, recv},
};
use slotmap::{Key, KeyData, SecondaryMap};
use socket2::Socket;

use self::{
    connection::{Arm, Connection, End},
    listener::Accepting,
    report::{Kind, Name, Report},
    ring::Ring,
};
use super::{
    Clock, Completion, Driver, ListenerId, Next, Op, Options, Sink, Token, Waker, socket::Listener,
};
use crate::{address::Address, conn::buffer::Buffer};

const POLLIN: u32 = 0x1;
const POLLPRI: u32 = 0x2;
const POLLERR: u32 = 0x8;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct UringDriver {
    ring: Ring,
    event: Arc<EventFd>,
    options: Options,
    listeners: Vec<Option<Accepting>>,
    connections: SecondaryMap<Token, Connection>,
    /// Connections with stashed bytes, or an end, to be delivered in the next wait.
    ready: VecDeque<Token>,
    /// Connections that were refused a buffer.
    hungry: Vec<Token>,
    done: Vec<Completion<'static, Socket>>,
    turn: u64,
}

impl UringDriver {
    /// A driver, where the kernel has what it needs.
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        ring.watch(Name { kind: Kind::Wake, who: 0 }, event.as_fd(), POLLIN)?;
        Ok(Self {
            ring,
            event,
            options,
            listeners: Vec::new(),
            connections: SecondaryMap::new(),
            ready: VecDeque::new(),
            hungry: Vec::new(),
            done: Vec::new(),
            turn: 0,
        })
    }

    fn adopt(&mut self, token: Token, socket: Socket) {
        let watched = self.ring.watch(name(Kind::Watch, token), socket.as_fd(), POLLPRI);
        let mut connection = Connection::new(socket);
        match watched {
            Ok(()) => connection.watch = Arm::Armed,
            Err(error) => self.done.push(Completion::Failed { token, error }),
        }
        self.connections.insert(token, connection);
    }

    fn send(&mut self, token: Token, batch: Buffer) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match self.ring.send(token.data().as_ffi(), connection.socket.as_fd(), batch) {
            Ok(()) => connection.sending = true,
            Err((error, batch)) => self.done.push(Completion::SendFailed { token, error, batch }),
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.closing = Some(reset);
        for (kind, armed) in [
            (Kind::Receive, connection.receive == Arm::Armed),
            (Kind::Watch, connection.watch == Arm::Armed),
            (Kind::Send, connection.sending),
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
        if let Some(connection) = self.connections.remove(token) {
            self.done.push(Completion::Closed { token, unsent: connection.unsent });
        }
    }

    fn take(&mut self, report: Report, sink: &mut Sink<'_, Socket>) {
        let Name { kind, who } = report.name;
        let token = Token::from(KeyData::from_ffi(who));
        match kind {
            Kind::Accept => self.accepted(report, sink),
            Kind::Receive => self.received(token, report, sink),
            Kind::Send => self.sent(token, report, sink),
            Kind::Watch => self.watched(token, report, sink),
            Kind::Wake => {
                let _ = self.event.read();
                sink(Completion::Woken);
                if !report.more {
                    let wake = Name { kind: Kind::Wake, who: 0 };
                    // It can only fail for lack of memory; then waits end by their timeouts.
                    let _ = self.ring.watch(wake, self.event.as_fd(), POLLIN);
                }
            }
            Kind::Cancel => {}
        }
    }

    fn sent(&mut self, token: Token, report: Report, sink: &mut Sink<'_, Socket>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(batch) = report.batch else { return };
        connection.sending = false;
        match report.result.map(|count| count as usize) {
            Err(_) if connection.closing.is_some() => connection.unsent = Some(batch),
            Err(error) => {
                sink(Completion::SendFailed { token, error, batch });
            }
            Ok(count) => {
                sink(Completion::Sent { token, count, batch });
            }
        }
        self.tell_broken(token);
        self.release(token);
    }

    fn watched(&mut self, token: Token, report: Report, sink: &mut Sink<'_, Socket>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !report.more {
            connection.watch = Arm::Idle;
        }
        if connection.closing.is_some() {
            return self.release(token);
        }
        let Ok(events) = report.result else { return };
        if events & POLLPRI != 0 {
            let mut byte = [0];
            let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_DONTWAIT;
            // EINVAL is normal: the byte has been overtaken by a newer one, or taken already.
            if let Ok(1) = recv(connection.socket.as_raw_fd(), &mut byte, flags) {
                sink(Completion::Urgent { token, byte: byte[0] });
            }
            // A receive stops at the mark and takes that for all there is: it is armed anew.
            let armed = self
                .connections
                .get(token)
                .is_some_and(|connection| connection.receive == Arm::Armed);
            if armed {
                self.disarm(token);
            }
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if events & POLLERR != 0 {
            connection.broken = true;
            self.tell_broken(token);
        } else if connection.watch == Arm::Idle
            && self.ring.watch(name(Kind::Watch, token), connection.socket.as_fd(), POLLPRI).is_ok()
        {
            connection.watch = Arm::Armed;
        }
    }

    /// Tells that a connection broke, if no operation of it does.
    fn tell_broken(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.is_silently_broken() {
            connection.broken = false;
            let error = connection.socket.take_error().ok().flatten();
            let error = error.unwrap_or_else(|| ErrorKind::ConnectionReset.into());
            self.end(token, End::Broken(error));
        }
    }

    fn deliver(&mut self, sink: &mut Sink<'_, Socket>) -> Next {
        let mut next = Next::Sleep;
        for completion in self.done.drain(..) {
            if sink(completion) != Next::Sleep {
                next = Next::Return;
            }
        }
        next
    }
}

fn name(kind: Kind, token: Token) -> Name {
    Name { kind, who: token.data().as_ffi() }
}

impl Driver for UringDriver {
    type Socket = Socket;

    fn listen(&mut self, listener: ListenerId, address: &Address) -> io::Result<Address> {
        let opened = Listener::open(address, &self.options)?;
        let address = opened.address()?;
        debug_assert_eq!(listener, self.listeners.len(), "listeners are opened in order");
        self.listeners.push(Some(Accepting::new(opened)));
        Ok(address)
    }

    fn submit(&mut self, op: Op<Socket>) {
        match op {
            Op::Accept { listener, on } => self.turn_accepting(listener, on),
            Op::Unlisten { listener } => self.unlisten(listener),
            Op::Adopt { token, socket } => self.adopt(token, socket),
            Op::Receive { token, on } => self.receive(token, on),
            Op::Send { token, batch } => self.send(token, batch),
            Op::ShutdownWrite { token } => {
                if let Some(connection) = self.connections.get(token) {
                    // It fails only where the peer has already gone, which reading will tell.
                    let _ = connection.socket.shutdown(Shutdown::Write);
                }
            }
            Op::Close { token, reset } => self.close(token, reset),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, sink: &mut Sink<'_, Socket>) -> io::Result<()> {
        let awake = self.deliver(sink) != Next::Sleep;
        self.turn += 1;
        for token in std::mem::take(&mut self.hungry) {
            self.rearm(token);
        }
        let busy = awake || !self.ready.is_empty() || self.has_waiting();
        self.ring.enter(if busy { Some(Duration::ZERO) } else { timeout })?;
        sink(Completion::Awake);
        self.serve_ready(sink);
        self.serve_waiting(sink);
        while let Some(report) = self.ring.next() {
            self.take(report, sink);
        }
        Ok(())
    }

    fn clock(&self) -> Clock {
        Clock::System
    }

    fn waker(&self) -> Waker {
        let event = Arc::clone(&self.event);
        // It fails only if the counter is full, and then the driver wakes anyway.
        Waker::new(move || {
            let _ = event.write(1);
        })
    }
}
