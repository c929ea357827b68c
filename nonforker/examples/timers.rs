//! A clock per client: says `tick` every second, or as often as the client asks in milliseconds.
//! A client that stops reading is not ticked at until it has caught up.

use std::time::Duration;

use nonforker::{Conn, Handler, Outcome, Server, TimerId, codec::Lines};

struct Clock;

/// What is remembered per client.
#[derive(Default)]
struct Beat {
    timer: Option<TimerId>,
    count: u64,
}

impl Handler for Clock {
    type Codec = Lines;
    type Session = Beat;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        beat(conn, Duration::from_secs(1))
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        beat(conn, Duration::from_millis(std::str::from_utf8(line)?.parse()?))
    }
}

/// Says `tick` each `period` from now on, and no more as it did before.
fn beat(conn: &mut Conn<'_, Clock>, period: Duration) -> Outcome {
    if let Some(timer) = conn.session_mut().timer.take() {
        conn.cancel(timer);
    }
    let timer = conn.every(period, |_, conn| {
        if conn.queued() == 0 {
            conn.session_mut().count += 1;
            let tick = format!("tick {}", conn.session().count);
            conn.send(tick);
        }
    })?;
    conn.session_mut().timer = Some(timer);
    Ok(())
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve_with(address, Lines::new(), Clock).drain_on_signals().run()
}
