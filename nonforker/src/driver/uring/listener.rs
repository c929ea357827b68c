//! Watching listeners: the ring reports that a connection waits, and a call accepts it.

use std::{io, net::Shutdown, os::fd::AsFd};

use super::{Incoming, POLLIN, UringDriver, connection::Arm, name_of_listener, report::Report};
use crate::{
    address::Address,
    driver::{Completion, ListenerId, Sink, socket::Listener},
};

/// What the ring has to do with a listener.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) watch: Arm,
    /// Its connections want urgent bytes.
    pub(super) urgent: bool,
}

impl UringDriver {
    pub(super) fn add_listener(
        &mut self,
        listener: ListenerId,
        opened: Listener,
        urgent: bool,
    ) -> io::Result<Address> {
        let address = opened.address()?;
        self.listeners.add(listener, opened, Watched { watch: Arm::Idle, urgent });
        Ok(address)
    }

    pub(super) fn turn_accepting(&mut self, listener: ListenerId, on: bool) {
        self.listeners.turn(listener, on);
        self.watch_listener(listener);
    }

    /// Has the ring watch a listener, if it does not.
    fn watch_listener(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener) else { return };
        if accepting.extra.watch == Arm::Armed {
            return;
        }
        let fd = accepting.listener.socket.as_fd();
        match self.ring.watch(name_of_listener(listener), fd, POLLIN, true) {
            Ok(()) => accepting.extra.watch = Arm::Armed,
            Err(error) => {
                accepting.on = false;
                self.done.push(Completion::AcceptFailed { listener, error });
            }
        }
    }

    pub(super) fn unlisten(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.remove(listener) else { return };
        if accepting.extra.watch == Arm::Armed
            && self.ring.cancel(name_of_listener(listener)).is_ok()
        {
            // The ring may not have been given the watch yet, which names the descriptor.
            let _ = self.ring.hand_over();
        }
        // The kernel keeps the socket until the watch has ended; no peer reaches it any more. What
        // was given may be another's too, who goes on to use it.
        if !accepting.listener.is_given {
            let _ = accepting.listener.socket.shutdown(Shutdown::Both);
        }
    }

    /// A connection waits.
    pub(super) fn is_to_accept(&mut self, report: &Report) {
        let Ok(listener) = ListenerId::try_from(report.name.who) else { return };
        self.listeners.note_readable(listener);
        if !report.more
            && let Some(accepting) = self.listeners.get_mut(listener)
        {
            accepting.extra.watch = Arm::Idle;
            self.watch_listener(listener);
        }
    }

    pub(super) fn serve_listeners(&mut self, sink: &mut dyn Sink<Incoming>) {
        // Its sends and receives wait in the kernel, so that it stays a blocking socket.
        self.listeners
            .serve(|socket, listener| Ok(Incoming { socket, urgent: listener.urgent }), sink);
    }
}
