//! What a callback may end beside its connection: its own side of that, and the server.

use std::sync::Arc;

use crate::{connections::Connections, context::Conn, handle::Handle, handler::Handler};

impl<H: Handler> Conn<'_, H> {
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
        Handle::new(Arc::clone(&self.core.remote))
    }
}

impl<H: Handler> Connections<'_, H> {
    /// A handle of the server: [`Handler::started`] and timers can drain it.
    #[must_use]
    pub fn server(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.remote))
    }
}
