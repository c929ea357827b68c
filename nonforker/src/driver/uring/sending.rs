//! Sending: at once where that goes, which costs no completion; else when the kernel takes some.
//!
//! ```text
//!  send ──▶ now ── nothing told ──▶ Sent
//!            └──── told: would block, or a part ──▶ patiently ──▶ Sent, SendFailed
//! ```
//!
//! A connection of which the last send had to wait is *clogged*: the next one waits from the
//! start, until one goes through in one piece.

use std::os::fd::AsFd;

use rustix::io::Errno;
use slotmap::{Key, KeyData};

use super::{
    Incoming, UringDriver,
    connection::Fact,
    flights::{Bounced, Flight},
    report::Report,
};
use crate::{
    conn::buffer::Buffer,
    driver::{Completion, Sink, Token},
};

impl UringDriver {
    pub(super) fn send_batch(&mut self, token: Token, batch: Buffer, awaited: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        debug_assert!(!connection.is(Fact::SENDING), "one send in flight");
        let (who, socket) = (token.data().as_ffi(), connection.socket.as_fd());
        let started = if connection.is(Fact::CLOGGED) {
            self.ring.send_patiently(who, socket, batch)
        } else {
            self.hurry |= awaited;
            self.ring.send_now(who, socket, batch)
        };
        match started {
            Ok(()) => connection.set(Fact::SENDING, true),
            Err((error, batch)) => self.done.push(Completion::SendFailed { token, error, batch }),
        }
    }

    /// Tells of the sends that were carried out, or not, when they were handed over.
    pub(super) fn serve_flights(&mut self, sink: &mut Sink<'_, Incoming>) {
        let mut landed = self.ring.landed();
        for Flight { who, batch, .. } in landed.drain(..) {
            let count = batch.bytes().len();
            self.sent(Token::from(KeyData::from_ffi(who)), count, batch, sink);
        }
        self.ring.recycle(landed);
        for Bounced { who, batch, result } in self.ring.bounced() {
            self.ring.tally.bounced += 1;
            let token = Token::from(KeyData::from_ffi(who));
            match usize::try_from(result) {
                Ok(count) if count > 0 => {
                    if let Some(connection) = self.connections.get_mut(token) {
                        connection.set(Fact::CLOGGED, count < batch.bytes().len());
                    }
                    self.sent(token, count, batch, sink);
                }
                Ok(_) => self.not_sent(token, Errno::IO, batch, sink),
                Err(_) => self.not_sent(token, Errno::from_raw_os_error(-result), batch, sink),
            }
        }
    }

    /// A patient send has ended.
    pub(super) fn sent_patiently(
        &mut self,
        token: Token,
        report: Report,
        sink: &mut Sink<'_, Incoming>,
    ) {
        let Some(batch) = report.batch else { return };
        match report.result.map(|count| count as usize) {
            Ok(count) => {
                if let Some(connection) = self.connections.get_mut(token) {
                    connection.set(Fact::CLOGGED, count < batch.bytes().len());
                }
                self.sent(token, count, batch, sink);
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                self.not_sent(token, errno, batch, sink);
            }
        }
    }

    fn sent(&mut self, token: Token, count: usize, batch: Buffer, sink: &mut Sink<'_, Incoming>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::SENDING, false);
        let stays = connection.closing.is_none() && connection.is(Fact::RECEIVING);
        sink(Completion::Sent { token, count, batch });
        if !stays {
            self.mind(token);
            self.release(token);
        }
    }

    fn not_sent(
        &mut self,
        token: Token,
        errno: Errno,
        batch: Buffer,
        sink: &mut Sink<'_, Incoming>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::SENDING, false);
        if connection.closing.is_some() {
            self.aside.set_unsent(token, batch);
            return self.release(token);
        }
        if matches!(errno, Errno::AGAIN | Errno::INTR | Errno::CANCELED) {
            connection.set(Fact::CLOGGED, true);
            match self.ring.send_patiently(token.data().as_ffi(), connection.socket.as_fd(), batch)
            {
                Ok(()) => connection.set(Fact::SENDING, true),
                Err((error, batch)) => {
                    sink(Completion::SendFailed { token, error, batch });
                }
            }
            return;
        }
        sink(Completion::SendFailed { token, error: errno.into(), batch });
        self.mind(token);
    }
}
