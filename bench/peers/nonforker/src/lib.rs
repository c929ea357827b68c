//! What all these programs take: `PORT poll|uring`, and perhaps a word more.

use std::env;

use nonforker::{DriverKind, Server};

/// A server with the driver that was asked for, its address, and the word behind that.
#[must_use]
pub fn asked_for() -> (Server, String, Option<String>) {
    let mut args = env::args().skip(1);
    let port = args.next().unwrap_or_else(|| "1685".into());
    let driver = match args.next().as_deref() {
        Some("uring") => DriverKind::Uring,
        _ => DriverKind::Poll,
    };
    let server = Server::new().driver(driver).drain_on_signals();
    (server, format!("127.0.0.1:{port}"), args.next())
}
