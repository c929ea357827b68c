//! Receiving from connections of which urgent bytes are wanted.
//!
//! The kernel's own receiving wakes up for an urgent byte too, and reads past it before anybody
//! can ask for it. So here the ring only tells that there is something, and calls of its own take
//! it: the urgent byte first, then the stream, which a read leaves at the urgent mark.

use std::os::fd::AsFd;

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use super::{
    Incoming, POLLERR, POLLHUP, POLLIN, POLLPRI, POLLRDHUP, UringDriver,
    connection::{Arm, Connection, Fact},
    name,
    receiving::enqueue,
    report::Kind,
};
use crate::driver::{Completion, Sink, Token};

/// What a read made of a connection.
enum Read {
    Bytes(usize),
    End,
    Nothing,
    Broken(Errno),
}

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
        sink: &mut Sink<'_, Incoming>,
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
        if connection.is(Fact::RECEIVING) && connection.is(Fact::READABLE) {
            enqueue(&mut self.ready, connection, token);
        }
        if connection.watch == Arm::Idle {
            self.watch_for_urgent(token);
        }
    }

    /// Reads a connection's share of this turn.
    pub(super) fn read(&mut self, token: Token, sink: &mut Sink<'_, Incoming>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.is(Fact::RECEIVING) || !connection.is(Fact::READABLE) {
            return;
        }
        let share = connection.share(self.turn, self.options.read_max);
        if share == 0 {
            return enqueue(&mut self.ready, connection, token);
        }
        // It may have come since the ring told of the stream.
        take_urgent(connection, token, sink);
        self.scratch.resize(self.options.read_max, 0);
        match read(connection, &mut self.scratch[..share]) {
            Read::Bytes(count) => {
                connection.took(count);
                let may_have_more = count == share || connection.is(Fact::PROBE);
                connection.set(Fact::READABLE, may_have_more);
                if may_have_more {
                    enqueue(&mut self.ready, connection, token);
                }
                sink(Completion::Received { token, bytes: &self.scratch[..count] });
            }
            Read::End => {
                connection.set(Fact::RECEIVING, false);
                connection.set(Fact::READABLE, false);
                connection.set(Fact::ENDED, true);
                sink(Completion::EndOfStream { token });
                self.mind(token);
            }
            Read::Nothing => connection.set(Fact::READABLE, false),
            Read::Broken(errno) => {
                connection.set(Fact::RECEIVING, false);
                connection.set(Fact::READABLE, false);
                connection.set(Fact::ENDED, true);
                connection.set(Fact::TOLD_BROKEN, true);
                sink(Completion::Failed { token, error: errno.into() });
            }
        }
    }
}

fn read(connection: &Connection, into: &mut [u8]) -> Read {
    loop {
        match recv(&connection.socket, &mut *into, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Read::End,
            Ok((count, _)) => return Read::Bytes(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Read::Nothing,
            Err(errno) => return Read::Broken(errno),
        }
    }
}

/// Takes the urgent byte out of the kernel, if there is one.
fn take_urgent(connection: &mut Connection, token: Token, sink: &mut Sink<'_, Incoming>) {
    let mut byte = [0];
    let flags = RecvFlags::OOB | RecvFlags::DONTWAIT;
    // EINVAL is normal: there is none, it has been overtaken by a newer one, or taken already.
    if let Ok((1, _)) = recv(&connection.socket, &mut byte, flags) {
        connection.set(Fact::PROBE, true);
        sink(Completion::Urgent { token, byte: byte[0] });
    }
}
