//! What a script does in place of other threads.

use super::Net;
use crate::{Connections, Handler, NoSuchService, PostError, Remote};

impl Net {
    /// Posts a closure to a service, as a thread does with a [`Remote`]. It is called
    /// when time goes on.
    ///
    /// # Errors
    ///
    /// Those of [`Remote::post`](crate::Remote::post).
    ///
    /// # Panics
    ///
    /// If the server has no service with such a handler, or several.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Conn, Handler, Outcome, Server, codec::Lines, sim::Simulation};
    ///
    /// struct News;
    ///
    /// impl Handler for News {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let server = || Server::new().serve_with("127.0.0.1:1685", Lines::new(), News);
    /// Simulation::new(server).run(|net| {
    ///     let reader = net.connect();
    ///     net.settle();
    ///     net.post::<News>(|_, all| all.for_each(|other| other.send("it rains")))
    ///         .expect("the server runs");
    ///     reader.expect("it rains\n");
    /// });
    /// ```
    pub fn post<H: Handler>(
        &self,
        call: impl FnOnce(&mut H, &mut Connections<'_, H>) + Send + 'static,
    ) -> Result<(), PostError> {
        self.remote::<H>().expect("the server has one service with this handler").post(call)
    }

    /// What [`Bound::remote`](crate::Bound::remote) gives other threads, for the script.
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has such a handler, or if several do.
    pub fn remote<H: Handler>(&self) -> Result<Remote<H>, NoSuchService> {
        self.0.server.remote::<H>(None)
    }
}
