//! A server that is away: its handler works for long, or its process is stopped.

use std::{cell::RefCell, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Rng, Simulation, work},
};

const SECOND: Duration = Duration::from_secs(1);

/// Echoes, and works a millisecond for each byte of a line that begins with `w`. A line `give` is
/// answered with a megabyte.
fn server(limits: Limits) -> Server {
    Server::new().limits(limits).serve("127.0.0.1:1685", Lines::new(), answer)
}

fn answer<H: Handler<Codec = Lines>>(conn: &mut Conn<'_, H>, line: &[u8]) {
    if line.starts_with(b"w") {
        work(Duration::from_millis(line.len() as u64));
    }
    if line == b"give" { conn.send(vec![b'x'; 1 << 20]) } else { conn.send(line) }
}

fn without_faults(limits: impl Fn() -> Limits + 'static) -> Simulation {
    Simulation::new(move || server(limits())).faults(|_| Faults::none()).seeds(0..20)
}

#[test]
fn work_takes_time_in_the_callbacks_of_a_simulation_only() {
    // Elsewhere it would not end.
    work(Duration::MAX);
    without_faults(Limits::new).run(|net| {
        work(SECOND);
        assert_eq!(net.now(), Duration::ZERO, "a script does not work");
        let (one, other) = (net.connect(), net.connect());
        one.send(format!("{}\n", "w".repeat(3000)));
        other.send("hello\n");
        other.expect("hello\n");
        assert!((3000..3001).contains(&net.now().as_millis()), "{:?}", net.now());
    });
}

#[test]
fn more_work_than_there_is_time_is_a_year() {
    let server = || {
        Server::new().serve("127.0.0.1:1685", Lines::new(), |conn, line| {
            work(Duration::MAX);
            conn.send(line);
        })
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..1).run(|net| {
        let client = net.connect();
        client.send("a\nb\n");
        client.half_close();
        // The script's patience is a day.
        net.wait(SECOND);
        assert_eq!(client.receive_to_end(), (b"a\nb\n".to_vec(), Some(Ending::Finished)));
        assert_eq!(net.now().as_secs() / (365 * 24 * 3600), 2);
    });
}

/// Lines of which every third takes some milliseconds.
fn line(rng: &Rng) -> Vec<u8> {
    let first = [b'a', b'b', b'w'][rng.between(0, 2)];
    let length = rng.magnitude(300);
    std::iter::once(first).chain((b'a'..=b'z').cycle().take(length)).chain([b'\n']).collect()
}

/// Whatever goes on while the server is away, everybody gets what they asked for and no more.
fn is_echoed(net: &Net, lossless: bool) {
    for visit in net.crowd(6, line) {
        let (sent, manner) = (visit.requests.concat(), visit.manner);
        assert!(sent.starts_with(&visit.received), "{manner:?} got what it did not send");
        if lossless && manner.is_answered() {
            assert_eq!(visit.received.len(), sent.len(), "{manner:?} is answered");
            assert_eq!(visit.ending, Some(Ending::Finished), "{manner:?} sees the end");
        }
    }
}

fn patient() -> Limits {
    Limits::new().frame_timeout(None).write_timeout(None).unused_timeout(None)
}

#[test]
fn what_arrives_while_a_handler_works_is_handled_afterwards() {
    Simulation::new(|| server(patient())).seeds(0..400).run(|net| is_echoed(net, true));
    let breaking = Simulation::new(|| server(patient())).seeds(0..400).faults(Faults::swarm);
    breaking.run(|net| is_echoed(net, false));
}

#[test]
fn what_arrives_while_the_process_is_away_is_handled_afterwards() {
    let faults = |rng: &Rng| Faults { away: 100, ..Faults::lossless(rng) };
    Simulation::new(|| server(patient())).seeds(0..400).faults(faults).run(|net| {
        is_echoed(net, true);
    });
}

#[test]
fn clients_go_on_while_the_process_is_away() {
    without_faults(patient).run(|net| {
        let client = net.connect();
        client.set_window(100_000);
        client.send("give\n");
        client.stall();
        net.wait(SECOND);
        client.read_slowly(1000, SECOND);
        net.away(10 * SECOND);
        assert_eq!(client.received().len(), 10_000);
        client.send("hello\n");
        net.away(SECOND);
        client.read_all();
        client.half_close();
        let (received, ending) = client.receive_to_end();
        assert_eq!(received.len() + 10_000, (1 << 20) + 1 + 6);
        assert_eq!(ending, Some(Ending::Finished));
        net.drain();
        net.away(SECOND);
        net.settle();
        assert!(net.has_ended());
        net.away(SECOND);
    });
}

