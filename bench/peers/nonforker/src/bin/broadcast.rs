//! Each line to every connection, with nonforker: `PORT poll|uring`.

use nonforker::{CloseReason, Conn, ConnId, DriverKind, Handler, Outcome, Server, codec::Lines};

/// Who is connected.
#[derive(Debug, Default)]
struct All(Vec<ConnId>);

impl Handler<Lines> for All {
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Lines>) -> Outcome {
        self.0.push(conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Lines>, line: &[u8]) -> Outcome {
        for &other in &self.0 {
            let _ = conn.send_to(other, line); // Whoever has just left misses nothing.
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Lines>, _reason: &CloseReason) {
        self.0.retain(|&id| id != conn.id());
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
    server.serve_with(format!("127.0.0.1:{port}"), Lines::new(), All::default()).run()
}
