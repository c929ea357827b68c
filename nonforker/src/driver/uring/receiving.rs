//! Receiving over io_uring: armed once, reported many times, and stashed where it is not wanted.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    os::fd::AsFd,
};

use nix::errno::Errno;
use slotmap::Key;
use socket2::Socket;

use super::{
    UringDriver,
    connection::{Arm, Connection, End},
    name,
    report::{Kind, Report},
};
use crate::driver::{Completion, Sink, Token};

/// How much is stashed of a flood, in shares of a turn, before its receiving is stopped.
const STASH_SHARES: usize = 2;

impl UringDriver {
    pub(super) fn receive(&mut self, token: Token, on: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.receiving = on;
        if on {
            if connection.stashed() > 0 || connection.end.is_some() {
                enqueue(&mut self.ready, connection, token);
            } else {
                self.arm(token);
            }
        } else if connection.receive == Arm::Armed {
            self.disarm(token);
        }
    }

    /// Has the kernel receive, if it does not already.
    pub(super) fn arm(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.receive == Arm::Idle && !connection.ended && connection.closing.is_none() {
            match self.ring.receive(token.data().as_ffi(), connection.socket.as_fd()) {
                Ok(()) => connection.receive = Arm::Armed,
                Err(error) => self.end(token, End::Broken(error)),
            }
        }
    }

    /// Has the kernel stop receiving. Should that fail, what it goes on to receive is stashed.
    pub(super) fn disarm(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token)
            && self.ring.cancel(name(Kind::Receive, token)).is_ok()
        {
            connection.receive = Arm::Ending;
        }
    }

    /// The peer's direction has ended. It is told behind what is stashed.
    pub(super) fn end(&mut self, token: Token, end: End) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended && !matches!(end, End::Broken(_)) {
            return;
        }
        connection.ended = true;
        connection.end = Some(end);
        enqueue(&mut self.ready, connection, token);
    }

    pub(super) fn received(
        &mut self,
        token: Token,
        mut report: Report,
        sink: &mut Sink<'_, Socket>,
    ) {
        let lent = report.lent.take();
        if let Some(connection) = self.connections.get_mut(token) {
            if !report.more {
                connection.receive = Arm::Idle;
            }
            if let Some(lent) = &lent
                && connection.closing.is_none()
            {
                let bytes = self.ring.bytes(lent);
                let mut count = 0;
                if connection.receiving && connection.stashed() == 0 {
                    let share = connection.share(self.turn, self.options.read_max);
                    count = share.min(bytes.len());
                }
                let (now, later) = bytes.split_at(count);
                if !later.is_empty() {
                    connection.stash.extend_from_slice(later);
                    enqueue(&mut self.ready, connection, token);
                }
                if !now.is_empty() {
                    connection.taken += count;
                    sink(Completion::Received { token, bytes: now });
                }
            }
        }
        if let Some(lent) = lent {
            self.ring.give_back(lent);
        }
        self.after_receive(token, &report);
    }

    /// Decides how the receiving goes on after a report.
    fn after_receive(&mut self, token: Token, report: &Report) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.closing.is_some() {
            return self.release(token);
        }
        // A receive that fails tells of it.
        connection.broken &= report.result.is_ok();
        let flood = STASH_SHARES * self.options.read_max;
        if connection.stashed() > flood && connection.receive == Arm::Armed {
            self.disarm(token);
        }
        match &report.result {
            Ok(0) => self.end(token, End::Finished),
            Ok(_) => self.rearm(token),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOBUFS) => self.hungry.push(token),
                Some(Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN) => self.rearm(token),
                errno => {
                    let error = errno.map_or_else(|| ErrorKind::Other.into(), io::Error::from);
                    self.end(token, End::Broken(error));
                }
            },
        }
    }

    /// Has the kernel receive again, if that is wanted and nothing is stashed.
    pub(super) fn rearm(&mut self, token: Token) {
        if let Some(connection) = self.connections.get(token)
            && connection.receiving
            && connection.stashed() == 0
        {
            self.arm(token);
        }
    }

    /// Gives those with something stashed their share, and whoever lacked a buffer another chance.
    pub(super) fn serve_ready(&mut self, sink: &mut Sink<'_, Socket>) {
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            self.serve_stash(token, sink);
        }
    }

    fn serve_stash(&mut self, token: Token, sink: &mut Sink<'_, Socket>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.queued = false;
        if connection.closing.is_some() {
            return;
        }
        // That it broke is told even if nothing is received.
        let broken = connection.stashed() == 0 && matches!(connection.end, Some(End::Broken(_)));
        if !connection.receiving && !broken {
            return;
        }
        let count = connection.share(self.turn, self.options.read_max).min(connection.stashed());
        if count > 0 {
            let first = connection.delivered;
            connection.taken += count;
            connection.delivered += count;
            let bytes = &connection.stash[first..first + count];
            sink(Completion::Received { token, bytes });
        }
        if connection.stashed() > 0 {
            return enqueue(&mut self.ready, connection, token);
        }
        connection.stash = Vec::new();
        connection.delivered = 0;
        match connection.end.take() {
            None => self.rearm(token),
            Some(End::Finished) => {
                connection.receiving = false;
                sink(Completion::EndOfStream { token });
                self.tell_broken(token);
            }
            Some(End::Broken(error)) => {
                connection.receiving = false;
                sink(Completion::Failed { token, error });
            }
        }
    }
}

/// Has a connection looked at in the next wait.
fn enqueue(ready: &mut VecDeque<Token>, connection: &mut Connection, token: Token) {
    if !std::mem::replace(&mut connection.queued, true) {
        ready.push_back(token);
    }
}
