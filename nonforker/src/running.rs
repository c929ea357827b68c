//! A server on a thread of its own, beside a program that does something else.

use std::{
    fmt, mem,
    panic::resume_unwind,
    sync::mpsc,
    thread::{self, JoinHandle},
};

#[cfg(feature = "signals")]
use crate::signals::Watch;
use crate::{
    address::Address,
    error::{Error, Result},
    handle::Handle,
    server::Server,
};

/// The name of the thread, as a debugger shows it. Linux shows 15 bytes.
const THREAD_NAME: &str = "nonforker";

impl Server {
    /// Runs a server on a thread of its own, named `nonforker`, and returns once its listeners are
    /// open.
    ///
    /// A server stays on the thread on which it was made, since its handlers need not be `Send`. So
    /// this takes no server but a function that makes one, and calls it on the new thread.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), and [`Error::Thread`] if the thread cannot be started.
    ///
    /// # Panics
    ///
    /// If `make` does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{io::{Read, Write}, net::TcpStream};
    /// use nonforker::{Address, Server, codec::Lines};
    ///
    /// fn my_server() -> Server {
    ///     Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let running = Server::spawn(my_server)?;
    /// let Address::Tcp(address) = running.addresses()[0] else { unreachable!() };
    /// let mut client = TcpStream::connect(address)?;
    /// client.write_all(b"hello\n")?;
    /// let mut reply = [0; 6];
    /// client.read_exact(&mut reply)?;
    /// assert_eq!(&reply, b"hello\n");
    /// drop(client);
    /// running.drain_and_wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn(make: impl FnOnce() -> Self + Send + 'static) -> Result<Running> {
        let (tell, told) = mpsc::sync_channel(1);
        let serve = move || {
            let bound = make().bind()?;
            // If nobody waits any more, nobody can end the server either.
            match tell.send((bound.addresses().to_vec(), bound.handle())) {
                Ok(()) => bound.run(),
                Err(_) => Ok(()),
            }
        };
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(serve);
        let thread = thread.map_err(Error::Thread)?;
        match told.recv() {
            Ok((addresses, handle)) => Ok(Running {
                addresses,
                handle,
                threads: vec![thread],
                #[cfg(feature = "signals")]
                _watch: None,
            }),
            // It ended before it ran: with an error, or a panic.
            Err(_) => Err(join(thread).err().unwrap_or(Error::NothingToServe)),
        }
    }
}

/// A server that runs on a thread of its own, see [`Server::spawn`], or on several, see
/// [`Shards::bind`](crate::Shards::bind).
///
/// Dropped, it drains the server and waits until that has ended, at most about
/// [`Limits::drain_timeout`](crate::Limits::drain_timeout); an error is logged. To let go of the
/// thread instead would have the end of `main` cut off what a drain finishes, and a test leave its
/// server to the next one. A program that does nothing else calls [`wait`](Self::wait). Where it is
/// dropped on a thread of the server, by a handler that owns it, nothing is waited for.
#[must_use = "a server that is dropped is drained"]
pub struct Running {
    pub(crate) addresses: Vec<Address>,
    pub(crate) handle: Handle,
    /// One for each shard; none once they were waited for.
    pub(crate) threads: Vec<JoinHandle<Result<()>>>,
    /// Of [`Shards`](crate::Shards). Goes last.
    #[cfg(feature = "signals")]
    pub(crate) _watch: Option<Watch>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Running {
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

    /// [Drains](Handle::drain) the server and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Bound::run`](crate::Bound::run).
    ///
    /// # Panics
    ///
    /// If the server's thread has panicked, with the same payload. Where there are
    /// [shards](crate::Shards), that is [`Error::ShardPanicked`].
    pub fn drain_and_wait(self) -> Result<()> {
        self.handle.drain();
        self.wait()
    }

    /// Waits until the server has ended, which something else has to bring about.
    ///
    /// # Errors
    ///
    /// Those of [`Bound::run`](crate::Bound::run).
    ///
    /// # Panics
    ///
    /// If the server's thread has panicked, with the same payload. Where there are
    /// [shards](crate::Shards), that is [`Error::ShardPanicked`].
    pub fn wait(mut self) -> Result<()> {
        join_all(mem::take(&mut self.threads))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let threads = mem::take(&mut self.threads);
        if threads.is_empty() {
            return;
        }
        self.handle.drain();
        let present = thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == present) {
            return;
        }
        for thread in threads {
            // A panic was printed by its own thread, and must not become a second one here.
            if let Ok(Err(error)) = thread.join() {
                tracing::warn!("a server that was dropped: {error}");
            }
        }
    }
}

/// What became of all: the first error, or else how many connections they have cut off.
fn join_all(threads: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    let mut cut_off = 0;
    let mut failed = None;
    for thread in threads {
        match join(thread) {
            Ok(()) => {}
            Err(Error::CutOff { connections }) => cut_off += connections,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) => Err(error),
        None if cut_off > 0 => Err(Error::CutOff { connections: cut_off }),
        None => Ok(()),
    }
}

pub(crate) fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|payload| resume_unwind(payload))
}
