//! A handler that answers later: by a timer, by offloaded work, by mail; or drops its tickets.

use std::{collections::VecDeque, time::Duration};

use nonforker::{
    CloseReason, Conn, Connections, Gone, Handler, Limits, Outcome, Remote, Server, Ticket,
    codec::Lines, sim::Rng,
};

/// Echoes each line, some of them later. The lengths of lines say how.
#[derive(Default)]
pub(super) struct Later {
    /// Tickets that a timer answers, and their lines.
    shelf: VecDeque<(Ticket<Self>, Vec<u8>)>,
    /// Tickets that nobody answers. Threads that died in the midst of their work hold such.
    forgotten: Vec<Ticket<Self>>,
    remote: Option<Remote<Self>>,
    /// Some lines are never answered.
    fails: bool,
    count: u64,
}

impl Later {
    pub(super) fn server(rng: &Rng, limits: Limits, fails: bool) -> Server {
        let limits = limits
            .tickets_max(1 + rng.magnitude(100))
            // The clock of a simulation jumps by up to a minute.
            .answer_timeout(fails.then_some(Duration::from_secs(5)));
        Server::new().limits(limits).offload_threads(rng.between(1, 4)).serve_with(
            super::ADDRESS,
            Lines::new(),
            Self { fails, ..Self::default() },
        )
    }

    /// Answers a ticket from the shelf some time from now: the oldest, or the newest.
    fn answer_soon(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        self.count += 1;
        let micros = self.count.wrapping_mul(0x9e37_79b9) % 40_000;
        let oldest = !micros.is_multiple_of(3);
        all.after(Duration::from_micros(micros), move |later, _| {
            let shelf = &mut later.shelf;
            let next = if oldest { shelf.pop_front() } else { shelf.pop_back() };
            if let Some((ticket, line)) = next {
                // Its client may have left.
                let _ = ticket.send(line);
            }
        })?;
        Ok(())
    }

    fn fail(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> bool {
        match line.len() % 29 {
            5 => drop(conn.defer()),
            11 => {
                let ticket = conn.defer();
                self.forgotten.push(ticket);
            }
            17 => {
                let ticket = conn.defer();
                conn.abort();
                self.shelf.push_back((ticket, line.to_vec()));
            }
            23 => {
                // The second answer waits for the first, which never comes.
                let (first, second) = (conn.defer(), conn.defer());
                self.forgotten.push(first);
                let _ = second.send(line.to_vec());
            }
            _ => return false,
        }
        true
    }
}

impl Handler for Later {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        self.remote = Some(all.remote());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if self.fails && self.fail(conn, line) {
            return Ok(());
        }
        let text = line.to_vec();
        match line.len() % 7 {
            1 => {
                let ticket = conn.defer();
                self.shelf.push_back((ticket, text));
                self.answer_soon(&mut conn.others())?;
            }
            2 => conn.offload(move || text, |_, conn, text| conn.send(text)),
            3 => conn.offload(
                move || text,
                |_, conn, text| {
                    // Half of the line at once, the rest by a ticket within the answer.
                    let rest = text.len() / 2;
                    let _ = std::io::Write::write(conn, &text[..rest]);
                    conn.offload(move || text[rest..].to_vec(), |_, conn, text| conn.send(text));
                },
            ),
            4 => {
                // Answered by mail, and what is sent meanwhile waits.
                let ticket = conn.defer();
                let (first, rest) = line.split_at(line.len() / 2);
                let first = first.to_vec();
                conn.send(rest);
                if let Some(remote) = &self.remote {
                    remote.post(move |_, _| {
                        let _ = ticket.then(move |_, conn| {
                            let _ = std::io::Write::write(conn, &first);
                        });
                    })?;
                }
            }
            _ => conn.send(line),
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert_eq!(conn.defer().send("too late"), Err(Gone), "the connection closes: {reason}");
    }
}
