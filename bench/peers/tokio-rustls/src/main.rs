//! Newline echo over TLS, by hand over tokio: a task per connection, one thread, a write per read.

#[path = "../../lines.rs"]
mod lines;

use std::{env, error::Error, io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let [certificate, key] = [2, 3].map(|nth| env::args().nth(nth).expect("PORT CERTIFICATE KEY"));
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut provider = aws_lc_rs::default_provider();
    // The same as the others choose.
    provider.cipher_suites.retain(|suite| {
        *suite == aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
            || suite.tls13().is_none()
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.send_tls13_tickets = 1;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(lines::address()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(acceptor.clone(), stream));
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    let mut seen = 0;
    while stream.read_buf(&mut input).await? > 0 {
        let used = lines::echo(&input, seen, &mut output);
        input.drain(..used);
        seen = input.len();
        if seen > lines::LINE_MAX {
            break;
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            stream.flush().await?;
            output.clear();
        }
    }
    stream.shutdown().await
}
