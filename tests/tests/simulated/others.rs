//! The connections of a service: which of them a handler finds, how many there are, and what it says
//! to them when the server drains.

use std::{cell::RefCell, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, Handler, NoSuchService, Outcome, Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Rng, Simulation},
};

const SECOND: Duration = Duration::from_secs(1);

/// Greets with the number of others. Does what a line says, and notes how many are left of whom.
#[derive(Default)]
struct Talks {
    left: Rc<RefCell<Vec<usize>>>,
}

impl Talks {
    fn answers(conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("answered");
        conn.resume();
        Ok(())
    }
}

impl Handler for Talks {
    type Codec = Lines;
    type Session = String;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let others = conn.others().len();
        conn.send(format!("{others} others"));
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let (verb, what) =
            line.split_at(line.iter().position(|&b| b == b' ').unwrap_or(line.len()));
        let what = std::str::from_utf8(what)?.trim_start();
        match verb {
            b"I" => *conn.session_mut() = what.to_owned(),
            b"all" => {
                let mut told = 0;
                conn.others().for_each(|other| {
                    other.send(what);
                    told += 1;
                });
                conn.send(format!("told {told}"));
            }
            b"count" => {
                let mut others = conn.others();
                let counted = format!("{} and {}", others.len(), others.ids().len());
                conn.send(counted);
            }
            b"close" | b"abort" | b"pause" | b"resume" => {
                let mut others = conn.others();
                others.for_each(|other| match verb {
                    _ if other.session() != what => {}
                    b"close" => {
                        other.send("you are closed");
                        other.close();
                    }
                    b"abort" => other.abort(),
                    b"pause" => other.pause(),
                    _ => other.resume(),
                });
                conn.send("done");
            }
            b"to" => match conn.service_named::<Self>(what) {
                Ok(mut service) => service.for_each(|other| other.send("from elsewhere")),
                Err(error) => conn.send(error.to_string()),
            },
            b"any" => match conn.service::<Self>() {
                Ok(mut service) => service.for_each(|other| other.send("from somewhere")),
                Err(error) => conn.send(error.to_string()),
            },
            b"last" => {
                conn.send(vec![b'x'; 4 << 20]);
                conn.close();
            }
            b"think" => {
                conn.pause();
                conn.after(SECOND / 100, |_, conn| Self::answers(conn))?;
            }
            b"pauses" => conn.pause(),
            _ => conn.send(line),
        }
        Ok(())
    }

    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("goodbye");
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.left.borrow_mut().push(conn.others().len());
    }
}

/// Two services of one kind of handler, `one` and `two`.
fn talks() -> Server {
    let lines = || Lines::new().accept_unterminated();
    Server::new()
        .serve_with("127.0.0.1:1", lines(), Talks::default())
        .name("one")
        .serve_with("127.0.0.1:2", lines(), Talks::default())
        .name("two")
}

fn simulation() -> Simulation {
    Simulation::new(talks).faults(|_| Faults::none()).seeds(0..20)
}

/// A client that was greeted, and is known by its name.
fn join(net: &Net, service: usize, others: usize, name: &str) -> Client {
    let client = net.connect_to(service);
    client.send(format!("I {name}\n"));
    client.expect(format!("{others} others\n"));
    client
}

fn ask(client: &Client, line: &str, reply: &str) {
    client.send(format!("{line}\n"));
    client.expect(format!("{reply}\n"));
}

#[test]
fn what_is_for_all_others_reaches_each_of_them_once_and_nobody_else() {
    simulation().run(|net| {
        let (one, two) = (join(net, 0, 0, "one"), join(net, 0, 1, "two"));
        let (three, stranger) = (join(net, 0, 2, "three"), join(net, 1, 0, "stranger"));
        ask(&one, "all hello", "told 2");
        ask(&stranger, "all nobody", "told 0");
        for (client, heard) in [(one, ""), (two, "hello\n"), (three, "hello\n"), (stranger, "")] {
            client.half_close();
            assert_eq!(client.receive_to_end(), (heard.into(), Some(Ending::Finished)));
        }
    });
}

