//! Putting a server together, running it, ending it.

use std::{cell::RefCell, fmt, io, io::ErrorKind, rc::Rc, time::Duration};

use rustix::io::Errno;

#[cfg(feature = "signals")]
use crate::signals::Watch;
use crate::{
    address::{Address, AddressError},
    bounds::check_mode,
    codec::Codec,
    config::{Limits, descriptor_limit},
    context::Conn,
    driver::{
        Driver, Options,
        sim::{SimDriver, world::World},
    },
    driver_kind::{Chosen, DriverKind},
    engine::{Engine, Services, slot::ServiceId},
    error::{Error, Result},
    handle::Handle,
    handler::{Closure, Handler, IntoOutcome},
    service::Typed,
    service_limits::{AllLimits, ServiceLimits},
};

/// The permissions of a Unix socket's file unless told otherwise: for its owner only.
const UNIX_MODE: u32 = 0o600;

/// How often an address is tried that is in use, and how long to wait before it is tried again.
const LISTEN_TRIES: u32 = 25;
const LISTEN_PAUSE: Duration = Duration::from_millis(20);

/// A server that is being put together.
///
/// Nothing is opened before [`bind`](Self::bind) or [`run`](Self::run), which also say what is
/// wrong with an address.
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
    limits: AllLimits,
    services: Services,
    addresses: Vec<(std::result::Result<Address, AddressError>, ServiceId)>,
    unix_mode: u32,
    driver: DriverKind,
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
            .field("addresses", &self.addresses)
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
            services: Services::new(),
            addresses: Vec::new(),
            unix_mode: UNIX_MODE,
            driver: DriverKind::Auto,
            #[cfg(feature = "signals")]
            drain_on_signals: false,
        }
    }

    /// Serves with a closure that is called for every frame.
    ///
    /// It may return nothing, or a `Result<(), E>`: an error ends the connection it came from.
    #[must_use]
    pub fn serve<C, A, F, R>(self, address: A, codec: C, on_frame: F) -> Self
    where
        C: Codec,
        A: TryInto<Address, Error: Into<AddressError>>,
        F: for<'c, 'f> FnMut(&mut Conn<'c, Closure<C>>, C::Frame<'f>) -> R + 'static,
        R: IntoOutcome,
    {
        self.serve_with(address, codec, Closure::new(on_frame))
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
    pub fn service<H: Handler>(mut self, codec: H::Codec, handler: H) -> Self {
        self.services.push(Box::new(Typed::new(codec, handler)));
        self.limits.services.push(ServiceLimits::new());
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
        let last = self.services.len().saturating_sub(1);
        let service = ServiceId::try_from(last).unwrap_or(ServiceId::MAX);
        self.addresses.push((address.try_into().map_err(Into::into), service));
        self
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

    /// Opens every listener. Connections wait from here on until [`Bound::run`].
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for the first address that is none or is given twice, [`Error::Listen`]
    /// for the first one that cannot be served,
    /// [`Error::Limits`] if a limit is out of its bounds, [`Error::NothingToServe`] if there is
    /// no address, [`Error::Driver`] if the kernel gives no event queue, [`Error::NoUring`] if
    /// io_uring was asked for and cannot be used.
    pub fn bind(mut self) -> Result<Bound> {
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

    fn bind_over<D: Driver + 'static>(self, driver: D) -> Result<Bound> {
        #[cfg(feature = "signals")]
        let drain_on_signals = self.drain_on_signals;
        let (engine, addresses) = self.assemble(driver, LISTEN_TRIES)?;
        let (request, waker, counters) = engine.remote();
        let handle = Handle::new(request, waker, counters);
        #[cfg(feature = "signals")]
        let watch = drain_on_signals.then(|| Watch::start(handle.clone()));
        Ok(Bound {
            engine: Box::new(engine),
            addresses,
            handle,
            #[cfg(feature = "signals")]
            _watch: watch.transpose().map_err(Error::Signals)?,
        })
    }

    /// Whether this can be served at all.
    fn check(&self) -> Result<()> {
        self.limits.check()?;
        check_mode(self.unix_mode)?;
        if self.services.is_empty() { Err(Error::NothingToServe) } else { Ok(()) }
    }

    fn options(&self) -> Options {
        Options {
            read_max: self.limits.server.read_per_turn,
            backlog: self.limits.server.backlog,
            unix_mode: self.unix_mode,
            probing: self.limits.server.probing(),
        }
    }

    /// Puts the engine together over any driver.
    fn assemble<D: Driver>(self, driver: D, tries: u32) -> Result<(Engine<D>, Vec<Address>)> {
        let mut engine = Engine::new(driver, self.limits, self.services);
        let mut wanted: Vec<(Address, ServiceId)> = Vec::new();
        for (address, service) in self.addresses {
            let address = address?;
            address.check()?;
            if wanted.iter().any(|(other, _)| other.is_same_place(&address)) {
                return Err(AddressError::twice(&address).into());
            }
            wanted.push((address, service));
        }
        let mut addresses = Vec::new();
        for (address, service) in wanted {
            let actual = patiently(&address, tries, || engine.listen(&address, service));
            addresses.push(actual.map_err(|source| listen_error(address, source, &addresses))?);
        }
        Ok((engine, addresses))
    }

    /// Puts the engine together over a simulated network. What would depend on the machine does
    /// not.
    pub(crate) fn simulate(
        mut self,
        world: Rc<RefCell<World>>,
    ) -> Result<(Engine<SimDriver>, Vec<Address>)> {
        self.limits.server.simulate();
        self.check()?;
        let driver = SimDriver::new(world, self.options());
        self.assemble(driver, 1)
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

/// Whether a Unix socket's place is taken by something else.
fn is_other_file(address: &Address) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let Address::Unix(path) = address else { return false };
    std::fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket())
}

/// Tries for a moment to listen where somebody else does.
///
/// The kernel takes an io_uring server down in the background after it was killed, and until then
/// its address is in use: whoever starts it again at once is not to be told so.
#[expect(clippy::disallowed_methods, reason = "there is no shard yet that could be blocked")]
fn patiently<T>(
    address: &Address,
    tries: u32,
    mut listen: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    for _ in 1..tries {
        match listen() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && !is_other_file(address) => {
                std::thread::sleep(LISTEN_PAUSE);
            }
            result => return result,
        }
    }
    listen()
}

