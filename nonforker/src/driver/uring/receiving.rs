//! Receiving over io_uring: armed once, reported many times, and stashed where it is not wanted.
//!
//! A receive that finds no buffer ends. It is armed anew when the next wait begins, and by then
//! every buffer has been given back: so nobody spins, and what has not been received stays in its
//! order in the kernel.

use std::{collections::VecDeque, os::fd::AsFd};

use nix::errno::Errno;
use slotmap::Key;

use super::{
    Incoming, UringDriver,
    connection::{Arm, Connection, End},
    name,
    report::{Kind, Report},
};
use crate::driver::{Completion, Next, Sink, Token};

/// How much is stashed of a flood, in shares of a turn, before its receiving is stopped.
const STASH_SHARES: usize = 2;

impl UringDriver {
    pub(super) fn receive(&mut self, token: Token, on: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.receiving = on;
        if connection.urgent {
            if on && connection.readable {
                enqueue(&mut self.ready, connection, token);
            }
        } else if on {
            if connection.stashed() > 0 || connection.end.is_some() {
                enqueue(&mut self.ready, connection, token);
            } else {
                self.arm(token);
            }
        } else if connection.receive == Arm::Armed {
            self.disarm(token);
        }
        if !on {
            self.mind(token);
        }
    }

    /// Has the kernel receive, if it does not already.
    pub(super) fn arm(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.receive == Arm::Idle && !connection.ended && connection.closing.is_none() {
            match self.ring.receive(token.data().as_ffi(), connection.socket.as_fd()) {
                Ok(()) => connection.receive = Arm::Armed,
                Err(error) => self.end(token, End::broken(&error)),
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
        let broken = matches!(end, End::Broken(_));
        if connection.told_broken || connection.ended && !broken {
            return;
        }
        connection.ended = true;
        connection.told_broken = broken;
        connection.end = Some(end);
        enqueue(&mut self.ready, connection, token);
    }

    pub(super) fn received(
        &mut self,
        token: Token,
        mut report: Report,
        sink: &mut Sink<'_, Incoming>,
    ) -> Next {
        let mut next = Next::Return;
        let lent = report.lent.take();
        if let Some(connection) = self.connections.get_mut(token) {
            if !report.more {
                connection.receive = Arm::Idle;
            }
            if let Some(lent) = &lent
                && connection.closing.is_none()
            {
                self.ring.tally.late += u32::from(!connection.receiving);
                let bytes = self.ring.bytes(lent);
                let mut count = 0;
                if connection.receiving && connection.stashed() == 0 {
                    let share = connection.share(self.turn, self.options.read_max);
                    count = share.min(bytes.len());
                }
                let (now, later) = bytes.split_at(count);
                if !later.is_empty() {
                    connection.rare().stash.extend_from_slice(later);
                    enqueue(&mut self.ready, connection, token);
                }
                if !now.is_empty() {
                    connection.took(count);
                    next = sink(Completion::Received { token, bytes: now });
                }
            }
        }
        if let Some(lent) = &lent {
            self.ring.give_back(lent);
        }
        self.after_receive(token, &report);
        next
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
            Ok(_) => {
                self.ring.tally.cut_short += u32::from(!report.more);
                self.rearm(token);
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOBUFS) => {
                    self.ring.tally.hungry += 1;
                    self.hungry.push(token);
                }
                Some(Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN) => self.rearm(token),
                _ => self.end(token, End::broken(error)),
            },
        }
        self.mind(token);
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

    /// Gives those who have more their share.
    pub(super) fn serve_ready(&mut self, sink: &mut Sink<'_, Incoming>) {
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            self.serve_stash(token, sink);
        }
    }

    fn serve_stash(&mut self, token: Token, sink: &mut Sink<'_, Incoming>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.queued = false;
        if connection.closing.is_some() {
            return;
        }
        if connection.urgent && connection.end.is_none() {
            return self.read(token, sink);
        }
        // That it broke is told even if nothing is received.
        let broken = connection.stashed() == 0 && matches!(connection.end, Some(End::Broken(_)));
        if !connection.receiving && !broken {
            return;
        }
        let count = connection.share(self.turn, self.options.read_max).min(connection.stashed());
        if count > 0 {
            connection.took(count);
            let rare = connection.rare();
            let bytes = &rare.stash[rare.delivered..][..count];
            rare.delivered += count;
            sink(Completion::Received { token, bytes });
        }
        if connection.stashed() > 0 {
            return enqueue(&mut self.ready, connection, token);
        }
        connection.rare = None;
        match connection.end.take() {
            None => self.rearm(token),
            Some(End::Finished) => {
                connection.receiving = false;
                sink(Completion::EndOfStream { token });
                self.tell_broken(token);
                self.mind(token);
            }
            Some(End::Broken(number)) => {
                connection.receiving = false;
                sink(Completion::Failed { token, error: Errno::from_raw(number).into() });
            }
        }
    }
}

/// Has a connection served in the next wait.
pub(super) fn enqueue(ready: &mut VecDeque<Token>, connection: &mut Connection, token: Token) {
    if !std::mem::replace(&mut connection.queued, true) {
        ready.push_back(token);
    }
}
