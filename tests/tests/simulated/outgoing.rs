//! Connections that handlers ask for: how they begin, how they fail, and what a drain does to them.

use std::{cell::RefCell, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, Connections, Handler, Limits, Outcome, Server, ServiceLimits,
    codec::Lines,
    sim::{Ending, Faults, Listener, Net, Simulation},
};

const TARGET: &str = "10.9.9.9:7";

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What happened to the outgoing connections of a server, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// Each line of a client goes to the target by a connection of its own, and its answer comes back.
struct Front {
    target: String,
}

impl Handler for Front {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let call = Call { question: line.to_vec(), ticket: Some(conn.defer()) };
        conn.connect::<Back>(&self.target, call)?;
        Ok(())
    }
}

#[derive(Default)]
struct Call {
    question: Vec<u8>,
    ticket: Option<nonforker::Ticket<Front>>,
}

struct Back {
    log: Log,
}

impl Back {
    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }
}

impl Handler for Back {
    type Codec = Lines;
    type Session = Call;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.note(format!("open {}", conn.peer()));
        let question = std::mem::take(&mut conn.session_mut().question);
        conn.send(&question[..]);
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if let Some(ticket) = conn.session_mut().ticket.take() {
            let _ = ticket.send(line.to_vec());
        }
        conn.close();
        Ok(())
    }

    fn draining(&mut self, _conn: &mut Conn<'_, Self>) -> Outcome {
        self.note("draining");
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.note(format!("closed: {reason}"));
        if let Some(ticket) = conn.session_mut().ticket.take() {
            let _ = ticket.send(b"no answer".to_vec());
        }
    }
}

fn server_to(target: &str, limits: Limits, back: ServiceLimits, log: &Log) -> Server {
    Server::new()
        .limits(limits)
        .serve_with("127.0.0.1:1", Lines::new(), Front { target: target.to_owned() })
        .service(Lines::new(), Back { log: Rc::clone(log) })
        .service_limits(back)
}

/// Runs a script against that server, with what happens to its outgoing connections.
fn run(
    simulation: impl FnOnce(Simulation) -> Simulation,
    target: &str,
    script: impl Fn(&Net, &Log),
) {
    let log = Log::default();
    let (of_server, target) = (Rc::clone(&log), target.to_owned());
    let server = move || server_to(&target, Limits::new(), ServiceLimits::new(), &of_server);
    simulation(Simulation::new(server)).run(|net| {
        log.borrow_mut().clear();
        script(net, &log);
    });
}

fn answers(listener: &Listener) {
    let back = listener.accept();
    let question = back.receive_until("\n");
    back.send(&question);
    back.expect_end();
    back.half_close();
}

#[test]
fn a_request_is_answered_by_a_server_behind() {
    run(
        |simulation| simulation.seeds(0..300),
        TARGET,
        |net, log| {
            let listener = net.listen(TARGET);
            let client = net.connect();
            for line in ["one\n", "two\n", "three\n"] {
                client.send(line);
                answers(&listener);
                client.expect(line);
            }
            assert_eq!(log.borrow()[0], format!("open {TARGET}"));
            net.settle();
            assert_eq!((net.stats().outgoing, net.stats().accepted), (3, 1));
        },
    );
}

#[test]
fn what_cannot_be_made_is_told_once_and_was_never_open() {
    for (what, seconds, reason) in
        [("refuses", 1, "refused"), ("is not there", 1, "refused"), ("is silent", 11, "no answer")]
    {
        run(
            |simulation| simulation.faults(|_| Faults::none()),
            TARGET,
            |net, log| {
                match what {
                    "refuses" => net.listen(TARGET).refuse(),
                    "is silent" => net.listen(TARGET).keep_silent(),
                    _ => {}
                }
                let client = net.connect();
                client.send("hello\n");
                let began = net.now();
                client.expect("no answer\n");
                assert!(net.now() - began < secs(seconds), "{what}: after {:?}", net.now() - began);
                let log = log.borrow();
                assert!(log.len() == 1 && log[0].starts_with("closed: cannot connect"), "{log:?}");
                assert!(log[0].to_lowercase().contains(reason), "{what}: {log:?}");
            },
        );
    }
}

