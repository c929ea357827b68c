//! Receiving from connections of which urgent bytes are wanted.
//!
//! A receive of the ring wakes up for an urgent byte too, and reads past it before the driver can
//! take it. So the ring only watches these connections, and calls receive: first the urgent byte,
//! then the stream, in which a read stops at the urgent mark.

use std::os::fd::AsFd;

use super::{
    Incoming, POLLERR, POLLHUP, POLLIN, POLLPRI, POLLRDHUP, UringDriver,
    connection::{Arm, Connection, Fact},
    name,
    report::Kind,
};
use crate::driver::{Completion, Sink, Token, urgent::take_urgent};

impl UringDriver {
    /// Has the ring report everything that comes in on a connection.
    pub(super) fn watch_for_urgent(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let events = POLLIN | POLLPRI | POLLRDHUP;
        match self.ring.watch(name(Kind::Watch, token), connection.socket.as_fd(), events, true) {
            Ok(()) => connection.watch = Arm::Armed,
            Err(error) => self.done.push(Completion::Failed { token, error }),
        }
    }

    /// Something came in. It is read behind the reports of this look.
    pub(super) fn watched_for_urgent(
        &mut self,
        token: Token,
        events: u32,
        sink: &mut impl Sink<Incoming>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let ending = events & (POLLRDHUP | POLLHUP | POLLERR) != 0;
        if ending || events & POLLIN != 0 {
            connection.set(Fact::READABLE, true);
        }
        if ending || events & POLLPRI != 0 {
            connection.set(Fact::PROBE, true);
        }
        if events & POLLPRI != 0 {
            deliver_urgent(connection, token, sink);
        }
        if connection.watch == Arm::Idle {
            self.watch_for_urgent(token);
        }
        self.go_on_receiving(token);
    }
}

/// Takes the urgent byte of a connection, if it has one, and delivers it.
pub(super) fn deliver_urgent(
    connection: &mut Connection,
    token: Token,
    sink: &mut impl Sink<Incoming>,
) {
    if let Some(byte) = take_urgent(&connection.socket) {
        connection.set(Fact::PROBE, true);
        sink.take(Completion::Urgent { token, byte });
    }
}
