//! The `nonforker` program.

use nonforker::{Server, codec::Lines};

fn main() -> nonforker::Result<()> {
    Server::new()
        .serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
        .drain_on_signals()
        .run()
}
