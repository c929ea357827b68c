//! The smallest server: every line comes back. Try it with `nc 127.0.0.1 1685`.

use nonforker::{Server, codec::Lines};

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new()
        .serve(address, Lines::new(), |conn, line| conn.send(line))
        .drain_on_signals()
        .run()
}
