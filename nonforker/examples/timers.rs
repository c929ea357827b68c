//! A clock per client: says `tick` every second, or as often as the client asks in milliseconds.
//! A client that stops reading is not ticked at until it has caught up.

use std::time::Duration;

use nonforker::{Conn, Handler, Outcome, Server, codec::Lines};

struct Clock;

/// What is remembered per client.
struct Beat {
    every: Duration,
    count: u64,
}

impl Default for Beat {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), count: 0 }
    }
}

type Listener<'c> = Conn<'c, Lines, Beat>;

impl Handler<Lines> for Clock {
    type Session = Beat;

    fn open(&mut self, conn: &mut Listener<'_>) -> Outcome {
        conn.set_timer(conn.session().every);
        Ok(())
    }

    fn frame(&mut self, conn: &mut Listener<'_>, line: &[u8]) -> Outcome {
        conn.session_mut().every = Duration::from_millis(std::str::from_utf8(line)?.parse()?);
        conn.set_timer(conn.session().every);
        Ok(())
    }

    fn timer(&mut self, conn: &mut Listener<'_>) -> Outcome {
        if conn.queued() == 0 {
            conn.session_mut().count += 1;
            let tick = format!("tick {}", conn.session().count);
            conn.send(tick);
        }
        conn.set_timer(conn.session().every);
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve_with(address, Lines::new(), Clock).drain_on_signals().run()
}
