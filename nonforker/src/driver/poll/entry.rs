//! One socket of the poll driver: what its edges said, and the system calls on it.
//!
//! Three habits of kernels are dealt with here:
//!
//! - A short read means that the kernel has no more, so a second read that only finds this out
//!   is left out. This is not so at the end of the stream, which the edge announces; not at an
//!   urgent mark; and not, on a Unix socket, behind a descriptor that the peer passed. Connections
//!   that may meet one of these are asked for more after a short read: see `Entry::probe`.
//! - A short write means that the next writable edge will come, and no sooner.
//! - The urgent byte has to be taken out, or it is announced with every edge.

use std::{collections::HashMap, io::ErrorKind};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::Socket;

use super::reports::{BROKEN, ENDING, READABLE, URGENT, WRITABLE};
use crate::{
    conn::buffer::Buffer,
    driver::{Completion, Next, Sent, Sink, Token, urgent},
};

/// Where the signal cannot be kept off per call, socket2 does it per socket.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Whether an urgent byte shows before a read stops short at it.
const URGENT_SHOWS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// One socket, and what its edges said.
///
/// There is one of these for each idle connection too, so it is kept small.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    flags: u16,
}

// `READABLE` to `BROKEN`: reports said so, and nothing has answered it yet.
/// The engine wants to receive.
const RECEIVING: u16 = 1 << 5;
/// A short read does not mean that there is no more.
const PROBE: u16 = 1 << 6;
/// It waits for its next turn.
const QUEUED: u16 = 1 << 7;
/// A send waits for the next writable edge.
const SENDING: u16 = 1 << 8;
/// `READABLE` is a guess after a short read: an urgent mark may be next.
const GUESSED: u16 = 1 << 9;

/// The sends that wait for a writable edge.
pub(super) type Waiting = HashMap<Token, Buffer>;

impl Entry {
    pub(super) fn new(socket: Socket) -> Self {
        let is_inet = socket.local_addr().is_ok_and(|address| !address.is_unix());
        let probe = if is_inet && URGENT_SHOWS { 0 } else { PROBE };
        Self { socket, flags: WRITABLE | probe }
    }

    /// Remembers what a report says. Returns whether the connection waits for a turn already.
    #[inline]
    pub(super) const fn note(&mut self, says: u16) -> bool {
        if says & READABLE != 0 {
            self.flags &= !GUESSED;
        }
        // Where there is an urgent byte, a short read may end at its mark.
        self.flags |= says | if says & URGENT != 0 { PROBE } else { 0 };
        self.flags & QUEUED != 0
    }

    /// Turns receiving on or off.
    pub(super) const fn receive(&mut self, on: bool) {
        self.set(RECEIVING, on);
    }

    /// Has it wait for a turn, if it may be received from without a new edge. Returns whether it does
    /// so from now on.
    #[inline]
    pub(super) const fn queue(&mut self) -> bool {
        let queues = self.flags & (RECEIVING | READABLE | QUEUED) == RECEIVING | READABLE;
        if queues {
            self.flags |= QUEUED;
        }
        queues
    }

    const fn set(&mut self, flag: u16, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// Gives it its turn: whatever its edges allow, each once.
    #[inline(always)]
    pub(super) fn serve(
        &mut self,
        token: Token,
        scratch: &mut [u8],
        waiting: &mut Waiting,
        sink: &mut impl Sink<Socket>,
    ) -> Next {
        self.flags &= !QUEUED;
        if self.flags & (URGENT | SENDING | GUESSED) != 0 {
            self.serve_rare(token, waiting, sink);
        }
        let mut next = Next::Return;
        if self.flags & (RECEIVING | READABLE) == RECEIVING | READABLE {
            next = self.read(token, scratch, sink);
        }
        // Who still sends or receives learns of it by that.
        if self.flags & (BROKEN | RECEIVING | SENDING) == BROKEN {
            self.flags &= !BROKEN;
            let error = self.socket.take_error().ok().flatten();
            let error = error.unwrap_or_else(|| ErrorKind::ConnectionReset.into());
            sink.take(Completion::Failed { token, error });
        }
        next
    }

    /// Looks whether there is more, takes the urgent byte, and goes on with a send.
    #[inline(never)]
    fn serve_rare(&mut self, token: Token, waiting: &mut Waiting, sink: &mut impl Sink<Socket>) {
        if self.flags & (GUESSED | RECEIVING) == GUESSED | RECEIVING {
            let found = urgent::look(&self.socket);
            self.flags &= !(GUESSED | READABLE);
            self.flags |= if found.readable { READABLE } else { 0 };
            self.flags |= if found.urgent { URGENT } else { 0 };
        }
        if self.flags & URGENT != 0 {
            self.flags &= !URGENT;
            if let Some(byte) = urgent::take_urgent(&self.socket) {
                sink.take(Completion::Urgent { token, byte });
            }
        }
        if self.flags & SENDING != 0
            && let Some(batch) = waiting.remove(&token)
        {
            self.flags &= !SENDING;
            if let Some(sent) = self.send(token, batch, waiting) {
                sink.take(Completion::Sent { token, sent });
            }
        }
    }

    /// Sends what the kernel takes now. What it takes nothing of stays in flight.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        token: Token,
        batch: Buffer,
        waiting: &mut Waiting,
    ) -> Option<Sent> {
        debug_assert!(self.flags & SENDING == 0, "one send in flight");
        let bytes = batch.bytes();
        while self.flags & WRITABLE != 0 {
            match send(&self.socket, bytes, NO_SIGNAL) {
                Ok(count) => {
                    if count < bytes.len() {
                        self.flags &= !WRITABLE;
                    }
                    return Some(Sent { batch, result: Ok(count) });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.flags &= !WRITABLE,
                Err(error) => return Some(Sent { batch, result: Err(error.into()) }),
            }
        }
        self.flags |= SENDING;
        waiting.insert(token, batch);
        None
    }

    /// Reads once, as much as `scratch` holds.
    #[inline(always)]
    fn read(&mut self, token: Token, scratch: &mut [u8], sink: &mut impl Sink<Socket>) -> Next {
        let count = loop {
            match recv(&self.socket, &mut *scratch, RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.flags &= !READABLE;
                    return Next::Return;
                }
                Err(error) => {
                    self.flags &= !(RECEIVING | READABLE | BROKEN);
                    return sink.take(Completion::Failed { token, error: error.into() });
                }
            }
        };
        if count == 0 {
            self.flags &= !(RECEIVING | READABLE);
            return sink.take(Completion::EndOfStream { token });
        }
        if count < scratch.len() {
            if self.flags & PROBE != 0 {
                self.flags |= GUESSED;
            } else if self.flags & ENDING == 0 {
                self.flags &= !READABLE;
            }
        }
        sink.received(token, &mut scratch[..count])
    }
}
