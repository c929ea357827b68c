//! How the poll driver connects: a socket that is being connected is watched until it is writable.

use std::os::fd::AsRawFd;

use mio::{Interest, Registry, unix::SourceFd};
use socket2::Socket;

use super::PollDriver;
use crate::driver::{
    AttemptId, Completion, Destination, Sink,
    connecting::{Attempts, Begun},
};

/// Where the token of an attempt has no number. Generations of connections are odd, and listeners have
/// none.
const ATTEMPT: u64 = 2 << 32;

fn mio_token(attempt: AttemptId) -> mio::Token {
    let bits = ATTEMPT | u64::from(attempt);
    mio::Token(usize::try_from(bits).expect("tokens have as many bits as a pointer"))
}

pub(super) const fn is_of_attempt(token: mio::Token) -> bool {
    token.0 as u64 >> 32 == ATTEMPT >> 32
}

impl PollDriver {
    pub(super) fn connect(&mut self, attempt: AttemptId, to: &Destination) {
        self.done.push(match self.attempts.begin(attempt, to, self.options.probing, ()) {
            Begun::Connected(socket, peer) => Completion::Connected { attempt, socket, peer },
            Begun::Failed(error) => Completion::ConnectFailed { attempt, error },
            Begun::UnderWay => {
                let Some(under_way) = self.attempts.get_mut(attempt) else { return };
                let fd = under_way.socket.as_raw_fd();
                let registry = self.poll.registry();
                let watched =
                    registry.register(&mut SourceFd(&fd), mio_token(attempt), Interest::WRITABLE);
                let Err(error) = watched else { return };
                self.attempts.remove(attempt);
                Completion::ConnectFailed { attempt, error }
            }
        });
    }

    pub(super) fn abandon(&mut self, attempt: AttemptId) {
        // To close the socket ends the reports about it.
        if self.attempts.remove(attempt).is_some() {
            return;
        }
        self.done.retain(|completion| {
            !matches!(*completion,
                Completion::Connected { attempt: of, .. }
                | Completion::ConnectFailed { attempt: of, .. } if of == attempt)
        });
    }
}

/// An edge is about an attempt: it may have ended.
pub(super) fn serve(
    registry: &Registry,
    attempts: &mut Attempts<()>,
    token: mio::Token,
    sink: &mut impl Sink<Socket>,
) {
    let Ok(attempt) = AttemptId::try_from(token.0 as u64 & u64::from(u32::MAX)) else { return };
    let Some((ended, peer)) = attempts.end(attempt) else { return };
    let socket = ended.socket;
    // It is registered again when it is adopted.
    let unwatched = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
    sink.take(match peer.and_then(|peer| unwatched.map(|()| peer)) {
        Ok(peer) => Completion::Connected { attempt, socket, peer },
        Err(error) => Completion::ConnectFailed { attempt, error },
    });
}
