//! Each line to every connection, with nonforker: `PORT poll|uring`.

use nonforker::{DriverKind, Server, codec::Lines};

fn main() -> nonforker::Result<()> {
    let mut args = std::env::args().skip(1);
    let port = args.next().unwrap_or_else(|| "1685".into());
    let driver = match args.next().as_deref() {
        Some("uring") => DriverKind::Uring,
        _ => DriverKind::Poll,
    };
    let server = Server::new().driver(driver).drain_on_signals();
    server
        .serve(format!("127.0.0.1:{port}"), Lines::new(), |conn, line| {
            conn.send(line);
            conn.others().for_each(|other| other.send(line));
        })
        .run()
}
