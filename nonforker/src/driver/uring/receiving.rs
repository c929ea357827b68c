//! Receiving over io_uring: armed once, reported many times, and stashed where it is not wanted.
//!
//! A receive that finds no buffer ends. It is armed anew when the next wait begins, and by then
//! every buffer has been given back but for those of whoever floods, half of them at most: so
//! nobody spins, and what has not been received stays in its order in the kernel.
//!
//! A receive that reports many times may bring as much of a flood as all buffers hold, and what is
//! beyond the turn's share has to be stashed. So a connection is received from in single pieces
//! within its share until some of them were at most half full, and again when it floods. Who has
//! been calm can still begin to. When much is stashed, of many who did, the kernel gets no more
//! buffers than one share fills: then nothing more has to be.

use std::{collections::VecDeque, io, os::fd::AsFd};

use rustix::io::Errno;
use slotmap::Key;

use super::{
    Incoming, UringDriver,
    aside::End,
    buffers::BUFFER_SIZE,
    connection::{Arm, Connection, Fact},
    name,
    report::{Kind, Lent, Report},
};
use crate::driver::{Completion, Next, Options, Sink, Token};

/// So much is stashed before memory counts as short, of everybody, in fillings of all buffers.
const STASH_MAX: usize = 2;

/// Who has more stashed floods, in shares of a turn.
const FLOOD: usize = 2;

