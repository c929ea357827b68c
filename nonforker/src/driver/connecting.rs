//! Connecting over real sockets, by calls: a driver only finds out that an attempt may have ended.
//!
//! ```text
//!  begin ──▶ connected at once ─────────────────────▶ Connected
//!    ├─────▶ under way ── the socket is writable ──▶ end ──▶ Connected, or failed
//!    └─────▶ failed at once ────────────────────────▶ ConnectFailed
//! ```

use std::{collections::HashMap, io};

use socket2::Socket;

use super::{
    AttemptId, Destination, Probing,
    socket::{connect, connected},
};
use crate::{address::Peer, exec::Warden};

/// An attempt that is under way.
#[derive(Debug)]
pub(super) struct Attempt<X> {
    pub(super) socket: Socket,
    /// What its driver remembers of it.
    pub(super) extra: X,
}

/// How far an attempt has come.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is among the [`Attempts`], to be watched until its socket is writable.
    UnderWay,
    Connected(Socket, Peer),
    Failed(io::Error),
}

/// How an attempt has ended.
pub(super) type Ended<X> = (Attempt<X>, io::Result<Peer>);

/// The attempts of a driver that are under way.
#[derive(Debug)]
pub(super) struct Attempts<X> {
    all: HashMap<AttemptId, Attempt<X>>,
    /// Of the programs that were started.
    warden: Option<Warden>,
}

impl<X> Attempts<X> {
    pub(super) fn new() -> Self {
        Self { all: HashMap::new(), warden: None }
    }

    /// Begins to connect.
    pub(super) fn begin(
        &mut self,
        id: AttemptId,
        to: &Destination,
        probing: Probing,
        extra: X,
    ) -> Begun {
        let address = match to {
            Destination::Address(address) => address,
            Destination::Program(program) => {
                return match program.start(&mut self.warden) {
                    Ok(socket) => Begun::Connected(socket, Peer::Program),
                    Err(error) => Begun::Failed(error),
                };
            }
        };
        match connect(address, probing) {
            Ok((socket, true)) => match connected(&socket) {
                Ok(peer) => Begun::Connected(socket, peer.unwrap_or(Peer::Unix)),
                Err(error) => Begun::Failed(error),
            },
            Ok((socket, false)) => {
                self.all.insert(id, Attempt { socket, extra });
                Begun::UnderWay
            }
            Err(error) => Begun::Failed(error),
        }
    }

    pub(super) fn get_mut(&mut self, id: AttemptId) -> Option<&mut Attempt<X>> {
        self.all.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: AttemptId) -> Option<Attempt<X>> {
        self.all.remove(&id)
    }

    /// The socket is writable: takes the attempt out, if that is its end.
    pub(super) fn end(&mut self, id: AttemptId) -> Option<Ended<X>> {
        let peer = connected(&self.all.get(&id)?.socket).transpose()?;
        Some((self.all.remove(&id)?, peer))
    }
}
