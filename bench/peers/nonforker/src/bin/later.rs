//! Each line back, by another thread, with nonforker: `PORT poll|uring offload|ticket`. Offloaded, each
//! line is a call of the pool, which has nothing to do; with tickets, one thread answers all lines.

use std::{sync::mpsc, thread};

use nonforker::{Conn, Handler, Outcome, Ticket, codec::Lines};

/// Where the lines go.
enum Answerer {
    Pool,
    Thread(mpsc::Sender<(Ticket<Self>, Vec<u8>)>),
}

impl Handler for Answerer {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let line = line.to_vec();
        match self {
            Self::Pool => conn.offload(move || line, |_, conn, line| conn.send(line)),
            // The thread answers in the order of the lines, so none has to wait for the one before it.
            Self::Thread(thread) => thread.send((conn.defer_unordered(), line))?,
        }
        Ok(())
    }
}

fn thread_of_its_own() -> Answerer {
    let (sender, lines) = mpsc::channel::<(Ticket<Answerer>, Vec<u8>)>();
    thread::spawn(move || {
        for (ticket, line) in lines {
            // The client may have left.
            let _ = ticket.send(line);
        }
    });
    Answerer::Thread(sender)
}

fn main() -> nonforker::Result<()> {
    let (server, address, word) = peer_nonforker::asked_for();
    let answerer = match word.as_deref() {
        Some("ticket") => thread_of_its_own(),
        _ => Answerer::Pool,
    };
    server.serve_with(address, Lines::new(), answerer).run()
}
