//! What a handler may do to other connections: send to them, by an id that never lies.

use std::sync::mpsc::channel;

use nonforker::{Conn, ConnId, Handler, Limits, Outcome, Server, codec::Lines};

use crate::{
    client::{Client, hear, next},
    harness::{ANY, on_every_driver},
    probe::{Probe, send_to},
};

fn probing(probe: Probe) -> impl FnOnce(Server) -> Server + Send + 'static {
    |server| server.serve_with(ANY, Lines::new(), probe)
}

const GONE: &str = "no such connection: it has closed, or belongs to another service";

#[test]
fn a_line_reaches_another_connection() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut first = server.connect();
        hear(&told, "open 0");
        let mut second = server.connect();
        hear(&told, "open 1");
        assert_eq!(second.ask("to 0 hello first"), "ok");
        assert_eq!(first.line(), "hello first");
        assert_eq!(second.ask("to 1 hello myself"), "hello myself");
        assert_eq!(second.line(), "ok");
    });
}

#[test]
fn an_id_that_has_closed_never_names_another() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut asker = server.connect();
        hear(&told, "open 0");
        for round in 1..=20 {
            let gone = server.connect();
            hear(&told, &format!("open {}", 2 * round - 1));
            drop(gone);
            server.holds(1);
            // It takes the slot that has become free.
            let mut heir = server.connect();
            hear(&told, &format!("open {}", 2 * round));
            assert_eq!(asker.ask(format!("to {} for the dead", 2 * round - 1)), GONE);
            assert_eq!(asker.ask(format!("to {} for the heir", 2 * round)), "ok");
            assert_eq!(heir.line(), "for the heir");
            drop(heir);
            server.holds(1);
        }
    });
}

#[test]
fn nothing_is_sent_to_a_connection_that_is_closing() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| {
            let limits = Limits::new().high_watermark(64 << 20);
            probing(probe)(server.limits(limits))
        });
        let mut asker = server.connect();
        hear(&told, "open 0");
        let mut closing = server.connect();
        hear(&told, "open 1");
        let mut flushing = server.connect();
        hear(&told, "open 2");
        flushing.send("big 8000000\nclose\n");
        server.settles();
        assert_eq!(asker.ask("to 2 while it is flushed"), GONE);
        let all = flushing.rest();
        assert!(all.len() == 8_000_005 && all.ends_with(b"x\nbye\n"));
        // The server lingers, since this client does not close.
        assert_eq!(closing.ask("close"), "bye");
        assert_eq!(asker.ask("to 1 too late"), GONE);
        assert_eq!(closing.rest_text(), "");
    });
}

/// Sends every line to whoever connected first, whichever service that was.
struct ToFirst(std::rc::Rc<std::cell::Cell<Option<ConnId>>>);

impl Handler for ToFirst {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.0.set(self.0.get().or_else(|| Some(conn.id())));
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let first = self.0.get().ok_or("nobody has connected")?;
        match send_to(conn, first, line) {
            Ok(()) => conn.send("ok"),
            Err(error) => conn.send(error.to_string()),
        }
        Ok(())
    }
}

#[test]
fn an_id_of_another_service_is_refused() {
    on_every_driver(|case| {
        let server =
            case.start(|server| {
                let first = std::rc::Rc::default();
                server
                    .serve_with(ANY, Lines::new(), ToFirst(std::rc::Rc::clone(&first)))
                    .serve_with(ANY, Lines::new(), ToFirst(first))
            });
        let mut mine = Client::connect(&server.addresses()[0]);
        assert_eq!(mine.ask("myself"), "myself");
        assert_eq!(mine.line(), "ok");
        let mut other = Client::connect(&server.addresses()[1]);
        assert_eq!(other.ask("across"), GONE);
    });
}

#[test]
fn a_client_that_does_not_take_what_others_push_is_closed_alone() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| {
            let limits = Limits::new().high_watermark(8192).low_watermark(4096).output_cap(65536);
            server.limits(limits).serve_with(ANY, Lines::new(), probe)
        });
        let mut victim = server.connect();
        hear(&told, "open 0");
        let mut pusher = server.connect();
        hear(&told, "open 1");
        let mut closed = None;
        for _ in 0..2000 {
            assert_eq!(pusher.ask("push 0 10 4000"), "ok");
            let bytes = server.stats().buffered_bytes;
            assert!(bytes < 512 * 1024, "{bytes} bytes are buffered");
            closed = told.try_iter().find(|told| told.starts_with("closed"));
            if closed.is_some() {
                break;
            }
        }
        assert_eq!(closed.as_deref(), Some("closed 0: more was pushed at the peer than it took"));
        victim.is_reset();
        assert_eq!(pusher.ask("to 0 more"), GONE);
        assert_eq!(pusher.ask("I live"), "I live");
    });
}

#[test]
fn what_is_pushed_at_one_that_reads_arrives() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut reader = server.connect();
        hear(&told, "open 0");
        let mut pusher = server.connect();
        hear(&told, "open 1");
        for _ in 0..50 {
            assert_eq!(pusher.ask("push 0 100 999"), "ok");
            assert_eq!(reader.exactly(100_000).len(), 100_000);
        }
    });
}

/// Tells everybody who is left about everybody who goes.
struct Mourners {
    ids: Vec<ConnId>,
    missed: std::sync::mpsc::Sender<usize>,
}

impl Handler for Mourners {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.ids.push(conn.id());
        conn.send("open");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        conn.close();
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &nonforker::CloseReason) {
        let own = conn.id();
        self.ids.retain(|&id| id != own);
        let missed = self.ids.iter().filter(|&&id| send_to(conn, id, "gone").is_err()).count();
        let _ = self.missed.send(missed);
    }
}

#[test]
fn a_client_that_closes_can_still_send_to_others() {
    on_every_driver(|case| {
        let (tell, told) = channel();
        let server = case.start(|server| {
            server.serve_with(ANY, Lines::new(), Mourners { ids: Vec::new(), missed: tell })
        });
        let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.line(), "open");
        }
        let leaver = clients.remove(2);
        leaver.send("bye\n");
        for client in &mut clients {
            assert_eq!(client.line(), "gone");
        }
        assert_eq!(next(&told), 0);
    });
}
