//! What a handler may ask for in a callback, for its own connection.

use std::{io::ErrorKind, sync::mpsc::channel, time::Duration};

use nonforker::{CloseReason, Conn, Handler, Limits, Outcome, Server, codec::Lines};

use crate::{
    client::{Client, hear, next},
    harness::{ANY, on_every_driver},
    probe::Probe,
};

fn probing(probe: Probe) -> impl FnOnce(Server) -> Server + Send + 'static {
    |server| server.serve_with(ANY, Lines::new(), probe)
}

#[test]
fn a_timer_fires_once_is_replaced_and_can_be_cleared() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut client = server.connect();
        assert_eq!(client.ask("timer 30"), "ok");
        assert_eq!(client.line(), "timer");
        client.hears_nothing_for(Duration::from_millis(80));

        assert_eq!(client.ask("timer 20000"), "ok");
        assert_eq!(client.ask("timer 30"), "ok");
        assert_eq!(client.line(), "timer", "the sooner one replaces the later one");

        assert_eq!(client.ask("timer 40"), "ok");
        assert_eq!(client.ask("timer 20000"), "ok");
        client.hears_nothing_for(Duration::from_millis(120));

        assert_eq!(client.ask("timer 40"), "ok");
        assert_eq!(client.ask("untimer"), "ok");
        client.hears_nothing_for(Duration::from_millis(120));
        drop(client);
        hear(&told, "closed 0: the peer has finished");
    });
}

#[test]
fn a_timer_is_not_called_for_a_client_that_has_gone() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut client = server.connect();
        assert_eq!(client.ask("timer 50"), "ok");
        drop(client);
        for expected in ["open 0", "half_closed 0", "closed 0: the peer has finished"] {
            assert_eq!(next(&told), expected);
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(told.try_recv().is_err(), "called after it was closed");
    });
}

#[test]
fn a_client_that_is_paused_waits_until_another_resumes_it() {
    on_every_driver(|case| {
        let (probe, _told) = Probe::new();
        let server = case.start(probing(probe));
        let (mut client, mut other) = (server.connect(), server.connect());
        server.has_accepted(2);
        client.send("pause\nsecond\nthird\n");
        assert_eq!(client.line(), "paused");
        client.hears_nothing_for(Duration::from_millis(50));
        client.send("fourth\n");
        client.half_close();
        client.hears_nothing_for(Duration::from_millis(50));
        server.is_idle();
        assert_eq!(other.ask("resume 0"), "resumed");
        assert_eq!(client.rest_text(), "second\nthird\nfourth\n");
    });
}

/// Takes one line per timer.
struct Slowly;

impl Handler for Slowly {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        conn.pause();
        conn.after(Duration::from_millis(2), Self::timer)?;
        Ok(())
    }
}

impl Slowly {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.resume();
        Ok(())
    }
}

#[test]
fn a_handler_may_pause_and_resume_its_own_connection() {
    on_every_driver(|case| {
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), Slowly));
        let mut client = server.connect();
        let stream: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert!(client.exchange(stream.as_bytes()) == stream.as_bytes());
    });
}

#[test]
fn a_paused_connection_keeps_to_its_bounds_and_notices_a_reset() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let mut client = server.connect();
        assert_eq!(client.ask("pause"), "paused");
        client.stuff(&b"it waits\n".repeat(1000));
        let held = server.stats().buffered_bytes;
        assert!(held <= 256 * 1024, "{held} bytes are buffered for one who is paused");
        client.reset();
        let closed = loop {
            let told = next(&told);
            if told.starts_with("closed") {
                break told;
            }
        };
        assert!(closed.starts_with("closed 0: connection broken"), "{closed}");
    });
}

/// Greets, or refuses every second one.
#[derive(Default)]
struct Doorman {
    seen: usize,
}

impl Handler for Doorman {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.seen += 1;
        match self.seen % 3 {
            0 => return Err("no thirds".into()),
            1 => conn.send("welcome"),
            _ => conn.abort(),
        }
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }
}

#[test]
fn a_handler_greets_or_refuses_a_client_that_connects() {
    on_every_driver(|case| {
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), Doorman::default()));
        let mut welcome = server.connect();
        assert_eq!(welcome.line(), "welcome");
        assert_eq!(welcome.ask("hello"), "hello");
        match Client::try_connect(server.address()) {
            Ok(mut refused) => refused.is_reset(),
            // It was refused before it knew that it was connected.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!(server.connect().rest_text(), "", "refused in order");
    });
}

#[test]
fn a_closure_may_return_nothing_or_an_outcome() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            server.serve(ANY, Lines::new(), |_conn, _line| {}).serve(
                ANY,
                Lines::new(),
                |conn, line| -> Outcome {
                    let number: u32 = std::str::from_utf8(line).unwrap_or("?").parse()?;
                    conn.send((number + 1).to_string());
                    Ok(())
                },
            )
        });
        let mut clients: Vec<_> = server.addresses().iter().map(Client::connect).collect();
        assert_eq!(clients[1].ask("41"), "42");
        assert_eq!(clients[0].exchange(b"1\n2\n"), b"");
        clients[1].send("1\nx\n3\n");
        assert_eq!(clients[1].rest_text(), "2\n", "what came before the error is sent");
    });
}

#[test]
fn an_error_ends_its_connection_after_what_was_queued() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(probing(probe));
        let (mut client, mut other) = (server.connect(), server.connect());
        client.send("before\nfail\nafter\n");
        assert_eq!(client.rest_text(), "before\nsorry\n");
        hear(&told, "closed 0: the handler failed: told to");
        assert_eq!(other.ask("undisturbed"), "undisturbed");
        assert_eq!(server.log.about("the handler failed: told to").len(), 1);
    });
}

#[test]
fn a_slow_handler_is_named_once() {
    on_every_driver(|case| {
        let (probe, _told) = Probe::new();
        let server = case.start(|server| {
            let limits = Limits::new().slow_handler(Some(Duration::from_millis(50)));
            server.limits(limits).serve_with(ANY, Lines::new(), probe)
        });
        let mut client = server.connect();
        let local = client.socket.local_addr().expect("connected").as_socket().expect("TCP");
        assert_eq!(client.ask("quick"), "quick");
        assert_eq!(server.log.about("slow"), [""; 0]);
        for _ in 0..3 {
            assert_eq!(client.ask("sleep 80"), "slept");
        }
        let warnings = server.log.about("slow");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(&local.to_string()), "{warnings:?} names {local}");
    });
}

/// Tells the reason of a close that it asks for twice.
struct Twice(std::sync::mpsc::Sender<String>);

impl Handler for Twice {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        conn.send("before");
        conn.close();
        conn.send("behind the close");
        conn.after(Duration::ZERO, |_, conn| conn.send("a timer"))?;
        conn.pause();
        conn.resume();
        conn.close();
        Err("and an error".into())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        conn.send("into the void");
        let _ = self.0.send(format!("{reason} {}", conn.queued()));
    }
}

#[test]
fn after_a_close_nothing_more_is_sent_and_the_first_reason_counts() {
    on_every_driver(|case| {
        let (tell, told) = channel();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), Twice(tell)));
        let mut client = server.connect();
        client.send("x\ny\n");
        assert_eq!(client.rest_text(), "before\n");
        assert_eq!(next(&told), "closed by the handler 0");
        drop(client);
        server.holds(0);
        assert!(told.try_recv().is_err(), "closed is told once");
    });
}
