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
    io::{ErrorKind, Read},
    os::fd::AsRawFd,
};

use mio::event::Event;
use nix::sys::socket::{MsgFlags, recv};
use socket2::Socket;

use crate::{
    conn::buffer::Buffer,
    driver::{Completion, Token},
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
    pub(super) receiving: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel has an urgent byte.
    pub(super) urgent: bool,
    /// A short read does not mean that there is no more.
    probe: bool,
    /// The peer has finished, or the connection broke: the next reads tell which.
    ending: bool,
    /// It broke: reported even while nothing is received or sent.
    pub(super) broken: bool,
    /// It is in `ready`.
    pub(super) queued: bool,
}

impl Entry {
    pub(super) fn new(socket: Socket) -> Self {
        let is_inet = socket.local_addr().is_ok_and(|address| !address.is_unix());
        Self {
            socket,
            sending: None,
            receiving: false,
            readable: false,
            writable: true,
            urgent: false,
            probe: !(is_inet && URGENT_SHOWS),
            ending: false,
            broken: false,
            queued: false,
        }
    }

    /// Remembers what an edge says.
    pub(super) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.ending |= event.is_read_closed() || event.is_error();
        self.broken |= event.is_error();
        if event.is_priority() {
            self.urgent = true;
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

    /// Sends what is in flight, if the kernel takes some of it now.
    pub(super) fn send(&mut self, token: Token) -> Option<Completion<'static, Socket>> {
        if !self.writable {
            return None;
        }
        let batch = self.sending.take()?;
        loop {
            match self.socket.send_with_flags(batch.bytes(), NO_SIGNAL) {
                Ok(count) => {
                    self.writable = count == batch.bytes().len();
                    return Some(Completion::Sent { token, count, batch });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.sending = Some(batch);
                    return None;
                }
                Err(error) => {
                    return Some(Completion::SendFailed { token, error, batch });
                }
            }
        }
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
                    self.readable = false;
                    return (None, false);
                }
                Err(error) => {
                    self.receiving = false;
                    self.readable = false;
                    self.broken = false;
                    return (Some(Completion::Failed { token, error }), false);
                }
            }
        };
        if count == 0 {
            self.receiving = false;
            self.readable = false;
            return (Some(Completion::EndOfStream { token }), false);
        }
        self.readable = count == scratch.len() || self.probe || self.ending;
        (Some(Completion::Received { token, bytes: &scratch[..count] }), self.readable)
    }
}
