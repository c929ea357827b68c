//! Watching connections that neither receive nor send, so that the driver reports a reset.
//!
//! A receive or a send reports a reset by failing. A connection that has neither when a wait begins
//! is watched from then on, until it is closed. A connection that is in this state only within a
//! turn costs nothing.

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
    /// If a connection is silent when the next wait begins, it will be watched.
    pub(super) fn check_silence(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token)
            && !connection.is(Fact::RECEIVING)
            && !connection.replace(Fact::LISTED, true)
        {
            self.maybe_silent.push(token);
        }
    }

    /// Watches the connections whose end no operation would report.
    pub(super) fn watch_silent(&mut self) {
        let mut maybe_silent = std::mem::take(&mut self.maybe_silent);
        for token in maybe_silent.drain(..) {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            connection.set(Fact::LISTED, false);
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
                // If it cannot be watched, the next send reports the reset.
                if self.ring.watch(name(Kind::Watch, token), fd, POLLERR, true).is_ok() {
                    connection.watch = Arm::Armed;
                }
            }
        }
        self.maybe_silent = maybe_silent;
    }

    pub(super) fn watched(
        &mut self,
        token: Token,
        report: &Report,
        sink: &mut impl Sink<Incoming>,
    ) {
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
            self.check_silence(token);
        }
        self.report_broken(token, sink);
    }

    /// Reports that a connection broke, if none of its operations does.
    pub(super) fn report_broken(&mut self, token: Token, sink: &mut impl Sink<Incoming>) {
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
