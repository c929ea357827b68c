//! Sockets as every kernel driver needs them: how they are opened, set up and taken down.
//!
//! - A TCP listener sets `SO_REUSEADDR` and never `SO_REUSEPORT`: a second server on the same
//!   port must fail, clearly. IPv6 means IPv6 only.
//! - A Unix listener replaces only a *stale socket*: a file that is a socket and that nobody
//!   answers at. It is reachable only once its permissions are set, and its file is removed at
//!   the end if it is still ours. On Linux it may have a name instead, and no file.
//! - A listener that was given is made non-blocking and gets the options that its connections
//!   inherit. Its backlog, its permissions and its file are not ours, and another process may hold
//!   it too.
//! - The shards of a server have a descriptor each of the same socket. The last one that closes it
//!   removes the file.
//! - A connection has `TCP_NODELAY`, since every turn sends what it has in one write; keepalive,
//!   so that a peer that vanished does not hold a slot;
//!   and `TCP_NOTSENT_LOWAT`, so that what a peer does not take waits with us, where it is
//!   bounded, and not in megabytes of kernel memory.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Shutdown, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::{Options, Probing};
use crate::address::{Address, Peer, PeerCredentials};

/// Bytes not yet sent that the kernel takes for one connection before it says "would block".
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX: u32 = 128 * 1024;

/// Whether a connection has the options of its listener from the start, which costs no system call.
const INHERITS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// How many bytes have arrived at a socket that nobody has received.
pub(crate) fn unread(socket: &Socket) -> usize {
    let count = rustix::io::ioctl_fionread(socket).unwrap_or(0);
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How many bytes the kernel took that the peer's has not acknowledged.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(crate) fn unacknowledged(socket: &Socket) -> Option<usize> {
    super::queue::unacknowledged(socket)
}

/// Only the kernel could tell, and here it does not.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn unacknowledged(_socket: &Socket) -> Option<usize> {
    None
}

/// The process at the other end of a Unix socket.
#[cfg(target_os = "linux")]
pub(crate) fn credentials(socket: &Socket) -> Option<PeerCredentials> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?;
    Some(PeerCredentials::new(pid, peer.uid.as_raw(), peer.gid.as_raw()))
}

/// Only Linux says it in this way.
#[cfg(not(target_os = "linux"))]
pub(crate) fn credentials(_socket: &Socket) -> Option<PeerCredentials> {
    None
}

/// A bound socket that yields connections, and the file it leaves behind.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Goes before the socket does: while that is open, no other file can have its inode.
    hold: Arc<Hold>,
    pub(crate) socket: Socket,
    /// Somebody else opened it, and may go on to use it.
    is_given: bool,
    probing: Probing,
}

/// What the shards that listen at a socket have in common. It ends with the last of them.
#[derive(Debug)]
struct Hold {
    _file: Option<SocketFile>,
}

impl Listener {
    fn new(socket: Socket, file: Option<SocketFile>, is_given: bool, probing: Probing) -> Self {
        Self { hold: Arc::new(Hold { _file: file }), socket, is_given, probing }
    }

    /// The same listener for another shard, by a descriptor of its own.
    pub(crate) fn share(&self) -> io::Result<Self> {
        let (hold, socket) = (Arc::clone(&self.hold), self.socket.try_clone()?);
        Ok(Self { hold, socket, is_given: self.is_given, probing: self.probing })
    }

    /// Closes it. If no other shard has it, no peer reaches it any more, even if the kernel keeps the
    /// socket for a moment. What was given may be another's too, who goes on to use it.
    pub(crate) fn shut(self) {
        let Self { hold, socket, is_given, .. } = self;
        let last = Arc::into_inner(hold);
        if last.is_some() && !is_given {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(last);
    }

    /// Binds and listens at `address`.
    pub(crate) fn open(address: &Address, options: &Options) -> io::Result<Self> {
        let probing = options.probing;
        let listener = match address {
            Address::Tcp(address) => {
                let socket =
                    Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                if INHERITS {
                    set_probing(&socket, probing)?;
                }
                socket.bind(&(*address).into())?;
                Self::new(socket, None, false, probing)
            }
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                let file = SocketFile::bind(&socket, path, options.unix_mode)?;
                Self::new(socket, Some(file), false, probing)
            }
            Address::Abstract(name) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&abstract_address(name)?)?;
                Self::new(socket, None, false, probing)
            }
        };
        listener.socket.set_nonblocking(true)?;
        listener.socket.listen(i32::from(options.backlog))?;
        Ok(listener)
    }

    /// Takes over what somebody else opened.
    pub(crate) fn take_over(given: OwnedFd, options: &Options) -> io::Result<Self> {
        let socket = Socket::from(given);
        if socket.r#type()? != Type::STREAM || !listens(&socket)? {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no stream that listens"));
        }
        let listener = Self::new(socket, None, true, options.probing);
        if INHERITS && matches!(listener.address()?, Address::Tcp(_)) {
            set_probing(&listener.socket, listener.probing)?;
        }
        listener.socket.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Where it listens: with the port that the kernel chose.
    pub(crate) fn address(&self) -> io::Result<Address> {
        address_of(&self.socket)
    }

    /// Takes one connection and sets it up. `None` is one that broke while it waited.
    pub(crate) fn accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        let (socket, address) = self.socket.accept()?;
        let peer = peer_of(&address);
        // A reset that arrived before us shows here as EINVAL or ENOTCONN.
        Ok(self.set_up(&socket, &peer).ok().map(|()| (socket, peer)))
    }

    /// Sets a connection of this listener up as the head of this file says.
    fn set_up(&self, socket: &Socket, peer: &Peer) -> io::Result<()> {
        if let Peer::Tcp(_) = peer {
            if !INHERITS {
                set_probing(socket, self.probing)?;
            }
            set_up_tcp(socket)?;
        }
        Ok(())
    }
}