/// What a client does to be owed a reply that ends with `b\n`, and what it does meanwhile.
type Owed = (&'static str, fn(&Net, &Client), fn(&Client));

const OWED: &[Owed] = &[
    ("idle", |_, client| client.expect("a\n"), |client| client.send("b\n")),
    (
        "frame",
        |_, client| {
            client.expect("a\n");
            client.send("b");
        },
        |client| client.send("\n"),
    ),
    (
        "write",
        |net, client| {
            client.set_window(100_000);
            client.stall();
            client.send("give\nb\n");
            net.wait(SECOND / 2);
        },
        |client| client.read_slowly(50_000, SECOND / 4),
    ),
];

/// The process is stopped for three seconds.
fn is_stopped(net: &Net, meanwhile: &dyn Fn()) {
    meanwhile();
    net.away(3 * SECOND);
}

/// The handler works for three seconds for somebody else.
fn works(net: &Net, meanwhile: &dyn Fn()) {
    let other = net.connect();
    other.send("a\n");
    other.expect("a\n");
    net.set_faults(Faults { delay: 1000, ..Faults::none() });
    meanwhile();
    net.set_faults(Faults::none());
    other.send(format!("{}\n", "w".repeat(3000)));
    other.half_close();
    other.expect(format!("{}\n", "w".repeat(3000)));
    other.expect_end();
}

type Away = fn(&Net, &dyn Fn());

/// Every timeout is a second.
fn impatient() -> Limits {
    let second = Some(SECOND);
    Limits::new().frame_timeout(second).write_timeout(second).idle_timeout(second)
}

#[test]
fn a_deadline_measures_the_peer_and_not_the_process() {
    let aways: [(&str, Away); 2] = [("stopped", is_stopped), ("working", works)];
    for (how, away) in aways {
        for (what, before, meanwhile) in OWED {
            without_faults(impatient).run(|net| {
                let client = net.connect();
                client.send("a\n");
                before(net, &client);
                away(net, &|| meanwhile(&client));
                client.read_all();
                client.half_close();
                let (received, ending) = client.receive_to_end();
                assert!(received.ends_with(b"b\n"), "{how}, {what}: {} bytes", received.len());
                assert_eq!(ending, Some(Ending::Finished), "{how}, {what}");
            });
        }
    }
}

/// The same, of which the last line needs no end. Notes why connections ended.
#[derive(Default)]
struct Notes(Rc<RefCell<Vec<String>>>);

impl Handler for Notes {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        answer(conn, line);
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

/// What a client has begun to say, what it says of that meanwhile before it finishes, and the reply.
const FINISHES: [(&str, &str, &str); 3] = [("", "", ""), ("b", "", "b\n"), ("b", "c", "bc\n")];

#[test]
fn that_a_peer_finished_in_time_counts_as_its_last_bytes_do() {
    let reasons = Rc::<RefCell<Vec<String>>>::default();
    let aways: [(&str, Away); 2] = [("stopped", is_stopped), ("working", works)];
    for ((how, away), (begun, rest, reply)) in
        aways.into_iter().flat_map(|away| FINISHES.map(|finish| (away, finish)))
    {
        let noted = Rc::clone(&reasons);
        let server = move || {
            noted.borrow_mut().clear();
            let (lines, notes) = (Lines::new().accept_unterminated(), Notes(Rc::clone(&noted)));
            Server::new().limits(impatient()).serve_with("127.0.0.1:1685", lines, notes)
        };
        Simulation::new(server).faults(|_| Faults::none()).seeds(0..20).run(|net| {
            let client = net.connect();
            client.send(format!("a\n{begun}"));
            client.expect("a\n");
            away(net, &|| {
                client.send(rest);
                client.half_close();
            });
            let (received, ending) = client.receive_to_end();
            let case = format!("{how}, {begun:?}, {rest:?}");
            assert_eq!(String::from_utf8_lossy(&received), reply, "{case}");
            assert_eq!(ending, Some(Ending::Finished), "{case}");
            net.settle();
            let reasons = reasons.borrow();
            assert!(
                reasons.iter().all(|why| why == "the peer has finished"),
                "{case}: {reasons:?}"
            );
        });
    }
}
