//! What the two sides of a connection agreed on.

use std::fmt;

use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, pki_types::CertificateDer};

/// The facts as the library has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed<'c> {
    pub(super) version: Option<ProtocolVersion>,
    pub(super) suite: Option<CipherSuite>,
    pub(super) alpn: Option<&'c [u8]>,
    pub(super) server_name: Option<&'c str>,
    pub(super) chain: &'c [CertificateDer<'static>],
    pub(super) kind: Option<HandshakeKind>,
}

/// What a connection and its peer agreed on: see [`Conn::tls`](crate::Conn::tls).
///
/// # Examples
///
/// ```
/// use nonforker::{Server, codec::Lines};
///
/// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, _line| {
///     let text = match conn.tls() {
///         Some(tls) => format!("{} for {:?}", tls.version(), tls.server_name()),
///         None => "in clear".to_owned(),
///     };
///     conn.send(text);
/// });
/// # let _ = server;
/// ```
#[derive(Clone, Copy)]
pub struct TlsFacts<'c>(pub(crate) Agreed<'c>);

impl<'c> TlsFacts<'c> {
    /// The version of the protocol: `"TLSv1.3"` or `"TLSv1.2"`.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        match self.0.version {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }

    /// The cipher suite, by the name in the registry of IANA: `"TLS_AES_128_GCM_SHA256"`.
    #[must_use]
    pub fn cipher_suite(&self) -> &'static str {
        let name = self.0.suite.and_then(|suite| suite.as_str()).unwrap_or("unknown");
        match name {
            "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
            other => other,
        }
    }

    /// The protocol that both sides speak inside of it, if the client offered some and the server
    /// [has some](crate::Tls::alpn).
    #[must_use]
    pub const fn alpn(&self) -> Option<&'c [u8]> {
        self.0.alpn
    }

    /// The name of the server that the client asked for (SNI), if it asked for one. It need not be a
    /// name for which the server has a certificate.
    #[must_use]
    pub const fn server_name(&self) -> Option<&'c str> {
        self.0.server_name
    }

    /// The certificate that the peer authenticated itself with, as DER: a client, if it did; or the server
    /// that we are [connected](crate::Conn::connect) to.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&'c [u8]> {
        self.peer_chain().next()
    }

    /// The same certificate and those behind it that the peer sent, each as DER. None of them if it did not
    /// authenticate itself.
    pub fn peer_chain(&self) -> impl Iterator<Item = &'c [u8]> + use<'c> {
        self.0.chain.iter().map(|certificate| &**certificate)
    }

    /// Whether the client came back with a ticket of an earlier connection, so that neither side had to
    /// show its certificate again.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.0.kind == Some(HandshakeKind::Resumed)
    }
}

impl fmt::Debug for TlsFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFacts")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("alpn", &self.alpn().map(String::from_utf8_lossy))
            .field("server_name", &self.server_name())
            .field("peer_certificates", &self.0.chain.len())
            .field("is_resumed", &self.is_resumed())
            .finish()
    }
}
