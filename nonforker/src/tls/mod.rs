//! TLS: between the bytes of the wire and the bytes that a codec gets.
//!
//! ```text
//!  wire ──▶ receive ──┬─▶ plain ──▶ frames
//!                     └─▶ said: handshake, tickets, alerts ──▶ wire
//!  replies ──▶ seal ──▶ wire            finish: close_notify ──▶ wire
//! ```
//!
//! A [`Session`] knows records and nothing else: no connection, no socket, no clock. What it needs of a
//! library is one trait, [`Records`]: three functions and the facts. rustls is behind it in one file.
//!
//! Without the features `tls` and `ring` there is no session, and nobody can have one: its type has no
//! values then.

#[cfg(feature = "_rustls")]
mod certificates;
#[cfg(feature = "_rustls")]
mod client;
#[cfg(feature = "_rustls")]
mod config;
#[cfg(feature = "_rustls")]
mod facts;
#[cfg(not(feature = "_rustls"))]
mod none;
#[cfg(feature = "_rustls")]
mod records;
#[cfg(feature = "_rustls")]
mod resolver;

use thiserror::Error;

#[cfg(feature = "_rustls")]
pub(crate) use self::client::check_name;
#[cfg(feature = "_rustls")]
pub(crate) use self::config::provider;
#[cfg(not(feature = "_rustls"))]
pub(crate) use self::none::{ClientTls, Session, Tls};
#[cfg(feature = "_rustls")]
pub(crate) use self::records::Session;
#[cfg(feature = "_rustls")]
pub use self::{
    client::ClientTls,
    config::{ClientAuth, Tls},
    facts::TlsFacts,
};

/// What is wrong with certificates, keys, or what a peer sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct TlsError {
    what: String,
}

impl TlsError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// TLS towards the host of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Towards {
    /// That of the system, if it was given none.
    pub(crate) tls: Option<ClientTls>,
    /// The name in the target.
    pub(crate) host: String,
}

/// How a connection begins TLS: by what was given for its listener, or for its target.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    Server(Tls),
    Client(Towards),
}

impl Start {
    /// Our side of a new connection.
    pub(crate) fn session(&self) -> Result<Session, TlsError> {
        match self {
            Self::Server(tls) => tls.server(),
            Self::Client(Towards { tls: Some(tls), host }) => tls.session(host),
            Self::Client(Towards { tls: None, host }) => ClientTls::from_system()?.session(host),
        }
    }
}

/// What was done with received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    /// So many bytes of the front are done with. The others are to be shown again, behind nothing else.
    pub(crate) used: usize,
    /// Nothing goes on before more arrives.
    pub(crate) is_blocked: bool,
    /// The peer has said that it sends no more: its close_notify.
    pub(crate) has_ended: bool,
}

/// One side of a TLS connection, as a library does it without buffers of its own.
pub(crate) trait Records: Sized {
    /// Takes records in, up to and including the first that holds bytes of the application, which are
    /// appended to `plain`, or to the end of the handshake. What is to be sent for that is appended to
    /// `said`; an alert is, too, if this fails.
    fn receive(
        &mut self,
        input: &mut [u8],
        said: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Took, TlsError>;

    /// Appends the records of `plain`. `joined` is what [`receive`](Self::receive) took nothing of yet,
    /// if a complete record is among it: the library has it in use.
    fn seal(&mut self, joined: &mut [u8], plain: &[u8], into: &mut Vec<u8>)
    -> Result<(), TlsError>;

    /// Appends the close_notify of this side, the first time.
    fn finish(&mut self, joined: &mut [u8], into: &mut Vec<u8>);

    /// Whether the handshake is not done.
    fn shakes(&self) -> bool;
}

/// How many bytes the record whose header this is takes, with the header: `None` for half a header.
pub(crate) fn record_length(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [_, _, _, high, low, ..] => Some(HEADER + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// The bytes of a record's header.
pub(crate) const HEADER: usize = 5;

/// The most plaintext of one record.
#[cfg_attr(not(feature = "_rustls"), expect(dead_code, reason = "there are no records then"))]
pub(crate) const RECORD_MAX: usize = 16 * 1024;
