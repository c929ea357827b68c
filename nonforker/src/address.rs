//! Where to listen, and where a peer connects from.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use thiserror::Error;

/// The longest path or name of a Unix socket, in bytes: `sun_path` less one.
const UNIX_PATH_MAX: usize = 107;

/// Whether this system has names for Unix sockets that are not files.
const HAS_ABSTRACT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Where to listen.
///
/// Addresses are literal: no name is ever resolved, so a server starts without DNS. The zone of a
/// link-local address is the number of an interface, not its name: `[fe80::1%2]:1685`.
///
/// # Examples
///
/// ```
/// use nonforker::Address;
///
/// for text in ["127.0.0.1:1685", "[::1]:0", "tcp://0.0.0.0:1685", "unix:/run/x.sock"] {
///     assert!(text.parse::<Address>().is_ok(), "{text}");
/// }
/// let error = "localhost:1685".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("127.0.0.1:1685"), "it tells what to write: {error}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// TCP. `[::]` means IPv6 only, so that it and `0.0.0.0` can share a port; port 0 lets the
    /// kernel choose one.
    Tcp(SocketAddr),
    /// A Unix stream socket at this path of at most 107 bytes. The text `unix:@x` is not a path: a
    /// file of that name is `unix:./@x`.
    Unix(PathBuf),
    /// A Unix stream socket with this name of 1 to 107 bytes and no file: `unix:@name`, on Linux
    /// only. It goes with its server.
    ///
    /// It has no permissions: every process of the same network namespace can connect, whatever
    /// [`Server::unix_mode`](crate::Server::unix_mode) says.
    Abstract(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => match path.strip_prefix('@') {
                Some(name) => Self::Abstract(name.to_owned()),
                None => Self::Unix(path.into()),
            },
            None => {
                let tcp = text.strip_prefix("tcp://").unwrap_or(text);
                let parsed = tcp.parse().map(Self::Tcp);
                parsed.map_err(|_| AddressError::new(text, hint(tcp)))?
            }
        };
        address.wrong().map_or(Ok(address), |hint| Err(AddressError::new(text, hint)))
    }
}

impl Address {
    /// What to write instead, if nobody could ever listen at such an address.
    fn wrong(&self) -> Option<Cow<'static, str>> {
        let hint: &str = match self {
            Self::Tcp(address) => return wrong_tcp(address),
            Self::Unix(path) => match path.as_os_str().as_bytes() {
                [] => "the path is empty; write unix:/run/name.sock",
                path if path.len() > UNIX_PATH_MAX => "a Unix socket's path has at most 107 bytes",
                path if path.contains(&0) => "a path has no NUL byte",
                _ => return None,
            },
            Self::Abstract(_) if !HAS_ABSTRACT => {
                "sockets without a file exist on Linux only; write unix:/run/name.sock"
            }
            Self::Abstract(name) => match name.len() {
                0 => "the name is empty; write unix:@name",
                1..=UNIX_PATH_MAX if name.contains('\0') => "a name has no NUL byte",
                1..=UNIX_PATH_MAX => return None,
                _ => "a Unix socket's name has at most 107 bytes",
            },
        };
        Some(hint.into())
    }

    /// Says what is wrong with an address that never was a text, as [`from_str`](Self::from_str)
    /// does with a text.
    pub(crate) fn check(&self) -> Result<(), AddressError> {
        self.wrong().map_or(Ok(()), |hint| Err(AddressError::new(&self.to_string(), hint)))
    }

    /// Whether two listeners would have the same place.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                one.port() != 0
                    && (one.ip(), one.port(), zone(one)) == (other.ip(), other.port(), zone(other))
            }
            (Self::Unix(one), Self::Unix(other)) => real_path(one) == real_path(other),
            _ => self == other,
        }
    }
}

/// What to write instead of a TCP address that is well-formed.
fn wrong_tcp(address: &SocketAddr) -> Option<Cow<'static, str>> {
    if address.ip().is_multicast() {
        return Some("a multicast address takes no connections; write 0.0.0.0:1685".into());
    }
    let SocketAddr::V6(v6) = address else { return None };
    if let Some(v4) = v6.ip().to_ipv4_mapped() {
        return Some(format!("this is IPv4 within IPv6; write {v4}:{}", v6.port()).into());
    }
    (v6.ip().is_unicast_link_local() && v6.scope_id() == 0).then(|| {
        let (ip, port) = (v6.ip(), v6.port());
        format!(
            "the interface is missing; write [{ip}%2]:{port} with the number that ip link shows"
        )
        .into()
    })
}