#[test]
fn a_late_answer_counts_until_the_deadline() {
    for (delay, stands) in [(9_900, true), (10_100, false)] {
        run(
            |simulation| simulation.faults(|_| Faults::none()),
            TARGET,
            |net, log| {
                let listener = net.listen(TARGET);
                listener.answer_after(Duration::from_millis(delay));
                let client = net.connect();
                client.send("hello\n");
                if stands {
                    answers(&listener);
                    client.expect("hello\n");
                } else {
                    client.expect("no answer\n");
                    net.wait(secs(5));
                    assert!(listener.accepted().is_none(), "an attempt was abandoned, and goes on");
                    assert!(log.borrow()[0].contains("no answer in time"), "{:?}", log.borrow());
                }
            },
        );
    }
}

#[test]
fn a_name_is_looked_up_once_and_its_addresses_are_tried_in_turns() {
    run(
        |simulation| simulation.seeds(0..100),
        "redis.example:7",
        |net, log| {
            net.name(
                "redis.example",
                &[[10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
            );
            let [first, second] = [net.listen("10.0.0.1:7"), net.listen("10.0.0.2:7")];
            first.keep_silent();
            second.refuse();
            let third = net.listen("10.0.0.3:7");
            let client = net.connect();
            client.send("hello\n");
            let began = net.now();
            answers(&third);
            client.expect("hello\n");
            assert!(net.now() - began < secs(3), "{:?}", net.now() - began);
            assert_eq!(log.borrow()[0], "open 10.0.0.3:7");
            // From now on another address, which nobody asks for as long as the old ones are fresh.
            net.name("redis.example", &[[10, 0, 0, 4].into()]);
            let fourth = net.listen("10.0.0.4:7");
            client.send("again\n");
            answers(&third);
            client.expect("again\n");
            net.wait(secs(31));
            client.send("later\n");
            answers(&fourth);
            client.expect("later\n");
        },
    );
}

#[test]
fn a_name_that_does_not_resolve_fails_and_is_asked_for_again() {
    run(
        |simulation| simulation.faults(|_| Faults::none()),
        "nobody.example:7",
        |net, log| {
            let client = net.connect();
            client.send("hello\n");
            client.expect("no answer\n");
            assert!(log.borrow()[0].contains("entity not found"), "{:?}", log.borrow());
            net.name("nobody.example", &[[10, 0, 0, 1].into()]);
            net.wait(secs(2));
            let listener = net.listen("10.0.0.1:7");
            client.send("hello\n");
            answers(&listener);
            client.expect("hello\n");
        },
    );
}

#[test]
fn the_first_address_that_answers_wins_and_the_others_are_let_go() {
    run(
        |simulation| simulation.faults(|_| Faults::none()),
        "redis.example:7",
        |net, _| {
            net.name("redis.example", &[[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]);
            let slow = net.listen("10.0.0.1:7");
            slow.answer_after(Duration::from_millis(300));
            let fast = net.listen("10.0.0.2:7");
            fast.answer_after(Duration::from_millis(20));
            let client = net.connect();
            client.send("hello\n");
            let began = net.now();
            answers(&fast);
            client.expect("hello\n");
            let took = net.now() - began;
            assert!(took >= Duration::from_millis(250), "it tried both at once: {took:?}");
            net.wait(secs(1));
            assert!(slow.accepted().is_none(), "the other attempt goes on");
        },
    );
}

#[test]
fn a_drain_ends_them_when_no_client_is_left() {
    run(
        |simulation| simulation.seeds(0..200),
        TARGET,
        |net, log| {
            let listener = net.listen(TARGET);
            let client = net.connect();
            client.send("hello\n");
            let back = listener.accept();
            net.drain();
            net.wait(secs(1));
            let question = back.receive_until("\n");
            back.send(&question);
            client.expect("hello\n");
            client.half_close();
            client.expect_end();
            net.settle();
            assert!(!log.borrow().iter().any(|line| line == "draining"), "it was closed before");
        },
    );
}

/// It connects as it starts, and again whenever the connection ends.
struct Clinging;

impl Handler for Clinging {
    type Codec = Lines;
    /// It was asked for.
    type Session = bool;

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        all.connect::<Self>(TARGET, true)?;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }

    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("goodbye");
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        let again = |_: &mut Self, all: &mut Connections<'_, Self>| -> Outcome {
            all.connect::<Self>(TARGET, true)?;
            Ok(())
        };
        if *conn.session() {
            let _ = conn.others().after(Duration::from_millis(100), again);
        }
    }
}

