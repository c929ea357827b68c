//! Receiving from connections of which urgent bytes are wanted.
//!
//! The kernel's own receiving wakes up for an urgent byte too, and reads past it before anybody
//! can ask for it. So here the ring only tells that there is something, and calls of its own take
//! it: the urgent byte first, then the stream, which a read leaves at the urgent mark.

use std::os::fd::AsFd;

use rustix::net::{RecvFlags, recv};

use super::{
    Incoming, POLLERR, POLLHUP, POLLIN, POLLPRI, POLLRDHUP, UringDriver,
    connection::{Arm, Connection, Fact},
    name,
    report::Kind,
};
use crate::driver::{Completion, Sink, Token};

impl UringDriver {
    /// Has the ring tell of everything that comes in on a connection.
    pub(super) fn watch_for_urgent(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let events = POLLIN | POLLPRI | POLLRDHUP;
        match self.ring.watch(name(Kind::Watch, token), connection.socket.as_fd(), events, true) {
            Ok(()) => connection.watch = Arm::Armed,
            Err(error) => self.done.push(Completion::Failed { token, error }),
        }
    }

    /// Something came in, and is read when everybody has told what came.
    pub(super) fn watched_for_urgent(
        &mut self,
        token: Token,
        events: u32,
        sink: &mut dyn Sink<Incoming>,
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
            take_urgent(connection, token, sink);
        }
        if connection.watch == Arm::Idle {
            self.watch_for_urgent(token);
        }
        self.go_on_receiving(token);
    }
}

/// Takes the urgent byte out of the kernel, if there is one.
pub(super) fn take_urgent(
    connection: &mut Connection,
    token: Token,
    sink: &mut dyn Sink<Incoming>,
) {
    let mut byte = [0];
    let flags = RecvFlags::OOB | RecvFlags::DONTWAIT;
    // EINVAL is normal: there is none, it has been overtaken by a newer one, or taken already.
    if let Ok((1, _)) = recv(&connection.socket, &mut byte, flags) {
        connection.set(Fact::PROBE, true);
        sink.take(Completion::Urgent { token, byte: byte[0] });
    }
}
