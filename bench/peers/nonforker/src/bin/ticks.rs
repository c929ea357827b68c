//! How late a timer is, with nonforker: `PORT poll|uring`. A line with a number asks for so many ticks
//! of a timer that is set again at each; the reply has the nanoseconds that each of them was late.

use std::time::{Duration, Instant};

use nonforker::{Conn, Handler, Outcome, codec::Lines};

const EVERY: Duration = Duration::from_millis(10);

/// The ticks of one connection.
#[derive(Debug, Default)]
struct Ticks {
    left: usize,
    due: Option<Instant>,
    late: Vec<u128>,
}

#[derive(Debug)]
struct Clock;

type Talk<'c> = Conn<'c, Clock>;

fn set(conn: &mut Talk<'_>) -> Outcome {
    // The library's own clock would hide what it does wrong.
    conn.session_mut().due = Some(Instant::now() + EVERY);
    conn.after(EVERY, Clock::timer)?;
    Ok(())
}

impl Handler for Clock {
    type Codec = Lines;
    type Session = Ticks;

    fn frame(&mut self, conn: &mut Talk<'_>, line: &[u8]) -> Outcome {
        conn.session_mut().left = std::str::from_utf8(line)?.parse()?;
        set(conn)
    }
}

impl Clock {
    fn timer(&mut self, conn: &mut Talk<'_>) -> Outcome {
        let now = Instant::now();
        let ticks = conn.session_mut();
        if let Some(due) = ticks.due {
            // None may come too early.
            ticks.late.push(now.checked_duration_since(due).ok_or("too early")?.as_nanos());
        }
        ticks.left = ticks.left.saturating_sub(1);
        if ticks.left > 0 {
            set(conn)?;
        } else {
            let late = std::mem::take(&mut ticks.late);
            let words: Vec<String> = late.iter().map(ToString::to_string).collect();
            conn.send(words.join(" ").as_bytes());
        }
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    let (server, address, _) = peer_nonforker::asked_for();
    server.serve_with(address, Lines::new(), Clock).run()
}
