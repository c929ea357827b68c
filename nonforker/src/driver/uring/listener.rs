//! How the io_uring driver learns whom to accept: the ring reports that a connection waits, and a call
//! accepts it.
//!
//! A listener that other shards have too is watched exclusively, and once: the kernel tells one shard
//! of a peer that connects, and the next one of the next peer. But it also tells a shard that is busy,
//! in a handler that takes a second, and then it tells nobody else. So a shard that sleeps looks at
//! such listeners after [`LOOK`] at the latest.

use std::{io, os::fd::AsFd, time::Duration};

use super::{
    Incoming, POLLIN, UringDriver,
    connection::Arm,
    report::{Kind, Name, Report},
};
use crate::{
    address::Address,
    driver::{Clock, Completion, ListenerId, Sink, accepting::Accepting, nanos, socket::Listener},
};

/// `EPOLLEXCLUSIVE`: one of those that watch is told.
const POLLEXCLUSIVE: u32 = 1 << 28;

/// How long a shard sleeps before it looks whether the kernel has told another one that is busy.
const LOOK: Duration = Duration::from_millis(250);

/// By how much a clock may be late that is as old as the kernel's last tick.
const TICK: Duration = Duration::from_millis(10);

/// What the ring has to do with a listener.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) watch: Arm,
    /// How many watches were ended before they had reported: a report of one of them is late.
    number: u32,
    /// Its connections want urgent bytes.
    pub(super) urgent: bool,
}

/// Where the name of a watch has the listener; above it is the number of the watch.
const NUMBERS_OF_LISTENERS: u64 = (1 << 28) - 1;

impl Watched {
    fn name(&self, listener: ListenerId) -> Name {
        let key = u64::from(self.number) << 32 | listener as u64 & NUMBERS_OF_LISTENERS;
        Name { kind: Kind::Listener, key }
    }
}

impl Accepting<Watched> {
    /// Whether the kernel is to say when a peer connects.
    fn is_to_be_watched(&self) -> bool {
        self.on && !self.readable && self.extra.watch == Arm::Idle
    }
}

impl UringDriver {
    pub(super) fn add_listener(
        &mut self,
        listener: ListenerId,
        opened: Listener,
        urgent: bool,
    ) -> io::Result<Address> {
        let address = opened.address()?;
        let watched = Watched { watch: Arm::Idle, urgent, number: 0 };
        self.listeners.add(listener, opened, watched);
        Ok(address)
    }

    pub(super) fn turn_accepting(&mut self, listener: ListenerId, on: bool) {
        self.listeners.turn(listener, on);
        if !self.options.shared {
            self.watch_listener(listener);
        } else if on {
            self.listeners.note_readable(listener);
        } else {
            self.end_watch(listener);
        }
    }

    /// Ends the watch of a listener: the kernel reports each peer to one shard only.
    fn end_watch(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener) else { return };
        let watched = &mut accepting.extra;
        if watched.watch == Arm::Armed && self.ring.cancel(watched.name(listener)).is_ok() {
            // The ring may not have been given the watch yet, which names the descriptor.
            let _ = self.ring.hand_over();
            watched.watch = Arm::Idle;
            watched.number = watched.number.wrapping_add(1);
        }
    }

    /// Has the ring watch the listeners that others have too and of which no connection waits.
    fn watch_shared(&mut self) {
        for listener in 0..self.listeners.len() {
            if self
                .listeners
                .get_mut(listener)
                .is_some_and(|accepting| accepting.is_to_be_watched())
            {
                self.watch_listener(listener);
            }
        }
    }

    /// Has the ring watch a listener, if it does not.
    fn watch_listener(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.get_mut(listener) else { return };
        if accepting.extra.watch == Arm::Armed {
            return;
        }
        let fd = accepting.listener.socket.as_fd();
        let name = accepting.extra.name(listener);
        let (events, often) = match self.options.shared {
            true => (POLLIN | POLLEXCLUSIVE, false),
            false => (POLLIN, true),
        };
        match self.ring.watch(name, fd, events, often) {
            Ok(()) => accepting.extra.watch = Arm::Armed,
            Err(error) => {
                accepting.on = false;
                self.done.push(Completion::AcceptFailed { listener, error });
            }
        }
    }

    pub(super) fn unlisten(&mut self, listener: ListenerId) {
        self.end_watch(listener);
        let Some(accepting) = self.listeners.remove(listener) else { return };
        // The kernel keeps the socket until the watch has ended; no peer reaches it any more. What
        // was given may be another's too, which goes on using it.
        accepting.listener.shut();
    }

    /// A connection waits.
    pub(super) fn is_to_accept(&mut self, report: &Report) {
        let Ok(listener) = ListenerId::try_from(report.name.key & NUMBERS_OF_LISTENERS) else {
            return;
        };
        let Some(accepting) = self.listeners.get_mut(listener) else { return };
        if accepting.extra.name(listener) != report.name {
            // That watch was ended.
            return;
        }
        if !report.more {
            accepting.extra.watch = Arm::Idle;
        }
        self.listeners.note_readable(listener);
        if !report.more && !self.options.shared {
            self.watch_listener(listener);
        }
    }

    pub(super) fn serve_listeners(&mut self, sink: &mut impl Sink<Incoming>) {
        // Its sends and receives wait in the kernel, so that it stays a blocking socket.
        self.listeners
            .serve(|socket, listener| Ok(Incoming { socket, urgent: listener.urgent }), sink);
        if self.options.shared {
            self.watch_shared();
        }
    }

    /// How long a wait may sleep although a listener is watched: `None` if it may sleep for ever.
    pub(super) fn sleep_max(&self) -> Option<Duration> {
        let watches = || self.listeners.iter().any(|accepting| accepting.extra.watch == Arm::Armed);
        (self.options.shared && watches()).then_some(LOOK)
    }

    /// Has all listeners tried that accept, if that was long ago.
    pub(super) fn look_at_listeners(&mut self) {
        let now = Clock::System.read(Clock::COARSE);
        if now.saturating_sub(self.looked_at) < nanos(LOOK) - nanos(TICK) {
            return;
        }
        self.looked_at = now;
        for listener in 0..self.listeners.len() {
            self.listeners.note_readable(listener);
        }
    }
}
