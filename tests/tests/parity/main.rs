//! The engine over the simulated network and over real sockets, with each driver: what a handler
//! and a client see is the same.

mod conversations;
mod states;
mod worlds;

use std::io::{self, Write};

use nonforker::{DriverKind, Error, Server, codec::Lines};

/// Whether this system has `driver`. If not, that is said.
fn has(driver: DriverKind, what: &str) -> bool {
    let server = Server::new().driver(driver).serve("127.0.0.1:0", Lines::new(), |_, _| {});
    let Err(missing @ Error::NoUring(_)) = server.bind() else { return true };
    // Past the test harness, which keeps the output of tests that pass to itself.
    let _ = writeln!(io::stderr(), "skipped: {what} on {driver:?}: {missing}");
    false
}
