//! Watching connections of which nothing is received: that one broke is told all the same.
//!
//! Whatever is received or sent tells of a reset by failing. A connection that does neither when a
//! wait begins is watched from then on until it is closed: so a connection that only passes through
//! this state within a turn costs nothing.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::{
    Incoming, POLLERR, UringDriver,
    connection::{Arm, Fact},
    name,
    report::{Kind, Report},
};
use crate::driver::{Completion, Sink, Token};

impl UringDriver {
    /// Has a connection looked at when the next wait begins.
    pub(super) fn mind(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token)
            && !connection.is(Fact::RECEIVING)
            && !connection.replace(Fact::MINDED, true)
        {
            self.minded.push(token);
        }
    }

    /// Watches those that nothing else would tell of.
    pub(super) fn watch_minded(&mut self) {
        let mut minded = std::mem::take(&mut self.minded);
        for token in minded.drain(..) {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            connection.set(Fact::MINDED, false);
            if !connection.is_silent() {
                continue;
            }
            if connection.is(Fact::BROKEN) {
                let failure = self.broken(token);
                self.done.extend(failure);
            } else if connection.watch == Arm::Idle && !connection.is(Fact::URGENT) {
                let fd = connection.socket.as_fd();
                // The kernel adds POLLRDHUP to whatever is watched for. A watch that reports once
                // would end with a half-close, and a reset behind that would be missed.
                // What cannot be watched is told of by the next send.
                if self.ring.watch(name(Kind::Watch, token), fd, POLLERR, true).is_ok() {
                    connection.watch = Arm::Armed;
                }
            }
        }
        self.minded = minded;
    }

    pub(super) fn watched(&mut self, token: Token, report: &Report, sink: &mut dyn Sink<Incoming>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !report.more {
            connection.watch = Arm::Idle;
        }
        if connection.closing.is_some() {
            return self.release(token);
        }
        let Ok(events) = report.result else { return };
        if events & POLLERR != 0 {
            connection.set(Fact::BROKEN, true);
        }
        if connection.is(Fact::URGENT) {
            self.watched_for_urgent(token, events, sink);
        } else if !report.more {
            // It may end for lack of room for its reports.
            self.mind(token);
        }
        self.tell_broken(token, sink);
    }

    /// Tells that a connection broke, if no operation of it does.
    pub(super) fn tell_broken(&mut self, token: Token, sink: &mut dyn Sink<Incoming>) {
        if let Some(failure) = self.broken(token) {
            sink.take(failure);
        }
    }

    fn broken(&mut self, token: Token) -> Option<Completion<'static, Incoming>> {
        let connection = self.connections.get(token)?;
        if !connection.is_silent() || !connection.is(Fact::BROKEN) {
            return None;
        }
        let error = connection.socket.take_error().ok().flatten();
        self.fail(token, error.unwrap_or_else(|| Errno::CONNRESET.into()))
    }
}
