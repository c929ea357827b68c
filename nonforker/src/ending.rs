//! What a callback may end beside its connection: its own side of that, and the server.

use std::sync::Arc;

use crate::{
    conn::state::Incoming, connections::Connections, context::Conn, handle::Handle,
    handler::Handler,
};

impl<H: Handler> Conn<'_, H> {
    /// Ends our side: behind what is queued, the peer sees the end of the stream. What the peer
    /// sends is handled as before.
    ///
    /// Replies that are sent after this are dropped, those from others included. The connection
    /// closes when the peer has finished too, after [`Handler::half_closed`], and for any other
    /// reason that ends connections; at once if the peer has finished already and
    /// [`Handler::half_closed`] was called.
    ///
    /// Deadlines hold as before. What the peer sends counts for
    /// [`Limits::idle_timeout`](crate::Limits::idle_timeout), which is the only one for a peer that
    /// sends nothing more and does not finish: a server that finishes should have it set. A drain
    /// closes the connection as any other.
    ///
    /// # Examples
    ///
    /// A client uploads lines, and sees at once that nothing will be answered:
    ///
    /// ```
    /// use nonforker::{Conn, Handler, Outcome, codec::Lines};
    ///
    /// #[derive(Default)]
    /// struct Upload {
    ///     lines: u64,
    /// }
    ///
    /// impl Handler for Upload {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
    ///         conn.send("go on");
    ///         conn.finish();
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
    ///         self.lines += 1;
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Upload::default());
    /// ```
    pub fn finish(&mut self) {
        match self.slot.conn.incoming() {
            Incoming::Told => self.close(),
            Incoming::Flows | Incoming::Finished | Incoming::Cut => self.core.finish(self.slot),
        }
    }

    /// A handle of the server: a request can drain it.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| match line {
    ///     b"shutdown" => conn.server().drain(),
    ///     line => conn.send(line),
    /// });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn server(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.group))
    }
}

impl<H: Handler> Connections<'_, H> {
    /// A handle of the server: [`Handler::started`] and timers can drain it.
    #[must_use]
    pub fn server(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.group))
    }
}
