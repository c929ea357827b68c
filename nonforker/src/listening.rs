//! Where a server listens: at addresses, which may take a moment, and at listeners that were given.

use std::{
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    address::{Address, AddressError},
    error::Error,
    handler::Handler,
    server::Server,
};

/// Where to listen.
#[derive(Debug)]
pub(crate) enum Place {
    Address(Result<Address, AddressError>),
    /// Somebody else has opened a listener there.
    Given(OwnedFd),
}

/// Says what is wrong with the first of the addresses that is none, or is given twice.
pub(crate) fn check<S>(places: &[(Place, S)]) -> Result<(), AddressError> {
    let mut before: Vec<&Address> = Vec::new();
    for (place, _) in places {
        let Place::Address(address) = place else { continue };
        let address = address.as_ref().map_err(Clone::clone)?;
        address.check()?;
        if before.iter().any(|other| other.is_same_place(address)) {
            return Err(AddressError::twice(address));
        }
        before.push(address);
    }
    Ok(())
}

impl Server {
    /// Serves with a [`Handler`] at a listener that somebody else opened: the program itself, or the
    /// one that started it.
    ///
    /// It is a [`TcpListener`](std::net::TcpListener) or a
    /// [`UnixListener`](std::os::unix::net::UnixListener) of the standard library, or a descriptor.
    /// [`Bound::addresses`](crate::Bound::addresses) has its address. It becomes non-blocking, in
    /// every process that holds it, and a TCP listener gets the probes of [`Limits`](crate::Limits).
    /// Everything else stays as it is: its backlog, its permissions, and the file of a Unix socket,
    /// also when the server ends. The server then closes only its own descriptor. Pending
    /// connections wait for the other processes that hold the listener, and are refused if none does.
    ///
    /// There is no such listener in a [simulation](crate::sim).
    ///
    /// # Errors
    ///
    /// [`bind`](Self::bind) returns [`Error::GivenListener`] if it is no stream socket that listens.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use nonforker::{Address, Conn, Handler, Outcome, Server, codec::Lines};
    ///
    /// struct Echo;
    ///
    /// impl Handler for Echo {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         conn.send(line);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let server = Server::new().serve_on(listener, Lines::new(), Echo).bind()?;
    /// assert_eq!(server.addresses(), [Address::Tcp(address)]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn serve_on<H: Handler>(
        self,
        listener: impl Into<OwnedFd>,
        codec: H::Codec,
        handler: H,
    ) -> Self {
        self.service(codec, handler).also_on_listener(listener)
    }

    /// Serves the last given handler also at a listener that somebody else opened: see
    /// [`serve_on`](Self::serve_on).
    #[must_use]
    pub fn also_on_listener(mut self, listener: impl Into<OwnedFd>) -> Self {
        self.places.push((Place::Given(listener.into()), self.last_service()));
        self
    }
}

/// How often an address is tried that is in use, and how long to wait before it is tried again.
pub(crate) const LISTEN_TRIES: u32 = 25;
const LISTEN_PAUSE: Duration = Duration::from_millis(20);

/// Whether a Unix socket's place is taken by something else.
fn is_other_file(address: &Address) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let Address::Unix(path) = address else { return false };
    std::fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket())
}

/// Tries for a moment to listen at an address that is in use.
///
/// The kernel removes the ring of a killed io_uring server in the background, and its address is in
/// use until then. A server that is started again at once should not fail for that.
#[expect(clippy::disallowed_methods, reason = "there is no shard yet that could be blocked")]
pub(crate) fn patiently<T>(
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
pub(crate) fn listen_error(address: Address, source: io::Error, ours: &[Address]) -> Error {
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
