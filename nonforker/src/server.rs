//! Putting a server together, running it, ending it.

mod assembled;
mod simulated;

use std::{fmt, sync::Arc};

#[cfg(feature = "_rustls")]
use crate::tls::TlsError;
use crate::{
    access::Entrance,
    address::{Address, AddressError},
    bound::Bound,
    codec::Codec,
    config::{Limits, descriptor_limit},
    context::Conn,
    driver_kind::{Chosen, DriverKind},
    engine::{service::Service, slot::ServiceId},
    error::{Error, Result},
    handle::Handle,
    handler::{Closure, Frames, Handler, IntoOutcome, OnFrame},
    listening::Place,
    networks::{Networks, NetworksError},
    service::Typed,
    service_limits::{AllLimits, ServiceLimits},
    shards::Part,
    tls::Tls,
};

/// The permissions of a Unix socket's file by default: for its owner only.
const UNIX_MODE: u32 = 0o600;

/// A server that is being put together.
///
/// Nothing is opened before [`bind`](Self::bind) or [`run`](Self::run), which also say what is
/// wrong with an address.
///
/// It stays on the thread on which it was made, and so does [`Bound`]: handlers need not be `Send`.
/// To run a server on another thread, have it made there: [`Server::spawn`].
///
/// # Examples
///
/// Two services in one loop: lines are echoed on one port and counted on another.
///
/// ```
/// use nonforker::{Server, codec::Lines};
///
/// # fn main() -> nonforker::Result<()> {
/// let mut count = 0u64;
/// let server = Server::new()
///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
///     .serve("127.0.0.1:0", Lines::new(), move |conn, _line| {
///         count += 1;
///         conn.send(count.to_string());
///     })
///     .bind()?;
/// # let handle = server.handle();
/// # std::thread::spawn(move || handle.drain());
/// server.run()
/// # }
/// ```
pub struct Server {
    pub(crate) limits: AllLimits,
    services: Vec<Box<dyn UseServerSpawn>>,
    /// Of each service: its TLS.
    pub(crate) tls: Vec<Secured>,
    /// Of each service: whose connections begin with a PROXY header.
    proxies: Vec<Option<std::result::Result<Networks, NetworksError>>>,
    /// Of each service: who may connect.
    pub(crate) entrances: Vec<Entrance>,
    pub(crate) places: Vec<(Place, ServiceId)>,
    unix_mode: u32,
    driver: DriverKind,
    pub(crate) offload_threads: Option<usize>,
    /// What was wrong with what it was given first.
    mistake: Option<Error>,
    /// Which shard it becomes.
    pub(crate) part: Part,
    #[cfg(feature = "signals")]
    drain_on_signals: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("places", &self.places)
            .field("limits", &self.limits.server)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server with default limits that serves nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            limits: AllLimits::default(),
            services: Vec::new(),
            tls: Vec::new(),
            proxies: Vec::new(),
            entrances: Vec::new(),
            places: Vec::new(),
            unix_mode: UNIX_MODE,
            driver: DriverKind::Auto,
            offload_threads: None,
            mistake: None,
            part: Part::alone(),
            #[cfg(feature = "signals")]
            drain_on_signals: false,
        }
    }

    /// Serves with a closure that is called for every frame.
    ///
    /// It returns nothing, or `Ok(())` behind any number of `?`: an [`Outcome`](crate::Outcome). An
    /// error ends the connection it came from.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Outcome, Server, codec::Lines};
    ///
    /// let server = Server::new()
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| {
    ///         conn.send(std::str::from_utf8(line)?);
    ///         Ok(())
    ///     })
    ///     // The same, written out.
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| -> Outcome {
    ///         conn.send(std::str::from_utf8(line)?);
    ///         Ok(())
    ///     });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn serve<C, A, F, R>(self, address: A, codec: C, on_frame: F) -> Self
    where
        C: Codec,
        A: TryInto<Address, Error: Into<AddressError>>,
        F: for<'c, 'f> FnMut(&mut Conn<'c, Closure<C>>, C::Frame<'f>) -> R + 'static,
        R: IntoOutcome,
    {
        self.add::<Closure<C>, _>(codec, OnFrame::new(on_frame)).also_on(address)
    }

    /// Serves with a [`Handler`]: state, sessions, and every callback.
    #[must_use]
    pub fn serve_with<A, H>(self, address: A, codec: H::Codec, handler: H) -> Self
    where
        A: TryInto<Address, Error: Into<AddressError>>,
        H: Handler,
    {
        self.service(codec, handler).also_on(address)
    }

    /// Adds a service without a listener, for other services to [find](Conn::service): it can have
    /// timers, and [`also_on`](Self::also_on) gives it a listener.
    #[must_use]
    pub fn service<H: Handler>(self, codec: H::Codec, handler: H) -> Self {
        self.add::<H, H>(codec, handler)
    }

    fn add<H: Handler, F: Frames<H>>(mut self, codec: H::Codec, frames: F) -> Self {
        self.services.push(Box::new(Typed::<H, F>::new(codec, frames)));
        self.proxies.push(None);
        self.entrances.push(Entrance::default());
        self.tls.push(Secured::default());
        self.limits.services.push(ServiceLimits::new());
        self
    }

    /// Has every connection of the last given service begin with a header of the PROXY protocol,
    /// version 1 or 2, as proxies and balancers send it: haproxy's `send-proxy` and `send-proxy-v2`,
    /// nginx' `proxy_protocol on`, the network balancers of clouds.
    ///
    /// Only peers within `from` may connect, and each peer of a Unix socket; all others are refused
    /// before anything that they send is looked at, since a peer that may send a header may claim to be any client.
    /// The header must be there: what begins with anything else is refused, and so is one that is not
    /// complete within [`Limits::handshake_timeout`]. Its handler is not called for those; they are logged
    /// and counted in [`Stats::refused`](crate::Stats::refused).
    ///
    /// [`Conn::peer`] is then the real client, which [`Limits::max_connections_per_ip`] counts, and
    /// [`Conn::via`] is the proxy. If the proxy says that it does not know (`UNKNOWN`), or that the
    /// connection is its own (`LOCAL`, a health check), both are the proxy.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new()
    ///     .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
    ///     .proxy_protocol("10.0.0.0/8,::1");
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn proxy_protocol<N>(mut self, from: N) -> Self
    where
        N: TryInto<Networks, Error: Into<NetworksError>>,
    {
        if let Some(last) = self.proxies.last_mut() {
            *last = Some(from.try_into().map_err(Into::into));
        }
        self
    }

    /// Encrypts every connection of the last given service, from its first byte on, or behind the header of
    /// a [proxy](Self::proxy_protocol).
    ///
    /// Its handler does not notice: [`open`](crate::Handler::open) is called when the handshake is done, and
    /// [`Conn::tls`] says what was agreed on. A handshake that is not complete within
    /// [`Limits::handshake_timeout`], or is the oldest of more than [`Limits::handshakes_max`], ends, and the
    /// handler is not called for it. It is counted in [`Stats::refused`](crate::Stats::refused).
    ///
    /// [`Handle::set_tls`] replaces certificates while the server runs.
    ///
    /// # Errors
    ///
    /// [`bind`](Self::bind) returns [`Error::Tls`] if no service was given before, or one whose handler
    /// wants [urgent bytes](crate::Handler::URGENT): they are not encrypted.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use nonforker::{Server, Tls, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// Server::new()
    ///     .serve("127.0.0.1:6697", Lines::new(), |conn, line| conn.send(line))
    ///     .tls(Tls::from_files("chain.pem", "key.pem")?.and_files("other.pem", "other-key.pem")?)
    ///     .run()
    /// # }
    /// ```
    #[cfg(feature = "_rustls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        match self.tls.last_mut() {
            Some(last) => last.at_once = Some(tls),
            None => return self.with_misplaced("tls"),
        }
        self
    }

    /// Lets connections of the last given service begin in clear, and change to TLS when their handler says
    /// so: see [`Conn::start_tls`].
    ///
    /// # Errors
    ///
    /// Those of [`tls`](Self::tls), and [`Error::Tls`] for a service that is encrypted from the start.
    #[cfg(feature = "_rustls")]
    #[must_use]
    pub fn start_tls_with(mut self, tls: Tls) -> Self {
        match self.tls.last_mut() {
            Some(last) => last.later = Some(tls),
            None => return self.with_misplaced("start_tls_with"),
        }
        self
    }

    /// Names the last given service, for others to find it by: see [`Conn::service_named`].
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        if let Some(service) = self.services.last_mut() {
            service.name(name.into());
        }
        self
    }

    /// Serves the last given handler at one more address.
    #[must_use]
    pub fn also_on<A>(mut self, address: A) -> Self
    where
        A: TryInto<Address, Error: Into<AddressError>>,
    {
        let place = Place::Address(address.try_into().map_err(Into::into));
        self.places.push((place, self.last_service()));
        self
    }

    /// [`bind`](Self::bind) returns this error, if there was none before.
    pub(crate) fn with_mistake(mut self, mistake: Error) -> Self {
        self.mistake.get_or_insert(mistake);
        self
    }

    #[cfg(feature = "_rustls")]
    fn with_misplaced(self, what: &str) -> Self {
        let what = format!("{what}: give the server a service first");
        self.with_mistake(TlsError::new(what).into())
    }

    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn drains_on_signals(&self) -> bool {
        #[cfg(feature = "signals")]
        return self.drain_on_signals;
        #[cfg(not(feature = "signals"))]
        false
    }

    pub(crate) fn last_service(&self) -> ServiceId {
        let last = self.services.len().saturating_sub(1);
        ServiceId::try_from(last).unwrap_or(ServiceId::MAX)
    }

    /// Sets the bounds the server keeps to.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits.server = limits;
        self
    }

    /// Sets bounds for the last given service, in place of those of the server:
    /// see [`ServiceLimits`].
    ///
    /// [`bind`](Self::bind) refuses them if no service was given before them.
    #[must_use]
    pub fn service_limits(mut self, limits: ServiceLimits) -> Self {
        self.limits.set_last(limits);
        self
    }

    /// Sets the permissions of the files of Unix sockets. Default: `0o600`, the owner only.
    #[must_use]
    pub const fn unix_mode(mut self, mode: u32) -> Self {
        self.unix_mode = mode;
        self
    }

    /// How many threads do what handlers [offload](Conn::offload) at a time. From 1 to 10,000; default:
    /// one for each processor, and 4 in a simulation. None is started before it is needed.
    ///
    /// Work that computes keeps a processor busy; of work that waits, for a database, say, much more
    /// can be done at a time.
    #[must_use]
    pub const fn offload_threads(mut self, threads: usize) -> Self {
        self.offload_threads = Some(threads);
        self
    }

    /// Chooses the driver. Default: [`DriverKind::Auto`].
    #[must_use]
    pub const fn driver(mut self, driver: DriverKind) -> Self {
        self.driver = driver;
        self
    }

    /// Drains on the first SIGTERM or SIGINT and stops on the second.
    ///
    /// The signals are taken over for the whole process from [`bind`](Self::bind) on. A thread
    /// waits for them until the server ends: when [`Bound::run`] returns or the [`Bound`] is
    /// dropped. When the last server that asked for them has ended, the signals end the process
    /// again, as they do by default; also if they were handled or ignored before. Several servers
    /// in one process all obey. Default: the library touches no signal.
    #[cfg(feature = "signals")]
    #[must_use]
    pub const fn drain_on_signals(mut self) -> Self {
        self.drain_on_signals = true;
        self
    }

    /// A handle that ends the server from anywhere, also before it is bound: a server that was asked
    /// to drain ends as soon as it runs.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Server, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line));
    /// let handle = server.handle();
    /// std::thread::spawn(move || handle.drain());
    /// server.run()
    /// # }
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.part.group))
    }

    /// Opens every listener. Connections wait from here on until [`Bound::run`].
    ///
    /// # Errors
    ///
    /// [`Error::Target`] for the first target of a [relay](Self::relay) that is none,
    /// [`Error::Networks`] for the first networks of proxies that are none,
    /// [`Error::Address`] for the first address that is none or is given twice, [`Error::Listen`]
    /// for the first one that cannot be served,
    /// [`Error::Limits`] if a limit is out of its bounds, [`Error::NothingToServe`] if there is
    /// no address, [`Error::Driver`] if the kernel gives no event queue, [`Error::NoUring`] if
    /// io_uring was asked for and cannot be used.
    pub fn bind(mut self) -> Result<Bound> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        self.check()?;
        let (budget, source) = self.limits.server.budget();
        self.limits.server.memory_budget = Some(budget);
        let lack = self.limits.server.lack_of_descriptors(descriptor_limit());
        let (driver, name) = self.driver.make(self.options())?;
        let bound = match driver {
            Chosen::Poll(driver) => self.bind_over(*driver),
            #[cfg(target_os = "linux")]
            Chosen::Uring(driver) => self.bind_over(*driver),
        }?;
        tracing::info!("the driver is {name}");
        tracing::info!("the memory budget is {budget} bytes: {source}");
        if let Some(lack) = lack {
            tracing::warn!("{lack}");
        }
        Ok(bound)
    }

    /// Opens every listener and serves until the server is drained or stopped.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind) and [`Bound::run`].
    pub fn run(self) -> Result<()> {
        self.bind()?.run()
    }
}

/// What encrypts the connections of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secured {
    /// From their first byte on.
    pub(crate) at_once: Option<Tls>,
    /// When their handler says so.
    pub(crate) later: Option<Tls>,
}

/// A service of a server that is not bound. The compiler shows the name of this trait when a
/// [`Server`] is moved to another thread.
trait UseServerSpawn: Service {}

impl<S: Service> UseServerSpawn for S {}
