//! A proxy: each client is joined with a connection to another server, and the log says how it ended.
//!
//! Try it with `redis-server`: `redis-cli -p 1685`. Without the log all of it is one line:
//! `Server::new().relay("127.0.0.1:1685", "127.0.0.1:6379").run()`.

use nonforker::{CloseReason, Conn, Frame, Handler, Outcome, Server, codec::Raw};

/// The clients, and the server that each of them is joined with.
#[derive(Debug)]
pub struct Proxy {
    to: String,
}

impl Handler for Proxy {
    type Codec = Raw;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        // It need not stand yet: what the client sends waits for it.
        let behind = conn.connect::<Behind>(&self.to, ())?;
        conn.relay_to(behind)?;
        Ok(())
    }

    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
        Ok(()) // No codec and no handler sees the bytes of a relay.
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        tracing::info!("{} has left: {reason}", conn.peer());
    }
}

/// The connections to the other server.
#[derive(Debug)]
#[non_exhaustive]
pub struct Behind;

impl Handler for Behind {
    type Codec = Raw;
    type Session = ();

    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// A server that relays from an address to a target.
#[must_use]
pub fn server(from: &str, to: &str) -> Server {
    let proxy = Proxy { to: to.to_owned() };
    Server::new().serve_with(from, Raw::new(), proxy).service(Raw::new(), Behind)
}

fn main() -> nonforker::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let from = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    let to = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:6379".into());
    server(&from, &to).drain_on_signals().run()
}
