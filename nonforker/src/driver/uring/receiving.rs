//! Receiving over io_uring: one piece at a time, into a buffer of the ring.
//!
//! ```text
//!  unarmed ── a wait begins ──▶ armed ── the ring brings a piece ──▶ sink
//!     ▲                                    │          │
//!     └────────────── a short one ─────────┘          │ a full one, or there was no buffer
//!     │                                               ▼
//!     └────────────── a short one ──── read by a call, in its turn ──▶ sink
//! ```
//!
//! A receive is armed for one piece, in the submission of the turn's sends. So what a flood sends
//! stays in the kernel, whose window stops the peer. A connection that fills its piece is read by
//! calls, behind the others (see [`turns`](crate::driver::turns)), until it brings less.
//!
//! While receiving is off, no receive is armed. One that is armed already may still bring one piece.

use std::{io, mem, os::fd::AsFd};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use slotmap::Key;

use super::{
    Incoming, UringDriver,
    buffers::BUFFER_SIZE,
    connection::{Arm, Connection, Fact},
    report::Report,
    urgent::deliver_urgent,
};
use crate::driver::{Completion, Next, Sink, Token, urgent::look};

impl UringDriver {
    pub(super) fn receive(&mut self, token: Token, on: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::RECEIVING, on);
        if on {
            self.go_on_receiving(token);
        } else {
            self.check_silence(token);
        }
    }

    /// Receives from a connection in the next wait, unless the engine turns that off before: by a
    /// call if the kernel may have something, by the ring if not.
    pub(super) fn go_on_receiving(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.is(Fact::READABLE) {
            // An urgent connection is watched all the time.
            if !connection.is(Fact::URGENT) {
                self.unarmed.push(token);
            }
        } else if connection.is(Fact::RECEIVING) && !connection.replace(Fact::QUEUED, true) {
            self.turns.push_more(token);
        }
    }

    /// Arms the receives of this turn.
    pub(super) fn arm_receives(&mut self) {
        let mut unarmed = mem::take(&mut self.unarmed);
        for token in unarmed.drain(..) {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            if !connection.may_be_armed() {
                continue;
            }
            let (key, socket) = (token.data().as_ffi(), connection.socket.as_fd());
            let is_waiting = connection.is(Fact::WAITING);
            match self.ring.receive(key, socket, self.piece, !is_waiting) {
                Ok(()) => connection.receive = Arm::Armed,
                Err(error) => {
                    let failure = self.fail(token, error);
                    self.done.extend(failure);
                }
            }
        }
        self.unarmed = unarmed;
    }

    /// The ring brought a piece, or the end, or nothing.
    pub(super) fn received(
        &mut self,
        token: Token,
        mut report: Report,
        sink: &mut impl Sink<Incoming>,
    ) -> Next {
        let mut next = Next::Return;
        if let Some(connection) = self.connections.get_mut(token) {
            connection.receive = Arm::Idle;
            connection.set(Fact::WAITING, report.more_waits);
            match &report.result {
                _ if connection.closing.is_some() => self.release(token),
                Ok(0) => self.end(token, sink),
                Ok(_) => {
                    self.ring.tally.late += u32::from(!connection.is(Fact::RECEIVING));
                    let bytes = match &mut report.lent {
                        Some(lent) => self.ring.buffers().bytes(lent),
                        None => &mut [],
                    };
                    connection.set(Fact::READABLE, bytes.len() >= self.piece);
                    next = sink.received(token, bytes);
                    self.go_on_receiving(token);
                }
                Err(error) => match Errno::from_io_error(error) {
                    Some(Errno::NOBUFS) => {
                        self.ring.tally.hungry += 1;
                        connection.set(Fact::READABLE, true);
                        self.go_on_receiving(token);
                    }
                    Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {
                        self.go_on_receiving(token);
                    }
                    errno => {
                        let error = errno.unwrap_or(Errno::CONNRESET).into();
                        if let Some(failure) = self.fail(token, error) {
                            sink.take(failure);
                        }
                    }
                },
            }
            self.check_silence(token);
        }
        if let Some(lent) = report.lent {
            self.ring.buffers().give(lent);
        }
        next
    }

    /// Reads a share of each of the first `count` connections that have more, as far as the sink
    /// takes it.
    pub(super) fn serve_more(&mut self, count: usize, sink: &mut impl Sink<Incoming>) {
        for _ in 0..count {
            let Some(token) = self.turns.pop_more() else { return };
            if self.read(token, sink) == Next::Enough {
                return;
            }
        }
    }

    /// Reads once, by a call.
    fn read(&mut self, token: Token, sink: &mut impl Sink<Incoming>) -> Next {
        let Some(connection) = self.connections.get_mut(token) else { return Next::Return };
        connection.set(Fact::QUEUED, false);
        let may_bring = connection.is(Fact::RECEIVING) && !connection.is(Fact::ENDED);
        if !may_bring || connection.closing.is_some() {
            return Next::Return;
        }
        if connection.is(Fact::URGENT) {
            // The ring reported the stream a while ago. An urgent byte may have come since then.
            let found = look(&connection.socket);
            if found.urgent {
                deliver_urgent(connection, token, sink);
            }
            if !found.readable {
                connection.set(Fact::READABLE, false);
                self.go_on_receiving(token);
                return Next::Return;
            }
        }
        let mut next = Next::Return;
        match read(connection, &mut self.scratch) {
            Ok(0) => self.end(token, sink),
            Ok(count) => {
                let is_full = count == self.scratch.len();
                connection.set(Fact::READABLE, is_full || connection.is(Fact::PROBE));
                next = sink.received(token, &mut self.scratch[..count]);
                self.go_on_receiving(token);
            }
            Err(Errno::AGAIN) => {
                connection.set(Fact::READABLE, false);
                self.go_on_receiving(token);
            }
            Err(errno) => {
                if let Some(failure) = self.fail(token, errno.into()) {
                    sink.take(failure);
                }
            }
        }
        next
    }

    /// The peer has finished.
    fn end(&mut self, token: Token, sink: &mut impl Sink<Incoming>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::RECEIVING, false);
        connection.set(Fact::READABLE, false);
        connection.set(Fact::ENDED, true);
        sink.take(Completion::EndOfStream { token });
        self.report_broken(token, sink);
        self.check_silence(token);
    }

    /// The connection broke. Returns the completion that says so, the first time.
    pub(super) fn fail(
        &mut self,
        token: Token,
        error: io::Error,
    ) -> Option<Completion<'static, Incoming>> {
        let connection = self.connections.get_mut(token)?;
        for fact in [Fact::RECEIVING, Fact::READABLE, Fact::BROKEN] {
            connection.set(fact, false);
        }
        connection.set(Fact::ENDED, true);
        let is_known = connection.replace(Fact::REPORTED_BROKEN, true);
        (!is_known).then_some(Completion::Failed { token, error })
    }
}

/// The most bytes of a piece.
pub(super) fn piece(read_max: usize) -> usize {
    read_max.min(BUFFER_SIZE as usize)
}

fn read(connection: &Connection, into: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(&connection.socket, &mut *into, RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
