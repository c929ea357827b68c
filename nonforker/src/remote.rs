//! A handle with which other threads post into a shard.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    bound::Bound,
    codec::Encode,
    connections::Connections,
    context::ConnId,
    engine::{
        core::Core,
        mail::{Errand, Letter, Mailbox},
        slot::ServiceId,
        table::Table,
    },
    error::{NoSuchService, PostError},
    handler::{Handler, IntoOutcome},
    running::Running,
};

/// Has the server call closures from any thread, with the handler of one service and all of its
/// connections.
///
/// It comes from [`Bound::remote`], [`Running::remote`] and [`Connections::remote`]. A clone is a
/// pointer. It keeps nothing alive: when the server has ended, [`post`](Self::post) says so.
///
/// # Examples
///
/// A thread that watches something tells all clients:
///
/// ```
/// use std::thread;
/// use nonforker::{Conn, Handler, Outcome, Server, codec::Lines};
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
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server =
///     Server::spawn(|| Server::new().serve_with("127.0.0.1:0", Lines::new(), News))?;
/// let remote = server.remote::<News>()?;
/// let watch = thread::spawn(move || {
///     remote.post(|_news, all| all.for_each(|reader| reader.send("it rains")))
/// });
/// watch.join().expect("it does not panic")?;
/// server.drain_and_wait()?;
/// # Ok(())
/// # }
/// ```
pub struct Remote<H: Handler> {
    /// Of each shard.
    mailboxes: Arc<[Arc<Mailbox>]>,
    /// Where closures are called.
    shard: usize,
    service: ServiceId,
    handler: PhantomData<fn(H)>,
}

impl<H: Handler> Clone for Remote<H> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.mailboxes), self.shard, self.service)
    }
}

impl<H: Handler> fmt::Debug for Remote<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<H: Handler> Remote<H> {
    pub(crate) const fn new(
        mailboxes: Arc<[Arc<Mailbox>]>,
        shard: usize,
        service: ServiceId,
    ) -> Self {
        Self { mailboxes, shard, service, handler: PhantomData }
    }

    /// How many [shards](crate::Shards) the server has: 1 if it has none.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// The same service in another shard of the server, counted from 0: there closures are called
    /// then. `None` if there are not so many.
    ///
    /// One from a [`Connections`] is for the shard that this is of, every other one for shard 0.
    ///
    /// # Examples
    ///
    /// All clients of all shards are told:
    ///
    /// ```
    /// use nonforker::{Conn, Handler, Outcome, PostError, Remote, codec::Lines};
    /// # struct News;
    /// # impl Handler for News {
    /// #     type Codec = Lines;
    /// #     type Session = ();
    /// #     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome { Ok(()) }
    /// # }
    ///
    /// fn tell(remote: &Remote<News>) -> Result<(), PostError> {
    ///     (0..).map_while(|shard| remote.shard(shard)).try_for_each(|one| {
    ///         one.post(|_news, all| all.for_each(|reader| reader.send("it rains")))
    ///     })
    /// }
    /// # let _ = tell;
    /// ```
    #[must_use]
    pub fn shard(&self, shard: usize) -> Option<Self> {
        let exists = shard < self.mailboxes.len();
        exists.then(|| Self::new(Arc::clone(&self.mailboxes), shard, self.service))
    }

