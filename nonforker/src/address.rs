//! Where to listen, and who is at the other end.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

/// The longest path of a Unix socket, in bytes: `sun_path` less its terminator.
const UNIX_PATH_MAX: usize = 107;

/// Where to listen.
///
/// Addresses are literal: no name is ever resolved, so a server starts without DNS.
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
    /// A Unix stream socket at this path of at most 107 bytes.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(AddressError::new(text, "the path is empty; write unix:/run/name.sock")),
                1..=UNIX_PATH_MAX if !path.contains('\0') => Ok(Self::Unix(path.into())),
                1..=UNIX_PATH_MAX => Err(AddressError::new(text, "a path has no NUL byte")),
                _ => Err(AddressError::new(text, "a Unix socket's path has at most 107 bytes")),
            };
        }
        let tcp = text.strip_prefix("tcp://").unwrap_or(text);
        tcp.parse().map(Self::Tcp).map_err(|_| AddressError::new(text, hint(tcp)))
    }
}

/// What is wrong with `text` as a TCP address.
fn hint(text: &str) -> &'static str {
    if text.parse::<IpAddr>().is_ok() {
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
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
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
    hint: &'static str,
}

impl AddressError {
    fn new(text: &str, hint: &'static str) -> Self {
        Self { text: text.to_owned(), hint }
    }
}

impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer at this address.
    Tcp(SocketAddr),
    /// A peer of a Unix socket; it has no address worth telling.
    Unix,
}

impl Peer {
    /// The peer's IP address, if it has one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// A [`Peer`] in half the room, which counts once there are many.
#[derive(Debug)]
pub(crate) enum PackedPeer {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddrV6>),
    Unix,
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port()),
            Peer::Tcp(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
            Peer::Unix => Self::Unix,
        }
    }
}

impl PackedPeer {
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::V4(ip, port) => Peer::Tcp(SocketAddr::V4(SocketAddrV4::new(*ip, *port))),
            Self::V6(address) => Peer::Tcp(SocketAddr::V6(**address)),
            Self::Unix => Peer::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, PackedPeer, Peer};

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
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text:?} says {error:?}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(long.parse::<Address>().expect_err("too long").to_string().contains("107"));
    }

    #[test]
    fn a_packed_peer_is_the_same_peer() {
        let tcp = ["127.0.0.1:1685", "[::1]:80", "[fe80::1%3]:80"];
        let tcp = tcp.map(|text| Peer::Tcp(text.parse().expect(text)));
        for peer in [tcp.as_slice(), &[Peer::Unix]].concat() {
            assert_eq!(PackedPeer::from(peer).peer(), peer);
        }
    }

    #[test]
    fn an_address_prints_as_it_is_written() {
        for text in ["127.0.0.1:1685", "[::1]:80", "unix:/run/x.sock", "unix:////"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
    }
}
