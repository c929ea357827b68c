//! Accepting over io_uring: armed once, until it is cancelled or fails.

use std::{collections::VecDeque, os::fd::AsFd};

use nix::errno::Errno;
use socket2::Socket;

use super::{
    UringDriver,
    connection::Arm,
    report::{Kind, Name, Report},
    ring::Ring,
};
use crate::{
    address::Peer,
    driver::{
        Completion, ListenerId, Sink,
        socket::{self, Listener},
    },
};

/// One listener, and whom it accepted when nobody was wanted.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: Listener,
    on: bool,
    arm: Arm,
    waiting: VecDeque<(Socket, Peer)>,
}

impl Accepting {
    pub(super) const fn new(listener: Listener) -> Self {
        Self { listener, on: false, arm: Arm::Idle, waiting: VecDeque::new() }
    }
}

impl UringDriver {
    pub(super) fn turn_accepting(&mut self, listener: ListenerId, on: bool) {
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) else {
            return;
        };
        accepting.on = on;
        if on {
            self.arm_accepting(listener);
        } else if accepting.arm == Arm::Armed
            && self.ring.cancel(Name { kind: Kind::Accept, who: listener as u64 }).is_ok()
        {
            accepting.arm = Arm::Ending;
        }
    }

    fn arm_accepting(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) else {
            return;
        };
        if accepting.arm == Arm::Idle {
            let fd = accepting.listener.socket.as_fd();
            match self.ring.accept(listener as u64, fd) {
                Ok(()) => accepting.arm = Arm::Armed,
                Err(error) => {
                    accepting.on = false;
                    self.done.push(Completion::AcceptFailed { listener, error });
                }
            }
        }
    }

    pub(super) fn unlisten(&mut self, listener: ListenerId) {
        self.turn_accepting(listener, false);
        if let Some(accepting) = self.listeners.get_mut(listener) {
            // The kernel keeps the socket until the accept has ended; nobody reaches it any more.
            if let Some(accepting) = accepting {
                let _ = accepting.listener.socket.shutdown(std::net::Shutdown::Both);
            }
            *accepting = None;
        }
    }

    /// Whether somebody was accepted and can be reported without waiting.
    pub(super) fn has_waiting(&self) -> bool {
        self.listeners.iter().flatten().any(|it| it.on && !it.waiting.is_empty())
    }

    pub(super) fn serve_waiting(&mut self, sink: &mut Sink<'_, Socket>) {
        for (listener, accepting) in self.listeners.iter_mut().enumerate() {
            let Some(accepting) = accepting.as_mut().filter(|accepting| accepting.on) else {
                continue;
            };
            for (socket, peer) in accepting.waiting.drain(..) {
                sink(Completion::Accepted { listener, socket, peer });
            }
        }
    }

    pub(super) fn accepted(&mut self, report: Report, sink: &mut Sink<'_, Socket>) {
        // What was accepted is ours even if its listener has gone: it is closed then.
        let socket = Ring::own(&report).map(Socket::from);
        let Ok(listener) = ListenerId::try_from(report.name.who) else { return };
        let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) else {
            return;
        };
        if !report.more {
            accepting.arm = Arm::Idle;
        }
        match report.result {
            Ok(_) => {
                // `None` broke while it waited.
                let set_up = socket.and_then(|socket| {
                    let peer = socket::peer_of(&socket.peer_addr().ok()?);
                    socket::set_up(&socket, peer).ok()?;
                    Some((socket, peer))
                });
                match set_up {
                    Some((socket, peer)) if accepting.on => {
                        sink(Completion::Accepted { listener, socket, peer });
                    }
                    Some(waiting) => accepting.waiting.push_back(waiting),
                    None => {}
                }
            }
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                if !matches!(errno, Some(Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN)) {
                    accepting.on = false;
                    sink(Completion::AcceptFailed { listener, error });
                }
            }
        }
        let on = self.listeners.get(listener).and_then(Option::as_ref).is_some_and(|it| it.on);
        if on {
            self.arm_accepting(listener);
        }
    }
}