    /// Has `call` called in the server's loop, with the handler and all connections of its service.
    /// Returns at once.
    ///
    /// Closures are called in the order in which they were posted, up to 1,024 in a turn; many are
    /// one wake-up of the loop. An error that a closure returns is logged. So is a panic, and
    /// [`Stats::panics`](crate::Stats::panics) counts it. No connection ends for either. A closure
    /// that waits when the server ends is dropped and not called.
    ///
    /// # Errors
    ///
    /// [`PostError::Full`] if [`Limits::remote_max`](crate::Limits::remote_max) closures wait,
    /// [`PostError::Ended`] if the server has ended. [`try_post`](Self::try_post) gives the closure
    /// back.
    ///
    /// # Panics
    ///
    /// From another thread while the server is [simulated](crate::sim): see
    /// [`Net::post`](crate::sim::Net::post).
    pub fn post<F, R>(&self, call: F) -> Result<(), PostError>
    where
        F: FnOnce(&mut H, &mut Connections<'_, H>) -> R + Send + 'static,
        R: IntoOutcome + 'static,
    {
        self.try_post(call).map_err(|(_, error)| error)
    }

    /// As [`post`](Self::post), and gives the closure back if it was not posted.
    ///
    /// # Errors
    ///
    /// Those of [`post`](Self::post), each with the closure.
    ///
    /// # Panics
    ///
    /// As [`post`](Self::post).
    pub fn try_post<F, R>(&self, call: F) -> Result<(), (F, PostError)>
    where
        F: FnOnce(&mut H, &mut Connections<'_, H>) -> R + Send + 'static,
        R: IntoOutcome + 'static,
    {
        let posted = Box::new(Posted { call, types: PhantomData::<fn(H) -> R> });
        self.mailboxes[self.shard]
            .post(posted, |errand| Letter::Post { service: self.service, errand })
            .map_err(|(posted, error)| (posted.call, error))
    }

    /// Has a reply queued for one connection, framed by its codec, as
    /// [`Other::send`](crate::Other::send) does, in whatever shard it is. If it has closed meanwhile,
    /// nothing happens.
    ///
    /// # Errors
    ///
    /// Those of [`post`](Self::post).
    ///
    /// # Panics
    ///
    /// As [`post`](Self::post).
    pub fn send<R>(&self, id: ConnId, reply: R) -> Result<(), PostError>
    where
        H::Codec: Encode<R>,
        R: Send + 'static,
    {
        let send = move |_: &mut H, all: &mut Connections<'_, H>| {
            if let Ok(mut other) = all.get(id) {
                other.send(reply);
            }
        };
        match self.shard(id.shard()) {
            Some(shard) => shard.post(send),
            // It is of another server, and has as good as closed.
            None => Ok(()),
        }
    }
}

/// A closure that was posted.
struct Posted<F, T> {
    call: F,
    types: PhantomData<T>,
}

impl<H, F, R> Errand for Posted<F, fn(H) -> R>
where
    H: Handler,
    F: FnOnce(&mut H, &mut Connections<'_, H>) -> R + Send,
    R: IntoOutcome,
{
    fn run(
        self: Box<Self>,
        handler: &mut dyn Any,
        core: &mut Core,
        table: &mut Table,
        id: ServiceId,
    ) {
        let Some(handler) = handler.downcast_mut::<H>() else { return };
        let mut all = Connections::new(core, table, id, 0);
        let call = || (self.call)(handler, &mut all).into_outcome();
        let called = catch_unwind(AssertUnwindSafe(call));
        all.service_failed("post", called);
    }
}

impl Bound {
    /// A handle with which other threads post to a service of this server, found by the type of its
    /// handler.
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has such a handler, or if several do: two closures over one
    /// codec are of one type. Then give them [names](crate::Server::name).
    pub fn remote<H: Handler>(&self) -> Result<Remote<H>, NoSuchService> {
        self.handle.remote(None)
    }

    /// The same for a service that was given this [name](crate::Server::name).
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has this name and such a handler, or if several do.
    pub fn remote_named<H: Handler>(&self, name: &str) -> Result<Remote<H>, NoSuchService> {
        self.handle.remote(Some(name))
    }
}

impl Running {
    /// As [`Bound::remote`].
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has such a handler, or if several do.
    pub fn remote<H: Handler>(&self) -> Result<Remote<H>, NoSuchService> {
        self.handle.remote(None)
    }

    /// As [`Bound::remote_named`].
    ///
    /// # Errors
    ///
    /// [`NoSuchService`] if no service has this name and such a handler, or if several do.
    pub fn remote_named<H: Handler>(&self, name: &str) -> Result<Remote<H>, NoSuchService> {
        self.handle.remote(Some(name))
    }
}

impl<H: Handler> Connections<'_, H> {
    /// A handle with which other threads post to this service.
    ///
    /// # Examples
    ///
    /// A handler starts a thread that posts to it every second:
    ///
    /// ```
    /// use std::{thread, time::Duration};
    /// use nonforker::{Conn, Connections, Handler, Outcome, codec::Lines};
    ///
    /// struct Load;
    ///
    /// impl Handler for Load {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
    ///         let remote = all.remote();
    ///         thread::spawn(move || {
    ///             // It ends with the server.
    ///             while remote.post(|_, all| all.for_each(|other| other.send("tick"))).is_ok() {
    ///                 thread::sleep(Duration::from_secs(1));
    ///             }
    ///         });
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, _conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Load);
    /// ```
    #[must_use]
    pub fn remote(&self) -> Remote<H> {
        let mailboxes = self.core.group.mailboxes();
        Remote::new(mailboxes, self.core.shard.into(), self.service)
    }
}
