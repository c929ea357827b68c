//! The example `key_value` with a choice of the driver: `PORT poll|uring`.

#[path = "../../../../../nonforker/examples/key_value.rs"]
#[allow(dead_code, reason = "it has a main of its own")]
mod example;

use nonforker::{DriverKind, Server, codec::Resp};

fn main() -> nonforker::Result<()> {
    let mut args = std::env::args().skip(1);
    let port = args.next().unwrap_or_else(|| "1685".into());
    let driver = match args.next().as_deref() {
        Some("uring") => DriverKind::Uring,
        _ => DriverKind::Poll,
    };
    let server = Server::new().driver(driver).drain_on_signals();
    let resp = Resp::with_max(1024 * 1024);
    server.serve_with(format!("127.0.0.1:{port}"), resp, example::Store::default()).run()
}