/// Says what to do about an address at which we cannot listen, though we do at `ours`.
fn listen_error(address: Address, source: io::Error, ours: &[Address]) -> Error {
    if source.kind() == ErrorKind::AddrInUse
        && let Some(other) = ours.iter().find(|other| overlap(other, &address))
    {
        let hint = format!("{other}, where this server listens, includes it or is included");
        return Error::Listen { address, hint, source };
    }
    let errno = Errno::from_io_error(&source);
    let hint = match source.kind() {
        _ if errno == Some(Errno::NODEV) => "there is no interface of that number",
        _ if errno == Some(Errno::AFNOSUPPORT) => "this system does not know such addresses",
        ErrorKind::AddrInUse if is_other_file(&address) => "there is a file that is not a socket",
        ErrorKind::AddrInUse => "it is in use; stop the other server or choose another address",
        ErrorKind::PermissionDenied => match address {
            Address::Unix(_) => "no permission; choose a directory you may write to",
            Address::Abstract(_) => "no permission",
            Address::Tcp(_) => "no permission; ports below 1024 need a privilege",
        },
        ErrorKind::AddrNotAvailable => "this machine has no such address",
        ErrorKind::NotFound => "the directory does not exist",
        _ => return Error::Listen { address, hint: source.to_string(), source },
    };
    Error::Listen { address, hint: hint.to_owned(), source }
}

/// Whether two TCP addresses have a port in common, since one of them is that of every interface.
fn overlap(one: &Address, other: &Address) -> bool {
    let (Address::Tcp(one), Address::Tcp(other)) = (one, other) else { return false };
    let is_every = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_every
}

/// An engine over some driver.
trait Run {
    /// Runs to the end, and returns how many connections that cut off.
    fn run(&mut self) -> Result<usize>;
}

impl<D: Driver> Run for Engine<D> {
    fn run(&mut self) -> Result<usize> {
        self.start()?;
        Self::run(self).map_err(Error::Driver)
    }
}

/// A server whose listeners are open.
pub struct Bound {
    engine: Box<dyn Run>,
    addresses: Vec<Address>,
    handle: Handle,
    /// Goes last: until the engine is gone, with the files of its sockets, no signal kills.
    #[cfg(feature = "signals")]
    _watch: Option<Watch>,
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
    /// A failure on one connection is not returned from here. It closes that connection and is
    /// told to its handler.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] if the kernel's event queue fails. [`Error::Handler`] if a
    /// [`Handler::started`] fails. [`Error::CutOff`] if the server has
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
