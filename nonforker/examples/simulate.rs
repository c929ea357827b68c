//! Test your server before the network does: a thousand bad networks a second, no sockets.
//! In your project this is a `#[test]`.

use std::time::Duration;

use nonforker::{
    Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Faults, Simulation},
};

/// A counter: `+5` adds, `?` asks.
#[derive(Default)]
struct Counter(i64);

impl Handler for Counter {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"?" => conn.send(self.0.to_string()),
            number => self.0 += std::str::from_utf8(number)?.parse::<i64>()?,
        }
        Ok(())
    }
}

fn server() -> Server {
    let limits = Limits::new().idle_timeout(Some(Duration::from_secs(3600)));
    Server::new().limits(limits).serve_with("127.0.0.1:1685", Lines::new(), Counter::default())
}

fn main() {
    // Bytes in pieces, late, short writes, no descriptors: every answer has to come all the same.
    Simulation::new(server).seeds(0..1000).run(|net| {
        let (one, other) = (net.connect(), net.connect());
        one.send("+40\n?\n");
        one.expect("40\n");
        other.send("+2\n?\n");
        other.expect("42\n");
        one.half_close();
        one.expect_end();
    });

    // When connections break as well, an answer may be missing, but never wrong.
    Simulation::new(server).seeds(0..1000).faults(Faults::swarm).run(|net| {
        let client = net.connect();
        client.send("+1\n?\n+1\n?\n");
        client.half_close();
        assert!(b"1\n2\n".starts_with(&client.receive_to_end().0));
    });

    // An hour takes a microsecond.
    Simulation::new(server).run(|net| net.connect().expect_end());
}
