//! Many clients share four connections to a Redis server: `INCR count`, `SET name value`.

use nonforker::codec::Lines;
use nonforker::{CloseReason, Conn, Connections, Handler, Outcome, Reconnect, Server, Ticket};
use std::collections::VecDeque;

struct Front(usize); // Each request goes to the next connection of the pool.

impl Handler for Front {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let ticket = conn.defer();
        let mut pool = conn.service::<Redis>()?;
        let ids = pool.ids();
        self.0 = (self.0 + 1) % ids.len().max(1);
        let Some(&id) = ids.get(self.0) else { return Ok(ticket.send("-ERR no connection")?) };
        let mut redis = pool.get(id)?;
        redis.send(line);
        redis.session_mut().push_back(ticket);
        Ok(())
    }
}

struct Redis(String, Reconnect); // The pool, and where the Redis server is.
impl Handler for Redis {
    type Codec = Lines;
    type Session = VecDeque<Ticket<Front>>; // Tickets that wait for the next answers.

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        (0..4).try_for_each(|_| connect(self, all))
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        self.1.succeeded();
        let ticket = conn.session_mut().pop_front().ok_or("nobody has asked")?;
        let _ = ticket.send(line.to_vec()); // Or its client has left.
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        conn.session_mut().drain(..).for_each(|ticket| _ = ticket.send("-ERR it broke"));
        let wait = self.1.next_wait(&mut conn.others());
        let _ = conn.others().after(wait, connect);
    }
}

fn connect(redis: &mut Redis, all: &mut Connections<'_, Redis>) -> Outcome {
    Ok(all.connect::<Redis>(&redis.0, VecDeque::new()).map(drop)?)
}

pub(crate) fn server(from: &str, to: &str) -> Server {
    let pool = Redis(to.to_owned(), Reconnect::default());
    Server::new().serve_with(from, Lines::new(), Front(0)).service(Lines::new().crlf(), pool)
}

fn main() -> nonforker::Result<()> {
    server("127.0.0.1:1685", "127.0.0.1:6379").drain_on_signals().run()
}
