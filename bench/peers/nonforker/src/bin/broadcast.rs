//! Each line to every connection, with nonforker: `PORT poll|uring`. All have subscribed to one topic.

use nonforker::{Conn, Handler, Outcome, Overflow, codec::Lines};

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
    let (server, address, _) = peer_nonforker::asked_for();
    server.serve_with(address, Lines::new(), Room).run()
}
