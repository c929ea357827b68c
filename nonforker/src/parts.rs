//! The session, the output and the other connections of one connection, apart from each other.

use std::{
    fmt,
    io::{self, Write},
};

use crate::{
    codec::{Encode, Raw},
    conn::{Connection, output::Output},
    connections::Connections,
    handler::Handler,
};

/// What [`Conn::parts`](crate::Conn::parts) gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<'p, H: Handler> {
    /// What the handler remembers for this connection.
    pub session: &'p mut H::Session,
    /// Where replies are sent.
    pub output: Replies<'p, H>,
    /// All other connections of the service.
    pub others: Connections<'p, H>,
}

/// The output of a connection, apart from its session: see [`Conn::parts`](crate::Conn::parts).
pub struct Replies<'p, H: Handler> {
    codec: &'p mut H::Codec,
    output: &'p mut Output,
    conn: &'p mut Connection,
}

impl<'p, H: Handler> Replies<'p, H> {
    pub(crate) const fn new(
        codec: &'p mut H::Codec,
        output: &'p mut Output,
        conn: &'p mut Connection,
    ) -> Self {
        Self { codec, output, conn }
    }
}

impl<H: Handler> Replies<'_, H> {
    /// Queues a reply, as [`Conn::send`](crate::Conn::send) does.
    pub fn send<R>(&mut self, reply: R)
    where
        H::Codec: Encode<R>,
    {
        self.output.push(self.conn, self.codec, reply);
    }

    /// How many bytes are queued for the peer or in flight to it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.output.queued()
    }
}

impl<H: Handler> Write for Replies<'_, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.push(self.conn, &mut Raw::new(), bytes);
        Ok(bytes.len())
    }

    /// Does nothing: what is queued leaves by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<H: Handler> fmt::Debug for Replies<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("queued", &self.queued()).finish_non_exhaustive()
    }
}
