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

use std::io::ErrorKind;

use mio::event::Event;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::Socket;

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
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    pub(super) sending: Option<Buffer>,
    edges: Edges,
    pub(super) receiving: bool,
    /// A short read does not mean that there is no more.
    probe: bool,
    /// It waits for its next turn.
    pub(super) queued: bool,
}

/// What edges have said and nothing has answered yet, a bit each.
#[derive(Clone, Copy, Debug)]
struct Edges(u8);

impl Edges {
    const READABLE: Self = Self(1);
    const WRITABLE: Self = Self(1 << 1);
    /// The kernel has an urgent byte.
    const URGENT: Self = Self(1 << 2);
    /// The peer has finished, or the connection broke: the next reads tell which.
    const ENDING: Self = Self(1 << 3);
    /// It broke: reported even while nothing is received or sent.
    const BROKEN: Self = Self(1 << 4);
    /// `READABLE` is no more than a guess: an urgent mark may be next.
    const GUESSED: Self = Self(1 << 5);

    const fn has(self, edge: Self) -> bool {
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
    const fn take(&mut self, edge: Self) -> bool {
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
    #[inline]
    pub(super) fn note(&mut self, event: &Event) {
        let (error, edges) = (event.is_error(), &mut self.edges);
        if event.is_readable() || event.is_read_closed() || error {
            edges.set(Edges::READABLE, true);
            edges.set(Edges::GUESSED, false);
        }
        edges.note(Edges::WRITABLE, event.is_writable() || event.is_write_closed() || error);
        edges.note(Edges::ENDING, event.is_read_closed() || error);
        edges.note(Edges::BROKEN, error);
        if event.is_priority() {
            edges.note(Edges::URGENT, true);
            self.probe = true;
        }
    }

    /// Whether the kernel may have something to be read.
    #[inline]
    pub(super) const fn is_readable(&self) -> bool {
        self.edges.has(Edges::READABLE)
    }

    /// Gives it its turn: whatever its edges allow, each once.
    #[inline(always)]
    pub(super) fn serve(
        &mut self,
        token: Token,
        scratch: &mut [u8],
        sink: &mut Sink<'_, Socket>,
    ) -> Next {
        if self.receiving && self.edges.take(Edges::GUESSED) {
            self.look();
        }
        if self.edges.take(Edges::URGENT)
            && let Some(byte) = urgent::take_urgent(&self.socket)
        {
            sink(Completion::Urgent { token, byte });
        }
        if let Some(batch) = self.sending.take() {
            self.go_on_sending(token, batch, sink);
        }
        let mut next = Next::Return;
        if self.receiving
            && self.edges.has(Edges::READABLE)
            && let Some(completion) = self.receive(token, scratch)
        {
            next = sink(completion);
        }
        // Who still sends or receives learns of it by that.
        if self.edges.has(Edges::BROKEN) && !self.receiving && self.sending.is_none() {
            self.edges.set(Edges::BROKEN, false);
            let error = self.socket.take_error().ok().flatten();
            let error = error.unwrap_or_else(|| ErrorKind::ConnectionReset.into());
            sink(Completion::Failed { token, error });
        }
        next
    }

    /// Asks the kernel whether there is anything to read, and for an urgent byte.
    #[cold]
    fn look(&mut self) {
        let found = urgent::look(&self.socket);
        self.edges.set(Edges::READABLE, found.readable);
        self.edges.note(Edges::URGENT, found.urgent);
    }

    #[inline(never)]
    fn go_on_sending(&mut self, token: Token, batch: Buffer, sink: &mut Sink<'_, Socket>) {
        if let Some(sent) = self.send(batch) {
            sink(Completion::Sent { token, sent });
        }
    }

    /// Sends what the kernel takes now. What it takes nothing of stays in flight.
    #[inline(always)]
    pub(super) fn send(&mut self, batch: Buffer) -> Option<Sent> {
        while self.edges.has(Edges::WRITABLE) {
            match send(&self.socket, batch.bytes(), NO_SIGNAL) {
                Ok(count) => {
                    self.edges.set(Edges::WRITABLE, count == batch.len());
                    return Some(Sent { batch, result: Ok(count) });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.edges.set(Edges::WRITABLE, false),
                Err(error) => return Some(Sent { batch, result: Err(error.into()) }),
            }
        }
        self.sending = Some(batch);
        None
    }

    /// Reads once, as much as `scratch` holds.
    #[inline]
    fn receive<'a>(
        &mut self,
        token: Token,
        scratch: &'a mut [u8],
    ) -> Option<Completion<'a, Socket>> {
        let count = loop {
            match recv(&self.socket, &mut *scratch, RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.edges.set(Edges::READABLE, false);
                    return None;
                }
                Err(error) => {
                    self.receiving = false;
                    self.edges.set(Edges::READABLE, false);
                    self.edges.set(Edges::BROKEN, false);
                    return Some(Completion::Failed { token, error: error.into() });
                }
            }
        };
        if count == 0 {
            self.receiving = false;
            self.edges.set(Edges::READABLE, false);
            return Some(Completion::EndOfStream { token });
        }
        let more = count == scratch.len() || self.probe || self.edges.has(Edges::ENDING);
        self.edges.set(Edges::READABLE, more);
        self.edges.set(Edges::GUESSED, self.probe && count < scratch.len());
        Some(Completion::Received { token, bytes: &scratch[..count] })
    }
}