#[test]
fn a_client_that_is_closing_is_counted_and_not_found() {
    simulation().run(|net| {
        let (one, _two) = (join(net, 0, 0, "one"), join(net, 0, 1, "two"));
        let closing = join(net, 0, 2, "three");
        closing.stall();
        closing.send("last\n");
        net.wait(SECOND / 100);
        ask(&one, "count", "2 and 1");
        ask(&one, "all hello", "told 1");
        closing.read_all();
        let (received, _) = closing.receive_to_end();
        assert_eq!(received.len(), (4 << 20) + 1, "its last reply and nothing behind it");
        ask(&one, "count", "1 and 1");
    });
}

#[test]
fn each_callback_knows_how_many_others_there_are() {
    let left = Rc::<RefCell<Vec<usize>>>::default();
    let told = Rc::clone(&left);
    let server = move || {
        told.borrow_mut().clear();
        let talks = Talks { left: Rc::clone(&told) };
        Server::new().serve_with("127.0.0.1:1", Lines::new(), talks)
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20).run(|net| {
        let clients: Vec<_> = (0..4).map(|others| join(net, 0, others, "somebody")).collect();
        ask(&clients[0], "count", "3 and 3");
        for client in &clients[1..3] {
            client.half_close();
            client.expect_end();
        }
        clients[3].reset();
        net.wait(SECOND / 100);
        assert_eq!(*left.borrow(), [3, 2, 1]);
        ask(&clients[0], "count", "0 and 0");
    });
}

#[test]
fn a_service_is_found_by_its_name_and_not_by_chance() {
    simulation().run(|net| {
        let (one, two) = (join(net, 0, 0, "one"), join(net, 1, 0, "two"));
        one.send("to two\n");
        two.expect("from elsewhere\n");
        two.send("to one\n");
        one.expect("from elsewhere\n");
        ask(&one, "to three", &NoSuchService::Unknown.to_string());
        ask(&one, "any", &NoSuchService::Ambiguous.to_string());
        one.send("to one\n");
        ask(&one, "that is not for me", "that is not for me");
    });
}

#[test]
fn a_handler_may_close_abort_pause_and_resume_others() {
    simulation().run(|net| {
        let (one, two) = (join(net, 0, 0, "one"), join(net, 0, 1, "two"));
        let (three, four) = (join(net, 0, 2, "three"), join(net, 0, 3, "four"));
        ask(&one, "close two", "done");
        two.expect("you are closed\n");
        two.expect_end();
        ask(&one, "abort three", "done");
        assert_eq!(three.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        ask(&one, "pause four", "done");
        four.send("hello\n");
        net.wait(SECOND);
        assert_eq!(four.received(), b"");
        ask(&one, "resume four", "done");
        four.expect("hello\n");
    });
}

/// What a client sends, whether it finishes with that, and what it gets if the server drains then.
const GOODBYES: [(&str, bool, &str); 7] = [
    ("", false, "goodbye\n"),
    ("hello\n", false, "hello\ngoodbye\n"),
    ("think\nhello\n", false, "answered\nhello\ngoodbye\n"),
    ("think\nthink\nthink\n", true, "answered\nanswered\nanswered\ngoodbye\n"),
    ("think\nthink", true, "answered\nanswered\ngoodbye\n"),
    ("think\nthi", false, "answered\ngoodbye\n"),
    ("pauses\nhello\n", false, ""),
];

#[test]
fn everybody_gets_one_goodbye_behind_all_answers_when_the_server_drains() {
    let faults = |_: &Rng| Faults { end_with_bytes: 1000, ..Faults::none() };
    for (sent, finishes, replies) in GOODBYES {
        simulation().faults(faults).run(|net| {
            let client = join(net, 0, 0, "somebody");
            client.send(sent);
            if finishes {
                client.half_close();
            }
            net.wait(SECOND / 1000);
            net.drain();
            let (received, _) = client.receive_to_end();
            assert_eq!(String::from_utf8_lossy(&received), replies, "{sent:?}");
        });
    }
}

#[test]
fn a_server_that_is_stopped_says_no_goodbye() {
    simulation().run(|net| {
        let client = join(net, 0, 0, "somebody");
        net.stop();
        assert_eq!(client.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
    });
}