/// The interface of a link-local address. No other address has one.
fn zone(address: &SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    }
}

/// The path of a file that may not exist in a folder that may, without links.
fn real_path(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize();
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// What is wrong with `text` as a TCP address.
fn hint(text: &str) -> &'static str {
    if text.contains('%') {
        "a zone is the number of an interface, and not its name; write [fe80::1%2]:1685 with the \
         number that ip link shows"
    } else if text.parse::<IpAddr>().is_ok() {
        "the port is missing; write 127.0.0.1:1685 or [::1]:1685"
    } else if text.parse::<u16>().is_ok() || text.starts_with(':') {
        "the IP address is missing; write 127.0.0.1:1685, or 0.0.0.0:1685 for every interface"
    } else if text.starts_with("localhost:") {
        "names are not resolved; write 127.0.0.1:1685 or [::1]:1685"
    } else {
        "write IP:PORT such as 127.0.0.1:1685 or [::1]:1685, or unix:PATH"
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            // A path that begins with @ would read as a name.
            Self::Unix(path) if path.as_os_str().as_bytes().starts_with(b"@") => {
                write!(f, "unix:./{}", path.display())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad address {text:?}: {hint}")]
pub struct AddressError {
    text: String,
    hint: Cow<'static, str>,
}

impl AddressError {
    fn new(text: &str, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.to_owned(), hint: hint.into() }
    }

    /// It is given to one server twice.
    pub(crate) fn into_parts(self) -> (String, Cow<'static, str>) {
        (self.text, self.hint)
    }

    pub(crate) fn twice(address: &Address) -> Self {
        Self::new(&address.to_string(), "it is given twice")
    }
}

impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The other end of a connection.
///
/// A clone allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer at this address.
    Tcp(SocketAddr),
    /// A peer of a Unix socket; it has no address worth telling.
    Unix,
    /// A peer of a proxy's Unix socket, which is bound to this path of 1 to 108 bytes. Only the
    /// header of a proxy says so; it prints with every control character escaped.
    UnixPath(Arc<Path>),
    /// A [`Program`](crate::Program) that the server has started.
    Program,
}

impl Peer {
    /// The peer's IP address, if it has one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix | Self::UnixPath(_) | Self::Program => None,
        }
    }
}

/// Who is at the other end of a Unix socket, as its kernel says: the process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process. It may have ended since, and another one may have its number.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl PeerCredentials {
    pub(crate) const fn new(pid: u32, uid: u32, gid: u32) -> Self {
        Self { pid, uid, gid }
    }
}

/// A [`Peer`] in half the room, which counts once there are many.
#[derive(Debug)]
pub(crate) enum PackedPeer {
    V4(Ipv4Addr, u16),
    Unix,
    /// A Unix socket, and the process at its other end.
    UnixOf(PeerCredentials),
    /// What does not fit: IPv6, a path.
    Boxed(Box<Peer>),
    /// A client, and the proxy through which it came.
    Behind(Box<(Peer, Peer)>),
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port()),
            Peer::Unix => Self::Unix,
            Peer::Tcp(SocketAddr::V6(_)) | Peer::UnixPath(_) | Peer::Program => {
                Self::Boxed(Box::new(peer))
            }
        }
    }
}

