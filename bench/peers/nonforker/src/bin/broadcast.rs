//! Each line to every connection, with nonforker: `PORT poll|uring`. All have subscribed to one topic.

use nonforker::{Conn, DriverKind, Handler, Outcome, Overflow, Server, codec::Lines};

struct Room;

impl Handler for Room {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        Ok(conn.subscribe("all", Overflow::Close)?)
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.publish("all", line)?;
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    let mut args = std::env::args().skip(1);
    let port = args.next().unwrap_or_else(|| "1685".into());
    let driver = match args.next().as_deref() {
        Some("uring") => DriverKind::Uring,
        _ => DriverKind::Poll,
    };
    let server = Server::new().driver(driver).drain_on_signals();
    server.serve_with(format!("127.0.0.1:{port}"), Lines::new(), Room).run()
}
