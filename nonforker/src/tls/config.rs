//! Which certificates a server shows, what it wants of its clients, and what both may agree on.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{
    TlsError,
    certificates::{self, Validity},
    records::{Session, said_by},
    resolver::{Noting, Pairs},
};

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// A client may show one. If it does, it has to be good; what a client is that shows none, is for
    /// the handler to decide: see [`TlsFacts::peer_certificate`](crate::TlsFacts::peer_certificate).
    Optional,
    /// A client that shows none is refused.
    Required,
}

/// What a server needs for TLS: certificates and keys, and what clients may or have to do.
///
/// It speaks TLS 1.3 and 1.2. Of the cipher suites that a client offers, the server takes the first of
/// its own: AES-128-GCM, which costs least. Key exchange is X25519, with ML-KEM-768 where the client can
/// do that, or an elliptic curve of NIST. Clients get one ticket each, with which they can come back; keys for tickets
/// change every six hours, and nothing is kept for a client that is gone. There is no early data and no
/// renegotiation.
///
/// A clone is the same; it is cheap.
///
/// # Examples
///
/// ```no_run
/// use nonforker::{Server, Tls, codec::Lines};
///
/// # fn main() -> nonforker::Result<()> {
/// Server::new()
///     .serve("0.0.0.0:6697", Lines::new(), |conn, line| conn.send(line))
///     .tls(Tls::from_files("chain.pem", "key.pem")?)
///     .run()
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// What the config was made of, unless somebody else made it.
    own: Option<Arc<Own>>,
}

#[derive(Clone, Debug)]
struct Own {
    pairs: Vec<Arc<CertifiedKey>>,
    /// What these pairs were read from, in words, and until when their certificates are good.
    names: Vec<(String, Option<Validity>)>,
    alpn: Vec<Vec<u8>>,
    clients: Option<Clients>,
}

/// What clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clients {
    auth: ClientAuth,
    /// Certificates of authorities, as DER.
    roots: Vec<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("own", &self.own).finish_non_exhaustive()
    }
}

/// Who does the cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        #[cfg(feature = "tls")]
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        #[cfg(not(feature = "tls"))]
        let mut provider = rustls::crypto::ring::default_provider();
        // A handshake with SHA-256 takes a quarter less than one with SHA-384.
        provider
            .cipher_suites
            .sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM_SHA256"));
        provider.cipher_suites.sort_by_key(|suite| suite.tls13().is_none());
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

/// Makes tickets, with keys that change every six hours.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    #[cfg(feature = "tls")]
    let made = rustls::crypto::aws_lc_rs::Ticketer::new();
    #[cfg(not(feature = "tls"))]
    let made = rustls::crypto::ring::Ticketer::new();
    made.map_err(said_by)
}

/// A certificate with its key, of two texts in PEM, and from when until when it is good. Files have
/// `names`, for errors.
pub(super) fn pair(
    certificate: &[u8],
    key: &[u8],
    names: Option<&[String; 2]>,
) -> Result<(Arc<CertifiedKey>, Option<Validity>), TlsError> {
    let of = |at: usize, error: TlsError| match names {
        Some(names) => TlsError::new(format!("{}: {error}", names[at])),
        None => error,
    };
    let chain = certificates::certificates(certificate).map_err(|error| of(0, error))?;
    let key = certificates::key(key).map_err(|error| of(1, error))?;
    let validity = chain.first().and_then(|der| certificates::validity(der));
    let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            of(1, TlsError::new("this private key does not belong to the certificate"))
        }
        error => of(1, said_by(error)),
    })?;
    Ok((Arc::new(pair), validity))
}

/// The names of protocols, if they are some.
pub(super) fn protocols<P: AsRef<[u8]>>(
    names: impl IntoIterator<Item = P>,
) -> Result<Vec<Vec<u8>>, TlsError> {
    let names: Vec<_> = names.into_iter().map(|it| it.as_ref().to_vec()).collect();
    if names.iter().any(|name| name.is_empty() || name.len() > 255) {
        return Err(TlsError::new("the name of a protocol has from 1 to 255 bytes"));
    }
    Ok(names)
}