impl PackedPeer {
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::V4(ip, port) => Peer::Tcp(SocketAddr::V4(SocketAddrV4::new(*ip, *port))),
            Self::Unix | Self::UnixOf(_) => Peer::Unix,
            Self::Boxed(peer) => Peer::clone(peer),
            Self::Behind(both) => both.0.clone(),
        }
    }

    /// A client that came through a proxy, which may not have named it.
    pub(crate) fn behind(proxy: Peer, client: Option<Peer>) -> Self {
        Self::Behind(Box::new((client.unwrap_or_else(|| proxy.clone()), proxy)))
    }

    /// The proxy through which the client came.
    pub(crate) fn via(&self) -> Option<Peer> {
        match self {
            Self::Behind(both) => Some(both.1.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
            Self::Program => f.write_str("program"),
            // The client of a proxy chooses it, and it gets into logs.
            Self::UnixPath(path) => write!(f, "unix:{}", path.to_string_lossy().escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Address, HAS_ABSTRACT, PackedPeer, Peer};

    #[test]
    fn a_bad_address_says_what_to_write() {
        for (text, hint) in [
            ("127.0.0.1", "the port is missing"),
            ("::1", "the port is missing"),
            ("1685", "the IP address is missing"),
            (":1685", "the IP address is missing"),
            ("localhost:1685", "names are not resolved"),
            ("", "write IP:PORT"),
            ("127.0.0.1:99999", "write IP:PORT"),
            ("unix:", "the path is empty"),
            ("unix:/a\0b", "NUL"),
            ("unix:@", "the name is empty"),
            ("unix:@a\0b", "NUL"),
            ("[::ffff:127.0.0.1]:80", "write 127.0.0.1:80"),
            ("[::ffff:0.0.0.0]:0", "write 0.0.0.0:0"),
            ("[fe80::1]:80", "the interface is missing; write [fe80::1%2]:80"),
            ("[fe80::1%0]:80", "the interface is missing"),
            ("[fe80::1%eth0]:80", "a zone is the number of an interface"),
            ("fe80::1%eth0", "a zone is the number of an interface"),
            ("[ff02::1]:80", "multicast"),
            ("224.0.0.1:80", "multicast"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text:?} says {error:?}");
        }
        for start in ["/", "@x"] {
            let long = format!("unix:{start}{}", "x".repeat(107));
            assert!(long.parse::<Address>().expect_err("too long").to_string().contains("107"));
        }
    }

    #[test]
    fn a_packed_peer_is_the_same_peer() {
        let tcp = ["127.0.0.1:1685", "[::1]:80", "[fe80::1%3]:80"];
        let tcp = tcp.map(|text| Peer::Tcp(text.parse().expect(text)));
        let unix = [Peer::Unix, Peer::UnixPath(Path::new("/run/client.sock").into())];
        for peer in tcp.into_iter().chain(unix) {
            assert_eq!(PackedPeer::from(peer.clone()).peer(), peer);
        }
        assert!(size_of::<PackedPeer>() <= 16, "there is one per connection");
    }

    #[test]
    fn a_peers_path_cannot_end_a_line_of_the_log() {
        let peer = Peer::UnixPath(Path::new("/tmp/ä\n\x1b[0m\u{202e}").into());
        assert_eq!(peer.to_string(), r"unix:/tmp/ä\n\u{1b}[0m\u{202e}");
        assert_eq!(peer.ip(), None);
    }

    #[test]
    fn an_address_prints_as_it_is_written() {
        let texts =
            ["127.0.0.1:1685", "[::1]:80", "[fe80::1%2]:80", "unix:/run/x.sock", "unix:////"];
        let names = ["unix:@name", "unix:@@", "unix:./@name"];
        for text in texts.into_iter().chain(names.into_iter().filter(|_| HAS_ABSTRACT)) {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        assert_eq!(Address::Unix("@name".into()).to_string(), "unix:./@name");
    }

    #[test]
    fn the_same_place_is_known_however_it_is_written() {
        let is_same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Address>().expect(text));
            assert_eq!(one.is_same_place(&other), other.is_same_place(&one));
            one.is_same_place(&other)
        };
        for (one, other) in [
            ("127.0.0.1:1", "tcp://127.0.0.1:1"),
            ("[::1]:1", "[0:0::1]:1"),
            ("[::1%3]:1", "[::1]:1"),
            ("unix:/tmp/x", "unix:/tmp/./x"),
            ("unix:/tmp/x", "unix:/tmp/../tmp//x"),
            ("unix:x", "unix:./x"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "[::1]:1"),
            ("[fe80::1%2]:1", "[fe80::1%3]:1"),
            ("unix:/tmp/x", "unix:/tmp/y"),
            ("unix:/tmp/x", "unix:/x"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn an_address_that_never_was_a_text_is_checked_too() {
        for (address, hint) in [
            (Address::Tcp("[::ffff:1.2.3.4]:5".parse().expect("an address")), "write 1.2.3.4:5"),
            (Address::Unix("".into()), "empty"),
            (Address::Abstract("x".repeat(108)), if HAS_ABSTRACT { "107" } else { "Linux" }),
        ] {
            assert!(address.check().expect_err(hint).to_string().contains(hint), "{address}");
        }
    }
}