impl UringDriver {
    pub(super) fn receive(&mut self, token: Token, on: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::RECEIVING, on);
        if connection.is(Fact::URGENT) {
            if on && connection.is(Fact::READABLE) {
                enqueue(&mut self.ready, connection, token);
            }
        } else if on {
            if connection.is(Fact::STASHED) {
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
    fn arm(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let may_bring = !connection.is(Fact::ENDED) && connection.closing.is_none();
        if connection.receive == Arm::Idle && may_bring {
            let most = connection.comes_in_pieces().then(|| piece(&self.options));
            match self.ring.receive(token.data().as_ffi(), connection.socket.as_fd(), most) {
                Ok(()) => connection.receive = Arm::Armed,
                Err(error) => self.end(token, End::broken(&error)),
            }
        }
    }

    /// Has the kernel stop receiving. Should that fail, what it goes on to receive is stashed.
    fn disarm(&mut self, token: Token) {
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
        if connection.is(Fact::TOLD_BROKEN) || connection.is(Fact::ENDED) && !broken {
            return;
        }
        connection.set(Fact::ENDED, true);
        connection.set(Fact::TOLD_BROKEN, broken);
        connection.set(Fact::STASHED, true);
        self.aside.set_end(token, end);
        enqueue(&mut self.ready, connection, token);
    }

    pub(super) fn received(
        &mut self,
        token: Token,
        mut report: Report,
        sink: &mut Sink<'_, Incoming>,
    ) -> Next {
        let mut next = Next::Return;
        if let Some(connection) = self.connections.get_mut(token)
            && !report.more
        {
            connection.receive = Arm::Idle;
            let is_cut_short = report.lent.is_some() && !connection.comes_in_pieces();
            self.ring.tally.cut_short += u32::from(is_cut_short);
        }
        if let Some(lent) = report.lent.take() {
            next = self.take_in(token, &lent, sink);
            self.ring.buffers.give(&lent);
        }
        self.after_receive(token, &report);
        next
    }

    /// Delivers what is wanted of a filled buffer, up to the share, and stashes the rest.
    fn take_in(&mut self, token: Token, lent: &Lent, sink: &mut Sink<'_, Incoming>) -> Next {
        let Some(connection) = self.connections.get_mut(token) else { return Next::Return };
        if connection.closing.is_some() {
            return Next::Return;
        }
        let is_wanted = connection.is(Fact::RECEIVING);
        self.ring.tally.late += u32::from(!is_wanted);
        let bytes = self.ring.buffers.bytes(lent);
        let mut count = 0;
        if is_wanted && !connection.is(Fact::STASHED) {
            count = connection.share(self.turn, self.options.read_max).min(bytes.len());
        }
        let (now, later) = bytes.split_at(count);
        if !later.is_empty() {
            self.aside.stash(token, later);
            connection.set(Fact::STASHED, true);
            enqueue(&mut self.ready, connection, token);
            if !is_wanted || self.aside.bytes_of(token) > FLOOD * self.options.read_max {
                connection.calm = 0;
            }
        } else if is_much(bytes.len(), &self.options) {
            connection.calm = 0;
        } else {
            connection.calm = connection.calm.saturating_add(1);
        }
        let mut next = Next::Return;
        if !now.is_empty() {
            connection.took(count);
            next = sink(Completion::Received { token, bytes: now });
        }
        if !later.is_empty() {
            self.ration();
        }
        next
    }

    /// Offers the kernel as many buffers as memory allows.
    fn ration(&mut self) {
        let is_short = self.aside.bytes() > STASH_MAX * self.ring.buffers.size();
        let share = self.options.read_max / BUFFER_SIZE as usize;
        self.ring.buffers.ration(if is_short { share } else { usize::MAX });
    }

    /// Decides how the receiving goes on after a report.
    fn after_receive(&mut self, token: Token, report: &Report) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.closing.is_some() {
            return self.release(token);
        }
        // A receive that fails tells of it.
        if report.result.is_err() {
            connection.set(Fact::BROKEN, false);
        }
        if connection.comes_in_pieces() && connection.receive == Arm::Armed {
            self.disarm(token);
        }
        match &report.result {
            Ok(0) => self.end(token, End::Finished),
            Ok(_) if report.more => {}
            Ok(_) => self.rearm(token),
            Err(error) => match Errno::from_io_error(error) {
                Some(Errno::NOBUFS) => {
                    self.ring.tally.hungry += 1;
                    self.rearm(token);
                }
                Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => self.rearm(token),
                _ => self.end(token, End::broken(error)),
            },
        }
        self.mind(token);
    }

    /// Has the kernel receive again from the next wait on, if it is still wanted then.
    ///
    /// Not before: what follows from the bytes that came may be that no more are wanted.
    fn rearm(&mut self, token: Token) {
        self.unarmed.push_back(token);
    }

    /// Arms as many of those who wait for it as there are buffers. Returns whether somebody has to
    /// come later.
    pub(super) fn arm_again(&mut self) -> bool {
        self.ration();
        for _ in 0..self.unarmed.len().min(self.ring.buffers.offered()) {
            let Some(token) = self.unarmed.pop_front() else { break };
            if let Some(connection) = self.connections.get(token)
                && connection.is(Fact::RECEIVING)
                && !connection.is(Fact::STASHED)
            {
                self.arm(token);
            }
        }
        !self.unarmed.is_empty()
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
        connection.set(Fact::QUEUED, false);
        if connection.closing.is_some() {
            return;
        }
        if connection.is(Fact::URGENT) && !connection.is(Fact::STASHED) {
            return self.read(token, sink);
        }
        // That it broke is told even if nothing is received.
        let end = self.aside.end(token);
        let broken = matches!(end, Some(End::Broken(_))) && self.aside.bytes_of(token) == 0;
        if !connection.is(Fact::RECEIVING) && !broken {
            return;
        }
        loop {
            let share = connection.share(self.turn, self.options.read_max);
            let bytes = self.aside.next(token, share);
            let count = bytes.len();
            if count == 0 {
                break;
            }
            connection.took(count);
            sink(Completion::Received { token, bytes });
            self.aside.served(token, count);
        }
        if self.aside.bytes_of(token) > 0 {
            return enqueue(&mut self.ready, connection, token);
        }
        connection.set(Fact::STASHED, false);
        self.aside.forget(token);
        match end {
            None => self.rearm(token),
            Some(End::Finished) => {
                connection.set(Fact::RECEIVING, false);
                sink(Completion::EndOfStream { token });
                self.tell_broken(token);
                self.mind(token);
            }
            Some(End::Broken(number)) => {
                connection.set(Fact::RECEIVING, false);
                sink(Completion::Failed { token, error: io::Error::from_raw_os_error(number) });
            }
        }
    }
}

/// How many bytes at most are received at a time from a flood.
fn piece(options: &Options) -> usize {
    options.read_max.min(BUFFER_SIZE as usize)
}

/// Whether somebody who brings so many bytes at a time may be about to flood.
pub(super) fn is_much(bytes: usize, options: &Options) -> bool {
    bytes > piece(options) / 2
}

/// Has a connection served in the next wait.
pub(super) fn enqueue(ready: &mut VecDeque<Token>, connection: &mut Connection, token: Token) {
    if !connection.replace(Fact::QUEUED, true) {
        ready.push_back(token);
    }
}