fn clinging() -> Server {
    Server::new()
        .limits(Limits::new().unused_timeout(Some(secs(1))).max_connections(Some(2)))
        .service(Lines::new(), Clinging)
        .also_on("127.0.0.1:1")
}

#[test]
fn a_drain_ends_a_server_that_has_only_such_connections() {
    Simulation::new(clinging).seeds(0..300).run(|net| {
        let listener = net.listen(TARGET);
        let back = listener.accept();
        back.send("one\n");
        back.expect("one\n");
        let began = net.now();
        net.drain();
        let (rest, ending) = back.receive_to_end();
        assert_eq!((&rest[..], ending), (&b"goodbye\n"[..], Some(Ending::Finished)));
        back.half_close();
        net.settle();
        assert!(net.has_ended() && net.now() - began < secs(5), "{:?}", net.now() - began);
    });
}

#[test]
fn it_begins_again_and_is_not_unused_and_makes_no_room() {
    Simulation::new(clinging).seeds(0..100).run(|net| {
        let listener = net.listen(TARGET);
        listener.accept().reset();
        let back = listener.accept();
        net.wait(secs(100));
        let first = net.connect();
        first.send("a\n");
        first.expect("a\n");
        // A client waits, and the silent connection is not the one that goes.
        let second = net.connect();
        second.send("b\n");
        net.wait(secs(10));
        assert_eq!(second.received(), b"");
        back.send("here\n");
        back.expect("here\n");
        first.half_close();
        second.expect("b\n");
    });
}

#[test]
fn it_takes_a_place_and_fails_without_one() {
    let log = Log::default();
    let of_server = Rc::clone(&log);
    let server = move || {
        let back = ServiceLimits::new().max_connections(Some(2));
        server_to(TARGET, Limits::new(), back, &of_server)
    };
    Simulation::new(server).faults(|_| Faults::none()).run(|net| {
        log.borrow_mut().clear();
        let listener = net.listen(TARGET);
        let clients: Vec<_> = (0..3).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("x\n");
            net.wait(Duration::from_millis(100));
        }
        clients[2].expect("no answer\n");
        let said = log.borrow().join("; ");
        assert!(said.contains("all places are taken"), "{said}");
        answers(&listener);
        clients[0].expect("x\n");
        net.wait(Duration::from_millis(100));
        clients[2].send("y\n");
        answers(&listener);
        clients[1].expect("x\n");
        answers(&listener);
        clients[2].expect("y\n");
    });
}

#[test]
fn whatever_goes_wrong_each_request_has_one_answer() {
    run(
        |simulation| simulation.seeds(0..1000).faults(Faults::swarm),
        TARGET,
        |net, _| {
            let listener = net.listen(TARGET);
            let clients: Vec<_> = (0..4).map(|_| net.connect()).collect();
            for client in &clients {
                client.send("one\ntwo\n");
            }
            for at in 0..6 {
                net.wait(Duration::from_millis(200));
                let Some(back) = listener.accepted() else { continue };
                match net.rng().below(5) {
                    0 => back.reset(),
                    1 => back.half_close(),
                    2 => back.send("half an ans"),
                    _ => back.send(format!("answer {at}\n")),
                }
            }
            listener.refuse();
            net.wait(secs(60));
            for client in &clients {
                let lines = client.received();
                let lines =
                    lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
                assert!(lines <= 2, "{lines} answers");
            }
        },
    );
}

#[test]
fn operations_that_fail_one_after_the_other_leave_nothing_behind() {
    let log = Log::default();
    let server = move || server_to(TARGET, Limits::new(), ServiceLimits::new(), &log);
    let operations = Simulation::new(server).torture(|net| {
        let listener = net.listen(TARGET);
        let client = net.connect();
        client.send("hello\n");
        net.wait(secs(1));
        if let Some(back) = listener.accepted() {
            back.send("answer\n");
        }
        client.half_close();
        let (said, _) = client.receive_to_end();
        assert!(b"answer\n".starts_with(&said) || b"no answer\n".starts_with(&said), "{said:?}");
    });
    assert!(operations >= 8, "{operations}");
}
