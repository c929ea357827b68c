//! What a server needs to be a client of TLS: whom it trusts, and who it is.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::ResolvesClientCert,
    pki_types::ServerName,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    TlsError, certificates,
    config::{pair, protocols, provider},
    records::{Session, said_by},
};

/// What a connection that this server makes needs for TLS: whose certificates it trusts, and what it shows
/// itself. A target `tls://name:port` has one that trusts the authorities of the system;
/// [`Target::tls`](crate::Target::tls) gives a target another one.
///
/// It speaks TLS 1.3 and 1.2. The certificate of the other server has to be for the name in the target,
/// or for the address, if the target has no name. Sessions are resumed where the other server lets them:
/// up to 256 are remembered, and clones remember the same.
///
/// A clone is the same; it is cheap.
///
/// # Examples
///
/// ```no_run
/// use nonforker::{ClientTls, Server, Target};
///
/// # fn main() -> nonforker::Result<()> {
/// let tls = ClientTls::from_authorities("ca.pem")?.certificate("client.pem", "client-key.pem")?;
/// let target = "10.0.0.1:6380".parse::<Target>()?.tls(tls.server_name("redis.internal")?)?;
/// Server::new().relay("127.0.0.1:6379", target).run()
/// # }
/// ```
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// What the config was made of, unless somebody else made it.
    own: Option<Arc<Own>>,
    /// Whose certificate it is to be, if not that of the target's host.
    name: Option<ServerName<'static>>,
}

#[derive(Clone, Debug)]
struct Own {
    roots: Arc<RootCertStore>,
    alpn: Vec<Vec<u8>>,
    pair: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("own", &self.own.is_some())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts the authorities that the system trusts: on Linux those in the files and folders that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or else where distributions have them. They are read the
    /// first time, for the whole process.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the system has none.
    pub fn from_system() -> Result<Self, TlsError> {
        static SYSTEM: OnceLock<Result<ClientTls, TlsError>> = OnceLock::new();
        let load = || {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = found.errors.first().map(|error| format!(": {error}"));
                let why = why.unwrap_or_default();
                return Err(TlsError::new(format!("the system has no authorities{why}")));
            }
            Self::trusting(roots)
        };
        SYSTEM.get_or_init(load).clone()
    }

    /// Trusts the authorities in this file, in PEM, and no others.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the file cannot be read or has no certificate in it.
    pub fn from_authorities(file: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = file.as_ref();
        let pem = certificates::read(path)?;
        Self::from_authorities_pem(&pem)
            .map_err(|error| TlsError::new(format!("{}: {error}", path.display())))
    }

    /// The same from a text in PEM.
    ///
    /// # Errors
    ///
    /// Those of [`from_authorities`](Self::from_authorities).
    pub fn from_authorities_pem(authorities: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates::certificates(authorities)? {
            roots.add(root).map_err(said_by)?;
        }
        Self::trusting(roots)
    }

    /// A configuration of [rustls](https://docs.rs/rustls) 0.23 as it is: nothing that is said about
    /// [`ClientTls`] above holds for it, but for the name.
    #[must_use]
    pub const fn from_config(config: Arc<ClientConfig>) -> Self {
        Self { config, own: None, name: None }
    }

    fn trusting(roots: RootCertStore) -> Result<Self, TlsError> {
        Self::of(Own { roots: Arc::new(roots), alpn: Vec::new(), pair: None }, None)
    }

    fn of(own: Own, name: Option<ServerName<'static>>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(said_by)?
            .with_root_certificates(Arc::clone(&own.roots));
        let mut config = match &own.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let shown: Arc<dyn ResolvesClientCert> =
                    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(pair)));
                builder.with_client_cert_resolver(shown)
            }
        };
        config.alpn_protocols.clone_from(&own.alpn);
        Ok(Self { config: Arc::new(config), own: Some(Arc::new(own)), name })
    }

    /// The same with another part.
    fn changed(self, change: impl FnOnce(&mut Own)) -> Result<Self, TlsError> {
        let Some(own) = self.own else {
            return Err(TlsError::new("a given configuration is taken as it is"));
        };
        let mut own = Arc::unwrap_or_clone(own);
        change(&mut own);
        Self::of(own, self.name)
    }

    /// The protocols that this client speaks inside of TLS (ALPN), the preferred ones first: `"h2"`. A
    /// server that speaks none of them may refuse; [`Conn::tls`](crate::Conn::tls) says which one it chose.
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

    /// What is shown to a server that wants a certificate of its clients: one with those of its issuers
    /// behind it, and its private key, from two files in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be read or has no certificate or no key in it, if the two do not
    /// belong together, or for one that was made [from a configuration](Self::from_config).
    pub fn certificate(
        self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let ([chain, key], names) = certificates::read_both(certificate.as_ref(), key.as_ref())?;
        let (pair, _) = pair(&chain, &key, Some(&names))?;
        self.changed(|own| own.pair = Some(pair))
    }

    /// The same from two texts in PEM.
    ///
    /// # Errors
    ///
    /// Those of [`certificate`](Self::certificate).
    pub fn certificate_pem(self, certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let (pair, _) = pair(certificate, key, None)?;
        self.changed(|own| own.pair = Some(pair))
    }

    /// The name for which the other server's certificate has to be, and that it is asked for (SNI), in
    /// place of the host of the target. An IP address will do, and is not asked for.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if it is no name.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.name = Some(name_of(name)?);
        Ok(self)
    }

    /// Whether it has a name of its own.
    pub(crate) const fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// The client's side of a new connection to the host of this name.
    pub(super) fn session(&self, host: &str) -> Result<Session, TlsError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of(host)?,
        };
        Session::client(&self.config, name)
    }
}

/// Whether a certificate can be for this name.
pub(crate) fn check_name(host: &str) -> Result<(), TlsError> {
    name_of(host).map(|_| ())
}

/// A name as certificates have it: without the dot that ends it.
fn name_of(host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| TlsError::new(format!("{host:?} is no name that a certificate can be for")))
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for ClientTls {}
