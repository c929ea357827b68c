//! TLS in a simulation: the protocol is real, and each run of a seed has the same bytes.
//!
//! What a library draws at random comes from a stream that begins with the seed; the key exchange is a
//! sham that keeps nothing secret; the certificate is signed with Ed25519, whose signatures depend on
//! nothing but the key; and the time for certificates stands still. So none of this is for a server that
//! somebody else can reach.

use std::{
    cell::{Cell, RefCell},
    fmt,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, Error, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
        SupportedKxGroup,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use super::{Client, Net, Rng};
use crate::{ClientTls, Tls, TlsError, tls::provider};

/// The name for which the [server's](server) certificate is.
const NAME: &str = "server.test";

/// A day in the time of the certificate, in seconds of Unix time.
const NOW: u64 = 1_900_000_000;

thread_local! {
    /// What is random in the present run.
    static RANDOM: RefCell<Rng> = RefCell::new(Rng::new(0));
}

/// A run begins.
pub(super) fn begin(seed: u64) {
    RANDOM.set(Rng::new(seed ^ 0x715));
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        RANDOM.with_borrow(|random| {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            }
        });
        Ok(())
    }
}

/// A key exchange whose secret is the exclusive or of what both sides show.
#[derive(Debug)]
struct Sham;

struct ShamStarted([u8; 32]);

impl SupportedKxGroup for Sham {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut own = [0; 32];
        Seeded.fill(&mut own)?;
        Ok(Box::new(ShamStarted(own)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for ShamStarted {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        if peer.len() != self.0.len() {
            return Err(Error::General("a key of another length".to_owned()));
        }
        let both: Vec<u8> = self.0.iter().zip(peer).map(|(own, other)| own ^ other).collect();
        Ok(SharedSecret::from(both))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }
}

fn sham() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![&Sham],
        secure_random: &Seeded,
        ..CryptoProvider::clone(&provider())
    })
}

fn certificate() -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(include_bytes!("certificate.pem"))
        .map_err(|error| TlsError::new(error.to_string()))
}

/// What a simulated server needs for TLS, for [`Server::tls`](crate::Server::tls).
///
/// # Errors
///
/// None: it says so where a [`Tls`] of files would.
pub fn server() -> Result<Tls, TlsError> {
    Tls::from_config(server_config()?)
}

/// What a simulated server needs to be a client of TLS, for [`Target::tls`](crate::Target::tls): it
/// trusts the certificate that [a server of the script](TlsClient::accepting) shows.
///
/// # Errors
///
/// None: it says so where a [`ClientTls`] of files would.
pub fn client() -> Result<ClientTls, TlsError> {
    ClientTls::from_config(Arc::new(client_config(rustls::ALL_VERSIONS)?)).server_name(NAME)
}

