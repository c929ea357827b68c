//! A server whose listeners are open.

use std::{fmt, io};

#[cfg(feature = "signals")]
use crate::signals::Watch;
use crate::{
    address::Address,
    driver::{Driver, ListenerShare},
    engine::Engine,
    error::{Error, Result},
    handle::Handle,
};

/// An engine over some driver. The compiler shows the name of this trait when a [`Bound`] is moved to
/// another thread.
pub(crate) trait RunByServerSpawn {
    /// Runs to the end, and returns how many connections that cut off.
    fn run(&mut self) -> Result<usize>;

    /// A share of each listener, for another shard.
    fn shares(&self) -> io::Result<Vec<ListenerShare>>;
}

impl<D: Driver> RunByServerSpawn for Engine<D> {
    fn run(&mut self) -> Result<usize> {
        self.start()?;
        let cut_off = Self::run(self).map_err(Error::Driver)?;
        self.failure().map_or(Ok(cut_off), Err)
    }

    fn shares(&self) -> io::Result<Vec<ListenerShare>> {
        Self::shares(self)
    }
}

/// A server whose listeners are open.
pub struct Bound {
    pub(crate) engine: Box<dyn RunByServerSpawn>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) handle: Handle,
    /// Goes last: until the engine is gone, with the files of its sockets, no signal kills.
    #[cfg(feature = "signals")]
    pub(crate) _watch: Option<Watch>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Bound {
    /// Where it listens, in the order given, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// A handle that ends the server from anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::drain`] or [`Handle::stop`] is called and the last connection has
    /// closed.
    ///
    /// Everything happens on the calling thread: handlers are never entered twice at once and
    /// need no locks. They must not block, because while one runs nothing else does.
    ///
    /// A failure on one connection is not returned from here. It closes that connection, and its
    /// handler gets the reason.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] if the kernel's event queue fails. [`Error::Handler`] if a
    /// [`Handler::started`](crate::Handler::started) fails. [`Error::CutOff`] if the server has
    /// ended and cut clients off: the drain took too long, or [`Handle::stop`] was called.
    ///
    /// # Examples
    ///
    /// Stop after the connections that are open now:
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let server = Server::new()
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .bind()?;
    /// let handle = server.handle();
    /// std::thread::spawn(move || handle.drain());
    /// server.run()
    /// # }
    /// ```
    pub fn run(mut self) -> Result<()> {
        match self.engine.run()? {
            0 => Ok(()),
            connections => Err(Error::CutOff { connections }),
        }
    }
}
