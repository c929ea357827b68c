//! Lines come back, encrypted. It needs a certificate and its key, in PEM:
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! cargo run --features tls --example tls_echo -- 127.0.0.1:1686 cert.pem key.pem
//! openssl s_client -quiet -connect 127.0.0.1:1686 -servername localhost -CAfile cert.pem
//! ```
//!
//! `who am i` is answered with what the two sides agreed on.

use nonforker::{Server, Tls, codec::Lines};

fn main() -> nonforker::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:1686".into());
    let certificate = arguments.next().unwrap_or_else(|| "cert.pem".into());
    let key = arguments.next().unwrap_or_else(|| "key.pem".into());
    Server::new()
        .serve(address, Lines::new(), |conn, line| {
            if line != b"who am i" {
                return conn.send(line);
            }
            let text = conn.tls().map(|tls| {
                let name = tls.server_name().unwrap_or("nobody");
                format!("a client of {name}, over {} with {}", tls.version(), tls.cipher_suite())
            });
            conn.send(text.unwrap_or_default());
        })
        .tls(Tls::from_files(certificate, key)?)
        .drain_on_signals()
        .run()
}
