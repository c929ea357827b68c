//! TLS over a connection of the load, by rustls: the server's certificate is not looked at.
//!
//! Who loads a server has it at hand, often with a certificate that only tests know.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::Socket;

/// The name that is asked for where the address has none: servers with several certificates choose by it.
const NAME: &str = "localhost";

/// How connections begin.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Handshakes are full ones: none goes on with the session of another.
    pub(crate) fn new() -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Anybody(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = config.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands over a socket, and waits for each step for at most `timeout`. Nothing is waited for
    /// behind that.
    pub(crate) fn begin(&self, socket: Socket, timeout: Duration) -> io::Result<Session> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let records = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        let mut session = Session { records, socket };
        while session.records.is_handshaking() {
            session.records.complete_io(&mut session.socket).map_err(in_time)?;
        }
        session.socket.set_nonblocking(true)?;
        Ok(session)
    }
}

/// A socket that was waited for in vain says that it would block.
fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => {
            io::Error::new(ErrorKind::TimedOut, "the server does not end the handshake in time")
        }
        _ => error,
    }
}

/// A connection, and its session.
#[derive(Debug)]
pub(crate) struct Session {
    records: ClientConnection,
    socket: Socket,
}

impl Session {
    /// Writes the records that are made.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        while self.records.wants_write() {
            self.records.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.settle()?;
        let taken = self.records.writer().write(bytes)?;
        match self.settle() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(taken),
            settled => settled.map(|()| taken),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.records.reader().read(buffer) {
                // There is no whole record.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.records.read_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let processed = self.records.process_new_packets();
            // A key update is answered.
            let settled = self.settle();
            processed.map_err(io::Error::other)?;
            match settled {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Takes every certificate, if its owner signs with it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