fn client_config(versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig, TlsError> {
    let text = |error: &dyn fmt::Display| TlsError::new(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(certificate()?).map_err(|error| text(&error))?;
    let config = ClientConfig::builder_with_details(sham(), Arc::new(Still))
        .with_protocol_versions(versions)
        .map_err(|error| text(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn server_config() -> Result<Arc<ServerConfig>, TlsError> {
    let text = |error: &dyn fmt::Display| TlsError::new(error.to_string());
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("key.pem"));
    let key = key.map_err(|error| text(&error))?;
    let mut config = ServerConfig::builder_with_details(sham(), Arc::new(Still))
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate()?], key)
        .map_err(|error| text(&error))?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A client of a simulated server behind TLS.
///
/// # Examples
///
/// ```
/// use nonforker::{Server, codec::Lines, sim::{Simulation, tls}};
///
/// let server = || {
///     let tls = tls::server().expect("it is always the same");
///     Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line)).tls(tls)
/// };
/// Simulation::new(server).seeds(0..10).run(|net| {
///     let client = tls::TlsClient::new(net.connect());
///     client.send("hello\n");
///     client.settle(net);
///     assert_eq!(client.plain(), b"hello\n");
/// });
/// ```
pub struct TlsClient {
    /// The connection under it, for what a client of TLS does not do.
    client: Client,
    tls: RefCell<Connection>,
    /// So many of the next bytes that come are no records.
    clear: Cell<usize>,
    plain: RefCell<Vec<u8>>,
    failed: RefCell<Option<String>>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("client", &self.client).finish_non_exhaustive()
    }
}

impl TlsClient {
    /// Over a connection that is there. Nothing is sent yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::of_versions(client, rustls::ALL_VERSIONS)
    }

    /// The same for TLS 1.2.
    #[must_use]
    pub fn older(client: Client) -> Self {
        Self::of_versions(client, &[&rustls::version::TLS12])
    }

    /// Over a connection that begins in clear: the first `clear` bytes that come are no records.
    #[must_use]
    pub fn behind(client: Client, clear: usize) -> Self {
        let this = Self::new(client);
        this.clear.set(clear);
        this
    }

    fn of_versions(client: Client, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let config = client_config(versions).expect("it is always the same");
        let name = ServerName::try_from(NAME).expect("it is a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("the config is good");
        Self::of(client, tls.into())
    }

    /// The other way round: a server behind TLS at the other end of a connection that the simulated server
    /// has [made](super::Listener::accept).
    ///
    /// # Panics
    ///
    /// Never: certificate and key are always the same.
    #[must_use]
    pub fn accepting(client: Client) -> Self {
        let config = server_config().expect("it is always the same");
        Self::of(client, ServerConnection::new(config).expect("the config is good").into())
    }

    fn of(client: Client, mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        let (clear, plain) = (Cell::new(0), RefCell::default());
        Self { client, tls: tls.into(), clear, plain, failed: RefCell::default() }
    }

    /// The connection under it.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What TLS has to send, and has not sent.
    pub fn records(&self) -> Vec<u8> {
        let (mut tls, mut records) = (self.tls.borrow_mut(), Vec::new());
        while tls.wants_write() && tls.write_tls(&mut records).is_ok() {}
        records
    }

    /// The records of some bytes, with what TLS has to send before them. While the handshake is under
    /// way they wait for its end.
    pub fn seal(&self, plain: impl AsRef<[u8]>) -> Vec<u8> {
        let _ = self.tls.borrow_mut().writer().write_all(plain.as_ref());
        self.records()
    }

    /// Sends some bytes.
    pub fn send(&self, plain: impl AsRef<[u8]>) {
        self.client.send(self.seal(plain));
    }

    /// Says that nothing more comes.
    pub fn close_notify(&self) {
        self.tls.borrow_mut().send_close_notify();
        self.client.send(self.records());
    }

    /// Changes the keys of what it sends. Not before the handshake is done.
    pub fn update_keys(&self) {
        let _ = self.tls.borrow_mut().refresh_traffic_keys();
    }

    /// Takes in what came, and sends what TLS has to say about it. Returns whether anything came.
    pub fn go_on(&self) -> bool {
        let received = self.client.received();
        let clear = self.clear.get().min(received.len());
        self.clear.set(self.clear.get() - clear);
        let mut bytes = &received[clear..];
        let came = !received.is_empty();
        let mut tls = self.tls.borrow_mut();
        while !bytes.is_empty() && self.failed.borrow().is_none() {
            match tls.read_tls(&mut bytes) {
                Ok(1..) => {}
                // It takes none behind the end.
                Ok(0) => {
                    let what = format!("{} bytes behind the end", bytes.len());
                    *self.failed.borrow_mut() = Some(what);
                    break;
                }
                Err(_) => break,
            }
            // Behind its own close_notify the library asserts that no record is broken.
            let state = catch_unwind(AssertUnwindSafe(|| tls.process_new_packets().map(drop)));
            let mut plain = [0; 4096];
            while let Ok(count @ 1..) = tls.reader().read(&mut plain) {
                self.plain.borrow_mut().extend_from_slice(&plain[..count]);
            }
            let failed = match state {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the library panicked".to_owned()),
            };
            *self.failed.borrow_mut() = failed;
        }
        drop(tls);
        let records = self.records();
        if !records.is_empty() {
            self.client.send(records);
        }
        came
    }

    /// Goes on until nothing has come for a minute.
    pub fn settle(&self, net: &Net) {
        const SILENCE: u32 = 60;
        let mut silent = 0;
        while silent < SILENCE {
            silent = if self.go_on() { 0 } else { silent + 1 };
            net.wait(Duration::from_secs(1));
        }
    }

    /// Every byte that came, decrypted.
    #[must_use]
    pub fn plain(&self) -> Vec<u8> {
        self.plain.borrow().clone()
    }

    /// What is wrong with what came, if anything is: an alert, for example.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn shakes(&self) -> bool {
        self.tls.borrow().is_handshaking()
    }

    /// Whether the server has said that nothing more comes: its close_notify came.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let has_failed = self.failed.borrow().is_some();
        !has_failed
            && self.tls.borrow_mut().process_new_packets().is_ok_and(|it| it.peer_has_closed())
    }
}