/// Sets up what a listener does not hand down.
fn set_up_tcp(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT_MAX)?;
    Ok(())
}

/// Begins to connect to `address`, without waiting. Returns the socket, and whether it is connected.
pub(super) fn connect(address: &Address, probing: Probing) -> io::Result<(Socket, bool)> {
    let (domain, to) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Address::Abstract(name) => (Domain::UNIX, abstract_address(name)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Address::Tcp(_) = address {
        set_probing(&socket, probing)?;
        set_up_tcp(&socket)?;
    }
    match socket.connect(&to) {
        Ok(()) => Ok((socket, true)),
        // Interrupted, it goes on all the same.
        Err(error) if is_under_way(&error) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INPROGRESS | Errno::INTR))
}

/// The peer of a socket that was to be connected, as soon as it is. An error is that of the attempt.
pub(super) fn connected(socket: &Socket) -> io::Result<Option<Peer>> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(address) => Ok(Some(peer_of(&address))),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a socket listens.
pub(crate) fn address_of(socket: &impl AsFd) -> io::Result<Address> {
    let address = SockRef::from(socket).local_addr()?;
    let tcp = address.as_socket().map(Address::Tcp);
    let unix = || address.as_pathname().map(|path| Address::Unix(path.to_owned()));
    let address = tcp.or_else(unix).or_else(|| abstract_name(&address).map(Address::Abstract));
    address.ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// The address of a Unix socket that has a name and no file.
fn abstract_address(name: &str) -> io::Result<SockAddr> {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        SockAddr::unix(format!("\0{name}"))
    } else {
        Err(ErrorKind::Unsupported.into())
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(address: &SockAddr) -> Option<String> {
    String::from_utf8(address.as_abstract_namespace()?.to_owned()).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_name(_address: &SockAddr) -> Option<String> {
    None
}

/// Whether a socket listens, where the system tells.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn listens(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn listens(_socket: &Socket) -> io::Result<bool> {
    Ok(true)
}

/// The peer of a connection from `address`. A listener that was given may take IPv4
/// as well as IPv6: then each client has the address that it has elsewhere.
fn peer_of(address: &SockAddr) -> Peer {
    let Some(address) = address.as_socket() else { return Peer::Unix };
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => Peer::Tcp(SocketAddr::new(ip, address.port())),
        IpAddr::V6(_) => Peer::Tcp(address),
    }
}

/// Says when the peer of a TCP connection is gone.
fn set_probing(socket: &Socket, probing: Probing) -> io::Result<()> {
    if let Some(keepalive) = probing.keepalive {
        let times = TcpKeepalive::new().with_time(keepalive.time);
        // Other systems have one setting of these for all connections.
        #[cfg(any(
            target_os = "linux",
            target_os = "android",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "dragonfly",
            target_os = "illumos",
            target_os = "macos"
        ))]
        let times = times.with_interval(keepalive.interval).with_retries(keepalive.count);
        // This turns it on, too.
        socket.set_tcp_keepalive(&times)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if probing.user_timeout.is_some() {
        socket.set_tcp_user_timeout(probing.user_timeout)?;
    }
    Ok(())
}

/// The file of a Unix socket: removed when dropped, if it is still the one that was bound.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn bind(socket: &Socket, path: &Path, mode: u32) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != ErrorKind::AddrInUse || !is_stale(path, &address) {
                return Err(error);
            }
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        let bound = fs::symlink_metadata(path)?;
        let file = Self { path: path.to_owned(), device: bound.dev(), inode: bound.ino() };
        // Until `listen` nobody can connect, so there is no moment with other permissions.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| {
            file.file_type().is_socket() && (file.dev(), file.ino()) == (self.device, self.inode)
        });
        if ours {
            // It may have gone meanwhile; there is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` is a socket that nobody listens at any more.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && Socket::new(Domain::UNIX, Type::STREAM, None).is_ok_and(|probe| {
            // A live server whose backlog is full must not make us wait.
            probe.set_nonblocking(true).is_ok()
                && probe
                    .connect(address)
                    .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        })
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::Keepalive;

    const OPTIONS: Options =
        Options { read_max: 1, backlog: 1, unix_mode: 0o600, probing: NO_PROBING, shared: false };
    const NO_PROBING: Probing = Probing { keepalive: None, user_timeout: None };

    /// A connection that a listener with these options accepted.
    fn accepted(probing: Probing) -> Socket {
        let options = Options { probing, ..OPTIONS };
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::open(&address, &options).expect("a free port");
        let at = listener.socket.local_addr().expect("it is bound");
        let peer = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        peer.connect(&at).expect("it listens");
        loop {
            match listener.accept() {
                Ok(accepted) => return accepted.expect("the peer is there").0,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn a_connection_has_the_probes_that_were_asked_for() {
        let [time, interval, patience] = [61, 11, 95].map(Duration::from_secs);
        let keepalive = Some(Keepalive { time, interval, count: 7 });
        let socket = accepted(Probing { keepalive, user_timeout: Some(patience) });
        assert!(socket.keepalive().expect("an option"), "probes are on");
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), time);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), interval);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 7);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(patience));
        assert!(socket.tcp_nodelay().expect("an option"), "it does not wait for more to send");

        let socket = accepted(NO_PROBING);
        assert!(!socket.keepalive().expect("an option"), "probes are off");
        assert!(socket.tcp_user_timeout().expect("an option").is_none());
    }
}
