//! What a connection reads from and writes to: a socket, or TLS over one.
//!
//! ```text
//!  client ── read, write ──▶ Stream ─┬─ Plain ──────────▶ socket
//!                                    └─ Tls ── records ─▶ socket
//! ```
//!
//! Neither ever waits. What TLS has yet to write goes before anything new.

use std::{
    io::{self, Read, Write},
    os::fd::{AsRawFd, RawFd},
};

use socket2::Socket;

#[cfg(feature = "tls")]
use crate::tls::Session;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<Session>),
}

impl Stream {
    /// Writes what is left of records that were begun. An error of the kind `WouldBlock` says that not
    /// all of it is gone.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(session) => session.settle(),
        }
    }

    /// Whether a read that did not fill the buffer has emptied the socket.
    pub(crate) const fn is_emptied_by_a_short_read(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(socket) => socket.as_raw_fd(),
            #[cfg(feature = "tls")]
            Self::Tls(session) => session.as_raw_fd(),
        }
    }
}
