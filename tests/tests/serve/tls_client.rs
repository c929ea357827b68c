//! A client of a server behind TLS, and a server for it to call, which can do with their records what they
//! like; and certificates.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use nonforker::{Address, Tls};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use socket2::Socket;

use crate::client::Client;

/// The cryptography that the library was built with.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls")]
    use rustls::crypto::aws_lc_rs as built_with;
    #[cfg(not(feature = "tls"))]
    use rustls::crypto::ring as built_with;
    Arc::new(built_with::default_provider())
}

/// An authority that signs certificates for tests.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

impl Pair {
    pub(crate) fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Authorities of one name would be taken for each other.
        let name = format!("{:x?}", &key.public_key_raw()[..16]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it signs itself");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names, changed by `change` before it is signed.
    pub(crate) fn signs(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        Pair { certificate, key }
    }

    /// What a server for these names needs.
    pub(crate) fn tls(&self, names: &[&str]) -> Tls {
        let (certificate, key) = self.signs(names, |_| ()).pem();
        Tls::from_pem(certificate.as_bytes(), key.as_bytes()).expect("they belong together")
    }

    /// How a client that trusts this authority is set up.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("it is one");
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("these versions")
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from(pair.certificate.der().to_vec())];
                let key = PrivateKeyDer::try_from(pair.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        }
    }
}

impl Pair {
    /// How a server that shows it is set up.
    pub(crate) fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from(self.certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("these versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("they belong together"))
    }
}

/// A TLS connection, of a client unless it was accepted.
pub(crate) struct TlsClient {
    pub(crate) raw: Client,
    pub(crate) tls: Connection,
    received: Vec<u8>,
    failed: Option<rustls::Error>,
}

impl TlsClient {
    pub(crate) fn connect(address: &Address, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::over(Client::connect(address), config, name)
    }

    /// Over a connection that is there, before anything of the handshake.
    pub(crate) fn over(raw: Client, config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a good name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a good config");
        Self::of(raw, tls.into())
    }

    /// The other end of a connection that the server under test has made.
    pub(crate) fn accepted(listener: &Socket, config: &Arc<ServerConfig>) -> Self {
        let tls = ServerConnection::new(Arc::clone(config)).expect("a good config");
        Self::of(Client::accepted(listener), tls.into())
    }

    fn of(raw: Client, mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { raw, tls, received: Vec::new(), failed: None }
    }

    /// What TLS wants to send.
    pub(crate) fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("a vector takes it");
        }
        records
    }

    /// The records of `plain`.
    pub(crate) fn seal(&mut self, plain: impl AsRef<[u8]>) -> Vec<u8> {
        self.tls.writer().write_all(plain.as_ref()).expect("a vector takes it");
        self.records()
    }

    pub(crate) fn send(&mut self, plain: impl AsRef<[u8]>) {
        let records = self.seal(plain);
        self.raw.send(records);
    }

    /// Sends what is to be sent, and takes in what comes. Returns whether anything came.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let records = self.records();
        self.raw.try_send(&records)?;
        let mut bytes = self.raw.take_received();
        if bytes.is_empty() {
            bytes.resize(16 * 1024, 0);
            let count = (&self.raw.socket).read(&mut bytes)?;
            bytes.truncate(count);
        }
        let (count, mut bytes) = (bytes.len(), &bytes[..]);
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets();
            // What came before an alert is there.
            let mut plain = [0; 16 * 1024];
            while let Ok(count @ 1..) = self.tls.reader().read(&mut plain) {
                self.received.extend_from_slice(&plain[..count]);
            }
            if let Err(error) = state {
                self.failed = Some(error);
                break;
            }
        }
        Ok(count > 0)
    }

    /// Completes the handshake.
    pub(crate) fn shake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            if !self.step()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let records = self.records();
        self.raw.try_send(&records)
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=at).collect();
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            let came = self.step().unwrap_or_else(|error| panic!("no line comes: {error}"));
            assert!(came, "the connection ended in {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            let came = self.step().unwrap_or_else(|error| panic!("no bytes come: {error}"));
            assert!(came, "the connection ended after {} bytes", self.received.len());
        }
        self.received.drain(..count).collect()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send([line, "\n"].concat());
        self.line()
    }

    /// Everything to the end of the stream, and whether a close_notify came.
    pub(crate) fn try_rest(&mut self) -> io::Result<(Vec<u8>, bool)> {
        while self.step()? {}
        let has_ended = self.tls.process_new_packets().is_ok_and(|state| state.peer_has_closed());
        Ok((std::mem::take(&mut self.received), has_ended))
    }

    /// Everything to the end of the stream, which a close_notify announced.
    pub(crate) fn rest(&mut self) -> String {
        let (rest, has_ended) = self.try_rest().expect("an orderly end");
        assert!(has_ended, "no close_notify came");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Says that nothing more comes, and no more.
    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
        let records = self.records();
        self.raw.send(records);
    }
}
