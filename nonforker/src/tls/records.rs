//! Records by rustls 0.23, over its API without buffers.
//!
//! Three habits of it are dealt with here:
//!
//! - It decrypts where the bytes lie, and then copies the plaintext into a vector of its own.
//! - Parts of a handshake message that came in several records stay where they lie, and have to be
//!   shown again at the same place with each call: also with those that only seal. It would panic
//!   without them, and a peer can send such parts at any time.
//! - What it has to say goes out in the order in which it took numbers for records: before anything
//!   that is sealed later.
//!
//! It panics in two cases that a peer can bring about, and what it panics with is the end of that connection:
//!
//! - After an encrypted record of a handshake without bytes it wants to see that again with each call, and
//!   nobody can know that it does.
//! - It asserts, in builds for development, that it sends one alert. A peer that breaks the rules after we
//!   have finished makes it send a second one.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rustls::{
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
    },
};

use super::{RECORD_MAX, Records, TlsError, Took, facts::Agreed, resolver};

/// What a record takes beside its plaintext, at most: TLS 1.2 with AES-GCM takes 29 bytes, with a
/// header.
const OVERHEAD: usize = 64;

/// A TLS connection of either side.
pub(crate) struct Session {
    side: Side,
    /// The name that the client asked for, if it did: we, on our own connections.
    server_name: Option<Box<str>>,
}

/// The boxes are as large as the library wants them.
enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn server(config: &Arc<rustls::ServerConfig>) -> Result<Self, TlsError> {
        let server = UnbufferedServerConnection::new(Arc::clone(config)).map_err(said_by)?;
        Ok(Self { side: Side::Server(Box::new(server)), server_name: None })
    }

    pub(super) fn client(
        config: &Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, TlsError> {
        let server_name = match &name {
            ServerName::DnsName(name) => Some(name.as_ref().into()),
            _ => None,
        };
        let client = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(said_by)?;
        Ok(Self { side: Side::Client(Box::new(client)), server_name })
    }

    /// What the two sides agreed on.
    pub(crate) fn agreed(&self) -> Agreed<'_> {
        let state = self.state();
        Agreed {
            version: state.protocol_version(),
            suite: state.negotiated_cipher_suite().map(|suite| suite.suite()),
            alpn: state.alpn_protocol(),
            server_name: self.server_name.as_deref(),
            chain: state.peer_certificates().unwrap_or_default(),
            kind: state.handshake_kind(),
        }
    }

    fn state(&self) -> &rustls::CommonState {
        match &self.side {
            Side::Server(server) => server,
            Side::Client(client) => client,
        }
    }
}

/// What a step of the library led to.
enum Step {
    /// It has said something, and goes on.
    Said,
    /// The plaintext of a record was appended.
    Plain,
    Ended,
    /// It has taken what it can, and can seal: then this was done.
    Ready,
    /// It has taken what it can, and cannot seal.
    Blocked,
}

/// What to seal, when the library is ready.
enum Sealing<'a> {
    Nothing,
    Plain(&'a [u8]),
    CloseNotify,
}

/// Carries one state of the library out.
fn carry_out<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    said: &mut Vec<u8>,
    plain: &mut Vec<u8>,
    sealing: &Sealing<'_>,
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(said_by(error)),
        Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
            encode(&mut chunk, said).map(|()| Step::Said)
        }
        Ok(ConnectionState::TransmitTlsData(chunks)) => {
            chunks.done();
            Ok(Step::Said)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
                Some(Err(error)) => break Err(said_by(error)),
                None => break Ok(Step::Plain),
            }
        },
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let sealed = match sealing {
                Sealing::Nothing => Ok(()),
                Sealing::Plain(bytes) => {
                    let records = bytes.len() / RECORD_MAX + 1;
                    let room = bytes.len() + records * OVERHEAD;
                    write(&mut traffic, said, room, |traffic, out| traffic.encrypt(bytes, out))
                }
                Sealing::CloseNotify => {
                    write(&mut traffic, said, OVERHEAD, |it, out| it.queue_close_notify(out))
                }
            };
            sealed.map(|()| Step::Ready)
        }
        // Early data is never agreed to. What else there may be one day is not known here.
        Ok(_) => Ok(Step::Blocked),
    };
    (discard, step)
}

