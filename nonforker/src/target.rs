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
    tls::{ClientTls, Towards},
};

/// The longest name of a host.
const HOST_MAX: usize = 253;

/// Where to connect to: unlike an [`Address`] it may be the name of a host.
///
/// | text | what |
/// |---|---|
/// | `127.0.0.1:6379`, `[::1]:6379`, `tcp://127.0.0.1:6379` | TCP |
/// | `redis.example:6379`, `tcp://redis.example:6379` | TCP, to one of the addresses that the name has |
/// | `tls://redis.example:6380` | the same behind TLS, by the authorities of the system; `Target::tls` gives it others |
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
pub struct Target {
    pub(crate) kind: TargetKind,
    /// Behind TLS.
    pub(crate) tls: Option<Towards>,
}

/// What a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Address(Address),
    Name { host: String, port: u16 },
    Program(Program),
}

impl From<TargetKind> for Target {
    fn from(kind: TargetKind) -> Self {
        Self { kind, tls: None }
    }
}

impl Target {
    /// The same behind TLS, by what is given here, and not by what the system trusts.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if no certificate can be for the target, a Unix socket for example, and `tls` has
    /// no [name](ClientTls::server_name).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use nonforker::{ClientTls, Target};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// let own = ClientTls::from_authorities("ca.pem")?;
    /// let target = "tls://redis.internal:6380".parse::<Target>()?.tls(own)?;
    /// assert_eq!(target.to_string(), "tls://redis.internal:6380");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "_rustls")]
    pub fn tls(self, tls: ClientTls) -> Result<Self, TargetError> {
        let host = self.host();
        if host.is_none() && !tls.has_name() {
            let hint =
                "a certificate cannot be for it, so ClientTls has to give a name (server_name)";
            return Err(TargetError::new(&self.to_string(), hint));
        }
        Ok(Self { tls: Some(Towards { tls: Some(tls), host: host.unwrap_or_default() }), ..self })
    }

    /// Whether connections to it are behind TLS.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// What a certificate of it has to be for.
    fn host(&self) -> Option<String> {
        match &self.kind {
            TargetKind::Address(Address::Tcp(address)) => Some(address.ip().to_string()),
            TargetKind::Name { host, .. } => Some(host.clone()),
            TargetKind::Address(_) | TargetKind::Program(_) => None,
        }
    }

    /// The same behind TLS, by what the system trusts.
    fn secured(self, text: &str) -> Result<Self, TargetError> {
        if cfg!(not(feature = "_rustls")) {
            return Err(TargetError::new(text, "TLS was not compiled in; write tcp://NAME:PORT"));
        }
        let host = self.host().unwrap_or_default();
        #[cfg(feature = "_rustls")]
        if let Err(error) = crate::tls::check_name(&host) {
            return Err(TargetError::new(text, error.to_string()));
        }
        // It is read now, and not in the middle of serving. What is wrong with it, if it is needed at
        // all, is said by the connection.
        let _ = ClientTls::from_system();
        Ok(Self { tls: Some(Towards { tls: None, host }), ..self })
    }

    /// The same, and if it is a program, its environment says who the client is.
    pub(crate) fn of_client(&self, client: Option<&Peer>) -> Self {
        match (&self.kind, client) {
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
        match &self.kind {
            TargetKind::Program(program) => {
                program.clone().label(format!("worker {number}")).into()
            }
            _ => self.clone(),
        }
    }

    /// What the program said last, if it is one and said anything.
    pub(crate) fn last_words(&self) -> Option<String> {
        let TargetKind::Program(program) = &self.kind else { return None };
        Some(program.last_words()).filter(|words| !words.is_empty())
    }

    /// What is known of the peer before it is connected to.
    pub(crate) const fn peer(&self) -> Peer {
        match self.kind {
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
            return Ok(TargetKind::Address(text.parse()?).into());
        }
        if let Some(rest) = text.strip_prefix("tls://") {
            let in_clear = Self::from_str(rest).ok().filter(|target| target.host().is_some());
            return match in_clear {
                Some(target) if !rest.contains("://") => target.secured(text),
                Some(_) => refuse("write tls://NAME:PORT"),
                None => Err(match format!("tcp://{rest}").parse::<Self>() {
                    Err(error) => TargetError { text: text.to_owned(), ..error },
                    Ok(_) => TargetError::new(text, "write tls://NAME:PORT"),
                }),
            };
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
        Ok(TargetKind::Name { host: host.to_owned(), port }.into())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls.is_some() {
            f.write_str("tls://")?;
        }
        match &self.kind {
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
            _ => Ok(TargetKind::Address(address).into()),
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
            #[cfg(feature = "_rustls")]
            ("tls://redis.example.:6379", "tls://redis.example.:6379"),
            #[cfg(feature = "_rustls")]
            ("tls://[::1]:443", "tls://[::1]:443"),
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
            ("tls://", "the port is missing"),
            ("tls://host", "the port is missing"),
            ("tls://host:0", "from 1 to 65535"),
            ("tls://unix:/run/x.sock", "from 1 to 65535"),
            ("tls://tcp://host:1", "tls://NAME:PORT"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text:?} says {error:?}");
        }
    }
}
