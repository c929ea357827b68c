//! What a handler is told and may do: each thing once, and for the connection it is about.

use std::{
    cell::{Cell, RefCell},
    io::Write,
    panic::resume_unwind,
    rc::Rc,
    time::Duration,
};

use nonforker::{
    CloseReason, Conn, ConnId, Handler, Limits, Outcome, Server, Urgent,
    codec::{FrameError, Lines},
    sim::{Ending, Faults, Simulation},
};

use crate::anybody::send_to;

/// Does what a line says, and notes why connections ended.
#[derive(Default)]
struct Obeys {
    first: Option<ConnId>,
    reasons: Rc<RefCell<Vec<String>>>,
}

impl Obeys {
    /// A connection is none of the others.
    fn is_no_other(&self, conn: &mut Conn<'_, Self>) {
        let own = conn.id();
        if conn.others().get(own).is_ok() || conn.others().ids().contains(&own) {
            self.reasons.borrow_mut().push("it is one of the others".to_owned());
        }
    }

    fn urgent(&mut self, conn: &mut Conn<'_, Self>, byte: u8) -> Outcome {
        *conn.session_mut() += 1;
        if byte == b'?' {
            conn.send("yes");
        }
        Ok(())
    }
}

impl Handler for Obeys {
    type Codec = Lines;
    type Session = u32;
    const URGENT: Option<Urgent<Self>> = Some(Self::urgent);

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.first.get_or_insert_with(|| conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"panic" => {
                conn.send("half a reply");
                // Unlike `panic!` it does not fill the output of the test.
                resume_unwind(Box::new("the handler's fault"));
            }
            b"fail" => {
                conn.send("sorry");
                return Err("the handler's fault".into());
            }
            b"close" => {
                conn.send("bye");
                conn.close();
                conn.send("more");
                self.is_no_other(conn);
            }
            b"abort" => conn.abort(),
            b"both" => {
                conn.close();
                conn.abort();
            }
            // Empty, but written.
            b"nothing" => assert_eq!(conn.write(b"")?, 0),
            b"urgent" => conn.send(conn.session().to_string()),
            b"first" => match self.first.map(|id| send_to(conn, id, "for the first")) {
                Some(Ok(())) => conn.send("sent"),
                _ => conn.send("gone"),
            },
            line => conn.send(line),
        }
        Ok(())
    }

    fn rejected(&mut self, conn: &mut Conn<'_, Self>, _error: &FrameError) {
        conn.send("what?");
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.is_no_other(conn);
        self.reasons.borrow_mut().push(reason.to_string());
    }
}

fn server() -> Server {
    Server::new().serve_with("127.0.0.1:1", Lines::new(), Obeys::default())
}