/// Has something written behind what is there, into as much room as it needs.
fn write<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    into: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut WriteTraffic<'_, Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let at = into.len();
    for _ in 0..2 {
        into.resize(at + room, 0);
        match write(traffic, &mut into[at..]) {
            Ok(count) => {
                into.truncate(at + count);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(needs)) => room = needs.required_size,
            Err(EncryptError::EncryptExhausted) => break,
        }
    }
    into.truncate(at);
    Err(TlsError::new("too many records were encrypted with one key"))
}

fn encode<Data>(chunk: &mut EncodeTlsData<'_, Data>, said: &mut Vec<u8>) -> Result<(), TlsError> {
    let at = said.len();
    let mut room = 512;
    loop {
        said.resize(at + room, 0);
        match chunk.encode(&mut said[at..]) {
            Ok(count) => {
                said.truncate(at + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needs)) if needs.required_size > room => {
                room = needs.required_size;
            }
            Err(error) => {
                said.truncate(at);
                return Err(TlsError::new(error.to_string()));
            }
        }
    }
}

impl Session {
    /// One step of the library.
    fn step(
        &mut self,
        input: &mut [u8],
        said: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        sealing: &Sealing<'_>,
    ) -> (usize, Result<Step, TlsError>) {
        match &mut self.side {
            Side::Server(server) => {
                carry_out(server.process_tls_records(input), said, plain, sealing)
            }
            Side::Client(client) => {
                carry_out(client.process_tls_records(input), said, plain, sealing)
            }
        }
    }

    /// Has the library say what it has to say, and then seal.
    fn seal_after_all(
        &mut self,
        joined: &mut [u8],
        into: &mut Vec<u8>,
        sealing: &Sealing<'_>,
    ) -> Result<(), TlsError> {
        loop {
            let (used, step) = self.step(joined, into, &mut Vec::new(), sealing);
            debug_assert_eq!(used, 0, "nothing that was joined is new");
            match step? {
                Step::Said => {}
                Step::Ready => return Ok(()),
                Step::Plain | Step::Ended | Step::Blocked => {
                    return Err(TlsError::new("nothing can be sealed now"));
                }
            }
        }
    }

    fn receive_records(
        &mut self,
        input: &mut [u8],
        said: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Took, TlsError> {
        let shook = self.shakes();
        let mut took = Took::default();
        loop {
            let rest = input.get_mut(took.used..).unwrap_or_default();
            let (used, step) = self.step(rest, said, plain, &Sealing::Nothing);
            took.used += used;
            if shook && let Some(name) = resolver::take_asked_for() {
                self.server_name = Some(name);
            }
            match step {
                Ok(Step::Said) if shook && !self.shakes() && !self.state().wants_write() => {
                    return Ok(took);
                }
                Ok(Step::Said) => {}
                Ok(Step::Plain) => return Ok(took),
                Ok(Step::Ended) => return Ok(Took { has_ended: true, ..took }),
                Ok(Step::Ready | Step::Blocked) => return Ok(Took { is_blocked: true, ..took }),
                Err(error) => {
                    // An alert, if there is one. Only while there is something to say is nothing read.
                    while self.state().wants_write() {
                        let (_, step) = self.step(&mut [], said, plain, &Sealing::Nothing);
                        if !matches!(step, Ok(Step::Said)) {
                            break;
                        }
                    }
                    return Err(error);
                }
            }
        }
    }
}

impl Records for Session {
    fn receive(
        &mut self,
        input: &mut [u8],
        said: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Took, TlsError> {
        survive(|| self.receive_records(input, said, plain))
    }

    fn seal(
        &mut self,
        joined: &mut [u8],
        plain: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        survive(|| self.seal_after_all(joined, into, &Sealing::Plain(plain)))
    }

    fn finish(&mut self, joined: &mut [u8], into: &mut Vec<u8>) {
        // Where the library cannot say it, the connection has failed.
        let _ = survive(|| self.seal_after_all(joined, into, &Sealing::CloseNotify));
    }

    fn shakes(&self) -> bool {
        self.state().is_handshaking()
    }
}

/// What the library panics with is the end of that connection.
fn survive<T>(call: impl FnOnce() -> Result<T, TlsError>) -> Result<T, TlsError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(TlsError::new("the library panicked")))
}

/// What the library said, in words.
pub(super) fn said_by(error: rustls::Error) -> TlsError {
    let said = error.to_string();
    // For these it has a name and no words.
    let words = match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            ": no authority that is trusted has issued it"
        }
        _ if said.contains("CaUsedAsEndEntity") => ": it is an authority's, and not a server's",
        _ => "",
    };
    TlsError::new(said + words)
}
