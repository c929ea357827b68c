//! Shows what the library logs. It logs with `tracing`, and nothing is seen without a subscriber.

use nonforker::{Server, codec::Lines};
use tracing_subscriber::fmt;

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());

    // At debug each connection is a line or two; info and above is what to run with.
    fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();

    Server::new()
        .serve(address, Lines::new(), |conn, line: &[u8]| {
            // Of the handler's own, in the same log. `?` writes out what could steer a terminal.
            tracing::info!(peer = %conn.peer(), line = ?String::from_utf8_lossy(line), "a line");
            conn.send(line);
        })
        .drain_on_signals()
        .run()
}
