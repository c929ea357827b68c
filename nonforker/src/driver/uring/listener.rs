//! Accepting: the ring tells that somebody knocks, and a call of its own lets each one in.
//!
//! An accept in the ring takes a descriptor whenever somebody connects, wanted or not, and a
//! multishot one takes all there are before it can be stopped. Those are the descriptors that the
//! engine keeps free. It does not tell who the peer is either, which costs the call that it saves.

use std::{
    io::{self, ErrorKind},
    os::fd::AsFd,
};

use super::{Incoming, POLLIN, UringDriver, connection::Arm, name_of_listener, report::Report};
use crate::{
    address::Peer,
    driver::{
        Completion, ListenerId, Sink,
        socket::{self, Listener},
    },
};

/// Connections taken per listener and wait, so that a flood of them does not starve the rest.
const ACCEPTS: usize = 16;

/// One listener. It is [gone](UringDriver::unlisten) when it is closed.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: Listener,
    on: bool,
    /// Somebody may be waiting.
    knocked: bool,
    watch: Arm,
    /// Its connections want urgent bytes.
    urgent: bool,
}

impl Accepting {
    pub(super) const fn new(listener: Listener, urgent: bool) -> Self {
        Self { listener, on: false, knocked: true, watch: Arm::Idle, urgent }
    }

    /// Lets one in.
    fn accept(&self) -> io::Result<Option<(Incoming, Peer)>> {
        // Its sends and receives wait in the kernel, so that it stays a blocking socket.
        let (socket, address) = self.listener.socket.accept()?;
        let peer = socket::peer_of(&address);
        // A socket that cannot be set up broke while it waited.
        let set_up = self.listener.set_up(&socket, &peer).ok();
        Ok(set_up.map(|()| (Incoming { socket, urgent: self.urgent }, peer)))
    }
}

impl UringDriver {
    pub(super) fn turn_accepting(&mut self, listener: ListenerId, on: bool) {
        if let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) {
            accepting.on = on;
            if accepting.watch == Arm::Idle {
                self.watch_listener(listener);
            }
        }
    }

    fn watch_listener(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) else {
            return;
        };
        let fd = accepting.listener.socket.as_fd();
        match self.ring.watch(name_of_listener(listener), fd, POLLIN, true) {
            Ok(()) => accepting.watch = Arm::Armed,
            Err(error) => {
                accepting.on = false;
                self.done.push(Completion::AcceptFailed { listener, error });
            }
        }
    }

    pub(super) fn unlisten(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::take) else {
            return;
        };
        if accepting.watch == Arm::Armed && self.ring.cancel(name_of_listener(listener)).is_ok() {
            // The ring may not have been given the watch yet, which names the descriptor.
            let _ = self.ring.hand_over();
        }
        // The kernel keeps the socket until the watch has ended; nobody reaches it any more.
        let _ = accepting.listener.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Whether somebody may be let in without waiting.
    pub(super) fn has_knocked(&self) -> bool {
        self.listeners.iter().flatten().any(|accepting| accepting.on && accepting.knocked)
    }

    /// Somebody knocked.
    pub(super) fn knocked(&mut self, report: &Report) {
        let Ok(listener) = ListenerId::try_from(report.name.who) else { return };
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) else {
            return;
        };
        accepting.knocked = true;
        if !report.more {
            accepting.watch = Arm::Idle;
            self.watch_listener(listener);
        }
    }

    pub(super) fn serve_listeners(&mut self, sink: &mut Sink<'_, Incoming>) {
        for (listener, accepting) in self.listeners.iter_mut().enumerate() {
            let Some(accepting) = accepting else { continue };
            for _ in 0..ACCEPTS {
                if !accepting.on || !accepting.knocked {
                    break;
                }
                match accepting.accept() {
                    Ok(Some((socket, peer))) => {
                        sink(Completion::Accepted { listener, socket, peer });
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        accepting.knocked = false;
                    }
                    Err(error) => {
                        accepting.on = false;
                        sink(Completion::AcceptFailed { listener, error });
                    }
                }
            }
        }
    }
}
