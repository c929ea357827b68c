//! How the io_uring driver connects: by a call that does not wait, and the ring reports when the
//! socket is writable.
//!
//! An attempt that is abandoned stays here until the ring has let go of its socket.

use std::{net::Shutdown, os::fd::AsFd};

use socket2::Socket;

use super::{
    Incoming, POLLOUT, UringDriver,
    report::{Kind, Name},
};
use crate::{
    address::Peer,
    driver::{AttemptId, Completion, Destination, Sink, connecting::Begun},
};

/// What an attempt is to lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Connection,
    /// A connection whose handler wants urgent bytes.
    Urgent,
    /// It was abandoned.
    Nothing,
}

fn name(attempt: AttemptId) -> Name {
    Name { kind: Kind::Connect, key: u64::from(attempt) << 32 }
}

fn connected(
    attempt: AttemptId,
    wanted: Wanted,
    socket: Socket,
    peer: Peer,
) -> Completion<'static, Incoming> {
    // Its sends and receives wait in the kernel.
    match socket.set_nonblocking(false) {
        Ok(()) => {
            let socket = Incoming { socket, urgent: wanted == Wanted::Urgent };
            Completion::Connected { attempt, socket, peer }
        }
        Err(error) => Completion::ConnectFailed { attempt, error },
    }
}

impl UringDriver {
    pub(super) fn connect(&mut self, attempt: AttemptId, to: &Destination, urgent: bool) {
        let wanted = if urgent { Wanted::Urgent } else { Wanted::Connection };
        let begun = self.attempts.begin(attempt, to, self.options.probing, wanted);
        let done = match begun {
            Begun::Connected(socket, peer) => Some(connected(attempt, wanted, socket, peer)),
            Begun::Failed(error) => Some(Completion::ConnectFailed { attempt, error }),
            Begun::UnderWay => self.watch_attempt(attempt),
        };
        self.done.extend(done);
    }

    /// Has the ring say when the socket is writable.
    fn watch_attempt(&mut self, attempt: AttemptId) -> Option<Completion<'static, Incoming>> {
        let socket = self.attempts.get_mut(attempt)?.socket.as_fd();
        let error = self.ring.watch(name(attempt), socket, POLLOUT, false).err()?;
        self.attempts.remove(attempt);
        Some(Completion::ConnectFailed { attempt, error })
    }

    pub(super) fn abandon(&mut self, attempt: AttemptId) {
        let Some(under_way) = self.attempts.get_mut(attempt) else {
            return self.done.retain(|completion| {
                !matches!(*completion,
                    Completion::Connected { attempt: of, .. }
                    | Completion::ConnectFailed { attempt: of, .. } if of == attempt)
            });
        };
        under_way.extra = Wanted::Nothing;
        if self.ring.cancel(name(attempt)).is_err() {
            // What cannot be cancelled ends with the socket.
            let _ = under_way.socket.shutdown(Shutdown::Both);
        }
    }

    /// A socket is writable, or its watch has ended.
    pub(super) fn may_be_connected(&mut self, of: Name, sink: &mut impl Sink<Incoming>) {
        let Ok(attempt) = AttemptId::try_from(of.key >> 32) else { return };
        let Some(under_way) = self.attempts.get_mut(attempt) else { return };
        if under_way.extra == Wanted::Nothing {
            self.attempts.remove(attempt);
            return;
        }
        let completion = match self.attempts.end(attempt) {
            Some((ended, Ok(peer))) => Some(connected(attempt, ended.extra, ended.socket, peer)),
            Some((_, Err(error))) => Some(Completion::ConnectFailed { attempt, error }),
            None => self.watch_attempt(attempt),
        };
        if let Some(completion) = completion {
            sink.take(completion);
        }
    }
}
