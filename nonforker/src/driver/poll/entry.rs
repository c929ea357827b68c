//! One socket of the poll driver: what its edges said, and the system calls on it.
//!
//! Three habits of kernels are dealt with here:
//!
//! - A short read means that the kernel has no more, so a second read that only finds this out
//!   is left out. This is not so at the end of the stream, which the edge announces; not at an
//!   urgent mark; and not, on a Unix socket, behind a descriptor that the peer passed. Connections
//!   that may meet one of these are read until they would block: see `Entry::probe`.
//! - A short write means that the next writable edge will come, and no sooner.
//! - The urgent byte has to be taken out, or it is announced with every edge.

use std::{
    io::{self, ErrorKind, Read},
    os::fd::AsRawFd,
};

use mio::event::Event;
use nix::sys::socket::{MsgFlags, recv};
use socket2::Socket;

use crate::{
    conn::buffer::Buffer,
    driver::{Completion, Sending, Token},
};

/// Where the signal cannot be kept off per call, socket2 does it per socket.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = MsgFlags::MSG_NOSIGNAL.bits();
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;

/// Whether an urgent byte shows before a read stops short at it.
const URGENT_SHOWS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// One socket, and what its edges said.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    pub(super) sending: Option<Buffer>,
    pub(super) edges: Edges,
    pub(super) receiving: bool,
    /// A short read does not mean that there is no more.
    probe: bool,
    /// It is in `ready`.
    pub(super) queued: bool,
}

/// What edges have said and nothing has answered yet, a bit each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges(u8);

impl Edges {
    pub(super) const READABLE: Self = Self(1);
    pub(super) const WRITABLE: Self = Self(1 << 1);
    /// The kernel has an urgent byte.
    pub(super) const URGENT: Self = Self(1 << 2);
    /// The peer has finished, or the connection broke: the next reads tell which.
    const ENDING: Self = Self(1 << 3);
    /// It broke: reported even while nothing is received or sent.
    pub(super) const BROKEN: Self = Self(1 << 4);

    pub(super) const fn has(self, edge: Self) -> bool {
        self.0 & edge.0 != 0
    }

    const fn note(&mut self, edge: Self, said: bool) {
        if said {
            self.0 |= edge.0;
        }
    }

    const fn set(&mut self, edge: Self, on: bool) {
        self.0 = if on { self.0 | edge.0 } else { self.0 & !edge.0 };
    }

    /// Takes an edge for answered. Returns whether there was one.
    pub(super) const fn take(&mut self, edge: Self) -> bool {
        let had = self.has(edge);
        self.set(edge, false);
        had
    }
}

impl Entry {
    pub(super) fn new(socket: Socket) -> Self {
        let is_inet = socket.local_addr().is_ok_and(|address| !address.is_unix());
        Self {
            socket,
            sending: None,
            edges: Edges::WRITABLE,
            receiving: false,
            probe: !(is_inet && URGENT_SHOWS),
            queued: false,
        }
    }

    /// Remembers what an edge says.
    pub(super) fn note(&mut self, event: &Event) {
        let (error, edges) = (event.is_error(), &mut self.edges);
        edges.note(Edges::READABLE, event.is_readable() || event.is_read_closed() || error);
        edges.note(Edges::WRITABLE, event.is_writable() || event.is_write_closed() || error);
        edges.note(Edges::ENDING, event.is_read_closed() || error);
        edges.note(Edges::BROKEN, error);
        if event.is_priority() {
            edges.note(Edges::URGENT, true);
            self.probe = true;
        }
    }

    /// Takes the urgent byte out of the kernel.
    pub(super) fn urgent_byte(&self) -> Option<u8> {
        let mut byte = [0];
        let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_DONTWAIT;
        // EINVAL is normal: the byte has been overtaken by a newer one, or taken already.
        let count = recv(self.socket.as_raw_fd(), &mut byte, flags).ok()?;
        (count == 1).then_some(byte[0])
    }

    /// Sends what the kernel takes now. What it takes nothing of stays in flight.
    pub(super) fn send(&mut self, batch: Buffer) -> Result<Sending, (io::Error, Buffer)> {
        while self.edges.has(Edges::WRITABLE) {
            match self.socket.send_with_flags(batch.bytes(), NO_SIGNAL) {
                Ok(count) => {
                    self.edges.set(Edges::WRITABLE, count == batch.len());
                    return Ok(Sending::Done { count, batch });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.edges.set(Edges::WRITABLE, false);
                }
                Err(error) => return Err((error, batch)),
            }
        }
        self.sending = Some(batch);
        Ok(Sending::InFlight)
    }

    /// Reads once. Returns what came of it and whether there may be more.
    pub(super) fn receive<'a>(
        &mut self,
        token: Token,
        scratch: &'a mut [u8],
    ) -> (Option<Completion<'a, Socket>>, bool) {
        let count = loop {
            match (&self.socket).read(scratch) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.edges.set(Edges::READABLE, false);
                    return (None, false);
                }
                Err(error) => {
                    self.receiving = false;
                    self.edges.set(Edges::READABLE, false);
                    self.edges.set(Edges::BROKEN, false);
                    return (Some(Completion::Failed { token, error }), false);
                }
            }
        };
        if count == 0 {
            self.receiving = false;
            self.edges.set(Edges::READABLE, false);
            return (Some(Completion::EndOfStream { token }), false);
        }
        let more = count == scratch.len() || self.probe || self.edges.has(Edges::ENDING);
        self.edges.set(Edges::READABLE, more);
        (Some(Completion::Received { token, bytes: &scratch[..count] }), more)
    }
}