/// A way to end a connection: what the client sends, gets and sees, and what the handler is told.
type Case = (&'static str, &'static str, Ending, &'static str);

const CASES: [Case; 8] = [
    ("x\npanic\nafter\n", "x\n", Ending::Finished, "the handler panicked"),
    ("panic\nafter\n", "", Ending::Finished, "the handler panicked"),
    ("fail\nafter\n", "sorry\n", Ending::Finished, "the handler failed: the handler's fault"),
    ("close\nafter\n", "bye\n", Ending::Finished, "closed by the handler"),
    ("abort\nafter\n", "", Ending::Reset, "aborted by the handler"),
    ("both\nafter\n", "", Ending::Reset, "closed by the handler"),
    ("x\ncut off", "x\nwhat?\n", Ending::Finished, "the peer stopped 7 bytes into a frame"),
    ("x\n", "x\n", Ending::Finished, "the peer has finished"),
];

#[test]
fn a_connection_ends_as_its_handler_says_and_no_other_does() {
    for (sent, replies, ends, reason) in CASES {
        let reasons = Rc::<RefCell<Vec<String>>>::default();
        let told = Rc::clone(&reasons);
        let server = move || {
            told.borrow_mut().clear();
            let handler = Obeys { reasons: Rc::clone(&told), ..Obeys::default() };
            Server::new().serve_with("127.0.0.1:1", Lines::new(), handler)
        };
        Simulation::new(server).seeds(0..100).run(|net| {
            let (client, bystander) = (net.connect(), net.connect());
            bystander.send("before\n");
            client.send(sent);
            client.half_close();
            let (received, ending) = client.receive_to_end();
            assert_eq!(String::from_utf8_lossy(&received), replies, "{sent:?}");
            assert_eq!(ending, Some(ends), "{sent:?}");
            bystander.send("after\n");
            bystander.expect("before\nafter\n");
            net.wait(Duration::from_secs(10));
            assert_eq!(*reasons.borrow(), [reason], "{sent:?}");
            let handled = net.stats().frames - 2;
            let lines = sent.matches('\n').count() - sent.matches("after\n").count();
            assert_eq!(handled, lines as u64, "{sent:?}: nothing is handled behind the end");
        });
    }
}

#[test]
fn the_last_reply_reaches_a_client_that_is_still_sending() {
    Simulation::new(server).seeds(0..200).run(|net| {
        let client = net.connect();
        client.send("close\n");
        client.stall();
        for _ in 0..30 {
            client.send("x".repeat(100));
            net.wait(Duration::from_millis(100));
        }
        client.read_all();
        client.half_close();
        assert_eq!(client.receive_to_end(), (b"bye\n".to_vec(), Some(Ending::Finished)));
    });
}

#[test]
fn an_empty_reply_leaves_no_buffer_behind() {
    Simulation::new(server).run(|net| {
        let client = net.connect();
        client.set_window(1);
        for lines in [["nothing\n", ""], ["hello\n", "nothing\n"]] {
            client.stall();
            client.send(lines[0]);
            net.wait(Duration::from_secs(1));
            client.send(lines[1]);
            net.wait(Duration::from_secs(5));
            client.read_all();
            net.wait(Duration::from_secs(10));
            assert_eq!(net.stats().buffered_bytes, 0, "after {lines:?}");
        }
    });
}

#[test]
fn urgent_bytes_arrive_beside_an_intact_stream() {
    Simulation::new(server).seeds(0..300).run(|net| {
        let client = net.connect();
        for _ in 0..10 {
            client.send("be");
            client.send_urgent(b'!');
            client.send("side\n");
            client.expect("beside\n");
        }
        client.send("urgent\n");
        client.expect("10\n");
    });
}

#[test]
fn what_an_urgent_byte_is_answered_with_waits_for_nothing() {
    Simulation::new(server).run(|net| {
        let client = net.connect();
        client.send_urgent(b'?');
        client.expect("yes\n");
    });
}

#[test]
fn what_is_sent_to_a_client_that_has_left_reaches_nobody() {
    Simulation::new(server).seeds(0..300).run(|net| {
        let first = net.connect();
        first.send("hello\n");
        first.expect("hello\n");
        let second = net.connect();
        second.send("first\n");
        second.expect("sent\n");
        first.half_close();
        first.expect("for the first\n");
        first.expect_end();
        net.wait(Duration::from_secs(10));
        // It gets the place of the first.
        let third = net.connect();
        third.send("hello\n");
        third.expect("hello\n");
        second.send("first\n");
        second.expect("gone\n");
        third.half_close();
        third.expect_end();
    });
}

#[test]
fn what_is_sent_to_a_client_of_another_service_reaches_nobody() {
    let server = || {
        let known = Rc::new(Cell::new(None));
        let know = Rc::clone(&known);
        Server::new()
            .serve("127.0.0.1:1", Lines::new(), move |conn, line| {
                know.set(Some(conn.id()));
                conn.send(line);
            })
            .serve("127.0.0.1:2", Lines::new(), move |conn, line| -> Outcome {
                let known = known.get().expect("the first service was spoken to");
                conn.others().get(known)?.send(line);
                Ok(())
            })
    };
    Simulation::new(server).run(|net| {
        let (client, neighbour) = (net.connect_to(0), net.connect_to(1));
        client.send("mine\n");
        client.expect("mine\n");
        net.wait(Duration::from_secs(5));
        // In its own service the neighbour has the place that the client has in the other.
        let stranger = net.connect_to(1);
        stranger.send("not yours\n");
        stranger.expect_end();
        for client in [client, neighbour] {
            client.half_close();
            client.expect_end();
        }
    });
}

const CHUNK: usize = 3000;
const MARKS: (usize, usize) = (10_000, 2000);

/// Sends as many chunks as it is asked for, one high watermark at a time.
struct Download;

impl Handler for Download {
    type Codec = Lines;
    type Session = usize;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        *conn.session_mut() = std::str::from_utf8(line)?.parse()?;
        self.relieved(conn)
    }

    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if conn.queued() > MARKS.1 {
            return Err("pressure did not fall".into());
        }
        while *conn.session() > 0 && conn.queued() <= MARKS.0 {
            *conn.session_mut() -= 1;
            conn.send([b'x'; CHUNK - 1]);
        }
        Ok(())
    }
}

#[test]
fn a_download_goes_on_whenever_pressure_falls() {
    let limits = || Limits::new().high_watermark(MARKS.0).low_watermark(MARKS.1);
    let server =
        move || Server::new().limits(limits()).serve_with("127.0.0.1:1", Lines::new(), Download);
    Simulation::new(server).seeds(0..200).faults(Faults::lossless).run(|net| {
        let client = net.connect();
        client.set_window(5000);
        client.send("50\n");
        client.expect(([b"x".repeat(CHUNK - 1), b"\n".to_vec()].concat()).repeat(50));
        client.half_close();
        client.expect_end();
    });
}
