//! Where to connect to.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use thiserror::Error;

use crate::{
    address::{Address, AddressError, Peer},
    exec::Program,
};

/// The longest name of a host.
const HOST_MAX: usize = 253;

/// Where to connect to: unlike an [`Address`] it may be the name of a host.
///
/// | text | what |
/// |---|---|
/// | `127.0.0.1:6379`, `[::1]:6379`, `tcp://127.0.0.1:6379` | TCP |
/// | `redis.example:6379`, `tcp://redis.example:6379` | TCP, to one of the addresses that the name has |
/// | `unix:/run/redis.sock`, `unix:@name` | a Unix socket |
/// | (made from a [`Program`]) | the input and output of a program that is started |
///
/// A name is resolved by the system, on a thread of its own, when a connection is asked for. What the
/// system says counts for 30 s, and that it knows no such name for 1 s. If a name has several
/// addresses, the next one is tried when one fails, or after 250 ms; the first that answers wins.
///
/// # Examples
///
/// ```
/// use nonforker::Target;
///
/// let target: Target = "redis.example:6379".parse()?;
/// assert_eq!(target.to_string(), "redis.example:6379");
/// let error = "redis.example".parse::<Target>().expect_err("without a port").to_string();
/// assert!(error.contains("the port is missing"), "{error}");
/// # Ok::<(), nonforker::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(pub(crate) TargetKind);

/// What a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Address(Address),
    Name { host: String, port: u16 },
    Program(Program),
}

impl Target {
    /// The same, and if it is a program, its environment says who the client is.
    pub(crate) fn of_client(&self, client: Option<&Peer>) -> Self {
        match (&self.0, client) {
            (TargetKind::Program(program), Some(Peer::Tcp(address))) => program
                .clone()
                .env("TCPREMOTEIP", address.ip().to_string())
                .env("TCPREMOTEPORT", address.port().to_string())
                .env("REMOTE_ADDR", address.ip().to_string())
                .label(format!("program of {address}"))
                .into(),
            _ => self.clone(),
        }
    }

    /// The same, and if it is a program, the log calls it a worker with this number.
    pub(crate) fn of_worker(&self, number: usize) -> Self {
        match &self.0 {
            TargetKind::Program(program) => {
                program.clone().label(format!("worker {number}")).into()
            }
            _ => self.clone(),
        }
    }

    /// What the program said last, if it is one and said anything.
    pub(crate) fn last_words(&self) -> Option<String> {
        let TargetKind::Program(program) = &self.0 else { return None };
        Some(program.last_words()).filter(|words| !words.is_empty())
    }

    /// What is known of the peer before it is connected to.
    pub(crate) const fn peer(&self) -> Peer {
        match self.0 {
            TargetKind::Address(Address::Tcp(address)) => Peer::Tcp(address),
            _ => Peer::Unix,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let refuse = |hint: &'static str| Err(TargetError::new(text, hint));
        if text.starts_with("unix:") {
            return Ok(Self(TargetKind::Address(text.parse()?)));
        }
        if text.starts_with("tls://") {
            return refuse("TLS towards a target is not supported yet; write tcp://NAME:PORT");
        }
        let tcp = text.strip_prefix("tcp://").unwrap_or(text);
        if let Ok(address) = tcp.parse::<SocketAddr>() {
            return Self::try_from(Address::Tcp(address));
        }
        let Some((host, port)) = tcp.rsplit_once(':') else {
            return refuse(match tcp.parse::<u16>() {
                Ok(_) => "the host is missing; write redis.example:6379 or 127.0.0.1:6379",
                Err(_) => "the port is missing; write redis.example:6379 or 127.0.0.1:6379",
            });
        };
        if tcp.parse::<IpAddr>().is_ok() {
            return refuse("the port is missing; write [::1]:6379");
        }
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return refuse("a port is a number from 1 to 65535"),
        };
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() {
            return refuse("the host is missing; write redis.example:6379 or 127.0.0.1:6379");
        }
        if host.len() > HOST_MAX {
            return refuse("the name of a host has at most 253 characters");
        }
        if !host.bytes().all(is_of_name) {
            return refuse("a name consists of letters, digits, hyphens and dots");
        }
        Ok(Self(TargetKind::Name { host: host.to_owned(), port }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TargetKind::Address(address) => write!(f, "{address}"),
            TargetKind::Name { host, port } => write!(f, "{host}:{port}"),
            TargetKind::Program(program) => write!(f, "{program}"),
        }
    }
}

impl TryFrom<Address> for Target {
    type Error = TargetError;

    fn try_from(address: Address) -> Result<Self, TargetError> {
        address.check()?;
        match address {
            Address::Tcp(tcp) if tcp.port() == 0 => {
                Err(TargetError::new(&address.to_string(), "nobody listens at port 0"))
            }
            _ => Ok(Self(TargetKind::Address(address))),
        }
    }
}

impl TryFrom<SocketAddr> for Target {
    type Error = TargetError;

    fn try_from(address: SocketAddr) -> Result<Self, TargetError> {
        Self::try_from(Address::Tcp(address))
    }
}

impl TryFrom<&str> for Target {
    type Error = TargetError;

    fn try_from(text: &str) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl TryFrom<&String> for Target {
    type Error = TargetError;

    fn try_from(text: &String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// Why a text, or an address, is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad target {text:?}: {hint}")]
pub struct TargetError {
    text: String,
    hint: Cow<'static, str>,
}

impl TargetError {
    fn new(text: &str, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.to_owned(), hint: hint.into() }
    }
}

impl From<AddressError> for TargetError {
    fn from(error: AddressError) -> Self {
        let (text, hint) = error.into_parts();
        Self { text, hint }
    }
}

impl From<Infallible> for TargetError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_target_is_read_and_prints_as_it_is_written() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("tcp://127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "localhost:80"),
            ("tcp://redis-1.example.:6379", "redis-1.example.:6379"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), shown);
        }
    }

    #[test]
    fn a_bad_target_says_what_to_write() {
        let long = format!("{}:80", "x".repeat(254));
        for (text, hint) in [
            ("", "the port is missing"),
            ("localhost", "the port is missing"),
            ("127.0.0.1", "the port is missing"),
            ("::1", "the port is missing"),
            ("80", "the host is missing"),
            (":80", "the host is missing"),
            ("localhost:0", "from 1 to 65535"),
            ("localhost:http", "from 1 to 65535"),
            ("localhost:70000", "from 1 to 65535"),
            ("127.0.0.1:0", "port 0"),
            ("a b:80", "letters, digits"),
            ("user@host:80", "letters, digits"),
            ("http://host:80", "letters, digits"),
            ("a\n:80", "letters, digits"),
            ("[::1:80", "letters, digits"),
            (&long, "at most 253"),
            ("unix:", "the path is empty"),
            ("224.0.0.1:80", "multicast"),
            ("tls://host:443", "not supported yet"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text:?} says {error:?}");
        }
    }
}
