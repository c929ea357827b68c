//! Accepting over real sockets, by calls: a driver only finds out that a connection waits.
//!
//! ```text
//!  a report about a listener ──▶ readable ──▶ serve: accept, accept, … would block ──▶ not readable
//! ```
//!
//! An accept in a ring takes a descriptor whenever a peer connects, wanted or not, and a multishot
//! one takes all there are before it can be stopped. Those are the descriptors that the engine keeps
//! free. It does not report the peer's address either, and to ask for that costs the call that it saves.

use std::io::{self, ErrorKind};

use socket2::Socket;

use super::{Completion, ListenerId, ListenerShare, Sink, socket::Listener};

/// Connections taken per listener and wait, so that a flood of them does not starve the rest.
const ACCEPTS: usize = 16;

/// The same where other shards have the listener too: what is left in the backlog is for them.
const ACCEPTS_SHARED: usize = 4;

/// One listener, and what its driver remembers of it.
#[derive(Debug)]
pub(super) struct Accepting<X> {
    pub(super) listener: Listener,
    pub(super) on: bool,
    /// A connection may wait to be accepted.
    pub(super) readable: bool,
    pub(super) extra: X,
}

/// The listeners of a driver, by their number. `None` once it is closed.
#[derive(Debug)]
pub(super) struct Listeners<X> {
    all: Vec<Option<Accepting<X>>>,
    /// A listener is on and readable.
    may_accept: bool,
    /// The most connections per listener and wait.
    accepts: usize,
}

impl<X> Listeners<X> {
    /// None yet. Drivers of other shards have them too, if they are `shared`.
    pub(super) const fn new(shared: bool) -> Self {
        let accepts = if shared { ACCEPTS_SHARED } else { ACCEPTS };
        Self { all: Vec::new(), may_accept: false, accepts }
    }

    /// Adds a listener that does not accept yet.
    pub(super) fn add(&mut self, listener: ListenerId, opened: Listener, extra: X) {
        debug_assert_eq!(listener, self.all.len(), "listeners are opened in order");
        self.all.push(Some(Accepting { listener: opened, on: false, readable: true, extra }));
    }

    pub(super) fn get_mut(&mut self, listener: ListenerId) -> Option<&mut Accepting<X>> {
        self.all.get_mut(listener)?.as_mut()
    }

    /// A share of a listener, for the driver of another shard.
    pub(super) fn share_of(&self, listener: ListenerId) -> io::Result<ListenerShare> {
        let accepting = self.all.get(listener).and_then(Option::as_ref);
        let accepting = accepting.ok_or(ErrorKind::NotFound)?;
        accepting.listener.share().map(ListenerShare::Socket)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Accepting<X>> {
        self.all.iter().flatten()
    }

    /// Takes a listener out, to be closed.
    pub(super) fn remove(&mut self, listener: ListenerId) -> Option<Accepting<X>> {
        self.all.get_mut(listener)?.take()
    }

    pub(super) fn turn(&mut self, listener: ListenerId, on: bool) {
        if let Some(accepting) = self.get_mut(listener) {
            accepting.on = on;
            self.may_accept |= on;
        }
    }

    /// A connection waits at a listener.
    pub(super) fn note_readable(&mut self, listener: ListenerId) {
        if let Some(accepting) = self.get_mut(listener) {
            accepting.readable = true;
            self.may_accept = true;
        }
    }

    /// Whether there may be a connection to be accepted without waiting.
    pub(super) const fn may_accept(&self) -> bool {
        self.may_accept
    }

    /// Accepts, up to a bound for each listener. `adapt` makes the driver's own of a socket.
    pub(super) fn serve<S>(
        &mut self,
        adapt: impl Fn(Socket, &X) -> io::Result<S>,
        sink: &mut impl Sink<S>,
    ) {
        if !self.may_accept {
            return;
        }
        self.may_accept = false;
        for (listener, accepting) in self.all.iter_mut().enumerate() {
            let Some(accepting) = accepting else { continue };
            for _ in 0..self.accepts {
                if !accepting.on || !accepting.readable {
                    break;
                }
                let accepted = accepting.listener.accept().and_then(|accepted| {
                    let Some((socket, peer)) = accepted else { return Ok(None) };
                    Ok(Some((adapt(socket, &accepting.extra)?, peer)))
                });
                match accepted {
                    Ok(Some((socket, peer))) => {
                        sink.take(Completion::Accepted { listener, socket, peer });
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        accepting.readable = false;
                    }
                    Err(error) => {
                        accepting.on = false;
                        sink.take(Completion::AcceptFailed { listener, error });
                    }
                }
            }
            self.may_accept |= accepting.on && accepting.readable;
        }
    }
}