impl Tls {
    /// A certificate with those of its issuers behind it, and its private key, from two files in PEM.
    ///
    /// A certificate that is not good any more, or not yet, is served all the same: clients refuse it,
    /// and a line of the log says so.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be read or has no certificate or no key in it, or if the two do not
    /// belong together.
    pub fn from_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        Self::none()?.and_files(certificate, key)
    }

    /// The same from two texts in PEM.
    ///
    /// # Errors
    ///
    /// Those of [`from_files`](Self::from_files).
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::none()?.and_pem(certificate, key)
    }

    /// A configuration of [rustls](https://docs.rs/rustls) 0.23 as it is: nothing that is said about
    /// [`Tls`] above holds for it.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the library cannot make a connection with it.
    pub fn from_config(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let mut config = Arc::unwrap_or_clone(config);
        config.cert_resolver = Arc::new(Noting(config.cert_resolver));
        let config = Arc::new(config);
        Session::server(&config)?;
        Ok(Self { config, own: None })
    }

    /// Nothing yet.
    fn none() -> Result<Self, TlsError> {
        let own = Own { pairs: Vec::new(), names: Vec::new(), alpn: Vec::new(), clients: None };
        Self::of(own, ticketer()?)
    }

    fn of(own: Own, ticketer: Arc<dyn ProducesTickets>) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(said_by)?;
        let builder = match &own.clients {
            None => builder.with_no_client_auth(),
            Some(Clients { auth, roots }) => {
                let mut store = RootCertStore::empty();
                for root in roots {
                    store.add(root.clone().into()).map_err(said_by)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::Required => verifier,
                };
                let verifier =
                    verifier.build().map_err(|error| TlsError::new(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let pairs = Pairs(own.pairs.clone());
        let mut config = builder.with_cert_resolver(Arc::new(Noting(Arc::new(pairs))));
        config.ignore_client_order = true;
        config.alpn_protocols.clone_from(&own.alpn);
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer;
        Ok(Self { config: Arc::new(config), own: Some(Arc::new(own)) })
    }

    /// The same with another part, and with tickets of the same keys.
    fn changed(self, change: impl FnOnce(&mut Own)) -> Result<Self, TlsError> {
        let Some(own) = self.own else {
            return Err(TlsError::new("a given configuration is taken as it is"));
        };
        let mut own = Arc::unwrap_or_clone(own);
        change(&mut own);
        Self::of(own, Arc::clone(&self.config.ticketer))
    }

    /// One more certificate and key. A client is shown the first certificate that is for the name it
    /// asks for, and the first of all if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`from_files`](Self::from_files). [`TlsError`] for one that was made
    /// [from a configuration](Self::from_config).
    pub fn and_files(
        self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let ([chain, key], names) = certificates::read_both(certificate.as_ref(), key.as_ref())?;
        self.and(&chain, &key, Some(names))
    }

    /// The same from two texts in PEM.
    ///
    /// # Errors
    ///
    /// Those of [`and_files`](Self::and_files).
    pub fn and_pem(self, certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        self.and(certificate, key, None)
    }

    fn and(
        self,
        certificate: &[u8],
        key: &[u8],
        names: Option<[String; 2]>,
    ) -> Result<Self, TlsError> {
        let (pair, validity) = pair(certificate, key, names.as_ref())?;
        let name = names.map_or_else(|| "the certificate".to_owned(), |[name, _]| name);
        self.changed(|own| {
            own.pairs.push(pair);
            own.names.push((name, validity));
        })
    }

    /// The protocols that this server speaks inside of TLS, the preferred ones first: `"h2"`. A client
    /// that offers some, but none of these, is refused. A client that offers none is served.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a name is empty or longer than 255 bytes, or for one that was made
    /// [from a configuration](Self::from_config).
    pub fn alpn<P: AsRef<[u8]>>(
        self,
        names: impl IntoIterator<Item = P>,
    ) -> Result<Self, TlsError> {
        let protocols = protocols(names)?;
        self.changed(|own| own.alpn = protocols)
    }

    /// Has clients show a certificate of an authority in this file, in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the file cannot be read or has no certificate in it, or for one that was made
    /// [from a configuration](Self::from_config).
    pub fn client_auth(
        self,
        auth: ClientAuth,
        authorities: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let path = authorities.as_ref();
        let pem = certificates::read(path)?;
        self.client_auth_pem(auth, &pem)
            .map_err(|error| TlsError::new(format!("{}: {error}", path.display())))
    }

    /// The same from a text in PEM.
    ///
    /// # Errors
    ///
    /// Those of [`client_auth`](Self::client_auth).
    pub fn client_auth_pem(self, auth: ClientAuth, authorities: &[u8]) -> Result<Self, TlsError> {
        let roots = certificates::certificates(authorities)?;
        let roots = roots.into_iter().map(|root| root.to_vec()).collect();
        self.changed(|own| own.clients = Some(Clients { auth, roots }))
    }

    /// Says of each certificate that it is not good now, if so.
    ///
    /// It looks at the system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "certificates are good at times of the world")]
    pub fn warnings(&self) -> Vec<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let names = self.own.iter().flat_map(|own| &own.names);
        let warning = |(name, validity): &(String, Option<Validity>)| match validity {
            Some((_, until)) if *until < now => Some(format!("{name} has expired")),
            Some((from, _)) if now < *from => Some(format!("{name} is not good yet")),
            _ => None,
        };
        names.filter_map(warning).collect()
    }

    /// Logs what [`warnings`](Self::warnings) says.
    pub(crate) fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}: clients will refuse it");
        }
    }

    /// This one in place of `former`: clients with tickets of that can come back, unless other clients
    /// may come now.
    pub(crate) fn in_place_of(self, former: &Self) -> Self {
        let (Some(own), Some(before)) = (&self.own, &former.own) else { return self };
        if own.clients != before.clients {
            return self;
        }
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::clone(&former.config.ticketer);
        Self { config: Arc::new(config), own: self.own }
    }

    /// The server's side of a new connection.
    pub(crate) fn server(&self) -> Result<Session, TlsError> {
        Session::server(&self.config)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}
