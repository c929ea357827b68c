//! The tagged protocol: workers that know their clients, here played by the script.

use std::time::Duration;

use nonforker::{
    Limits, Protocol, Server, Workers,
    codec::{Delimited, Lines},
    sim::{Client, Ending, Faults, Listener, Net, Simulation},
};

use crate::{
    crew::{Settings, WORKER, quiet, run_on, secs},
    tagged_always::Book,
};

fn server(set: impl Fn(Settings) -> Settings) -> Server {
    let workers = Workers::at(WORKER, Lines::with_max(100_000)).expect("a target");
    let limits = Limits::new().high_watermark(1000).output_cap(20_000);
    let workers = set(workers.protocol(Protocol::Tagged));
    Server::new().limits(limits).workers("127.0.0.1:1", Lines::new(), workers)
}

pub(crate) fn run(
    set: impl Fn(Settings) -> Settings + Copy + 'static,
    simulation: impl FnOnce(Simulation) -> Simulation,
    script: impl Fn(&Net, &Listener),
) {
    run_on(move || server(set), simulation, script);
}

pub(crate) fn faulty(simulation: Simulation) -> Simulation {
    simulation.faults(Faults::lossless).seeds(0..200)
}

pub(crate) fn sharded(simulation: Simulation) -> Simulation {
    faulty(simulation).shards(3)
}

/// The first line for a worker, and the ID in it.
fn opened(worker: &Client) -> String {
    let line = worker.receive_until("\n");
    let line = String::from_utf8(line).expect("it is text");
    let id = line.strip_prefix("open ").and_then(|rest| rest.split(' ').next());
    id.expect("an open comes first").to_owned()
}

#[test]
fn a_worker_knows_its_clients_and_speaks_to_any_of_them_at_any_time() {
    for mode in [faulty, sharded] {
        run(
            |workers| workers,
            mode,
            |net, listener| {
                let worker = listener.accept();
                let ann = net.connect();
                let line = worker.receive_until("\n");
                assert_eq!(String::from_utf8_lossy(&line), format!("open 1 {}\n", ann.peer()));
                let bob = net.connect();
                assert_eq!(opened(&worker), "2");
                ann.send("hello\n");
                worker.expect("data 1 hello\n");
                worker.send("data 2 ann: hello\ndata 1  you  said\tit \ndata 2\n");
                bob.expect("ann: hello\n\n");
                ann.expect(" you  said\tit \n");
                bob.send(" two  blanks \n\n");
                worker.expect("data 2  two  blanks \ndata 2 \n");
                bob.reset();
                worker.expect("close 2 reset\n");
                worker.send("data 2 lost\n");
                worker.send("data 1 bye\nclose 1\n");
                ann.expect("bye\n");
                ann.expect_end();
                worker.expect("close 1 worker\n");
            },
        );
    }
}

#[test]
fn a_client_stays_with_the_worker_that_had_the_fewest() {
    run(
        |workers| workers.count(2),
        quiet,
        |net, listener| {
            let workers = [listener.accept(), listener.accept()];
            let mut books = [Book::default(), Book::default()];
            let clients: Vec<_> = (0..6).map(|_| net.connect()).collect();
            for (nth, client) in clients.iter().enumerate() {
                client.send(format!("{nth}.0\n{nth}.1\n"));
            }
            net.wait(secs(1));
            for (worker, book) in workers.iter().zip(&mut books) {
                book.read(worker);
                assert_eq!(book.clients.len(), 3);
                // What a worker says of the other one's clients reaches nobody.
                worker.send((1..=6).map(|id| format!("data {id} yours\n")).collect::<String>());
            }
            for client in &clients {
                client.send("2\n");
                client.expect("yours\n");
            }
            net.wait(secs(1));
            for (worker, book) in workers.iter().zip(&mut books) {
                book.read(worker);
                for (said, _) in book.clients.values() {
                    let from = said[0].chars().next().expect("a digit");
                    assert_eq!(*said, [format!("{from}.0"), format!("{from}.1"), "2".into()]);
                }
            }
            assert_eq!(net.stats().unknown_ids, 6);
        },
    );
}

#[test]
fn what_is_said_to_a_client_that_has_finished_is_delivered_until_the_worker_is_done() {
    for mode in [faulty, sharded] {
        run(
            |workers| workers.timeout(Some(secs(30))),
            mode,
            |net, listener| {
                let worker = listener.accept();
                let client = net.connect();
                client.send("sort\n");
                client.half_close();
                let id = opened(&worker);
                worker.expect(format!("data {id} sort\nclose {id} end\n"));
                net.wait(secs(20));
                worker.send(format!("data {id} one\n"));
                client.expect("one\n");
                net.wait(secs(5));
                worker.send(format!("data {id} two\nclose {id}\ndata {id} three\n"));
                client.expect("two\n");
                client.expect_end();
                let other = net.connect();
                assert_eq!(opened(&worker), "2", "and there is no second close");
                other.reset();
            },
        );
    }
}

#[test]
fn a_worker_that_is_never_done_has_its_time() {
    run(
        |workers| workers.timeout(Some(secs(5))),
        quiet,
        |net, listener| {
            let worker = listener.accept();
            let first = net.connect();
            first.half_close();
            let id = opened(&worker);
            worker.expect(format!("close {id} end\n"));
            net.wait(secs(3));
            let second = net.connect();
            second.half_close();
            worker.send(format!("data {id} half an answer\n"));
            let began = net.now();
            first.expect("half an answer\n");
            first.expect_end();
            let took = net.now() - began;
            assert!(took > secs(1) && took < secs(3), "{took:?}");
            second.expect_end();
            let took = net.now() - began;
            assert!(took > secs(4) && took < secs(6), "{took:?}");
        },
    );
}

#[test]
fn what_is_none_of_the_protocol_reaches_nobody_and_is_counted() {
    run(
        |workers| workers,
        faulty,
        |net, listener| {
            let worker = listener.accept();
            worker.send("hello\ndata 1 too early\nclose 77\ndata x y\n\ndata\nclose 1 end\n");
            net.wait(secs(1));
            let client = net.connect();
            let id = opened(&worker);
            worker.send(format!("open {id}\ndata {id} first\n"));
            client.expect("first\n");
            client.reset();
            worker.expect(format!("close {id} reset\n"));
            worker.send(format!("data {id} late\nclose {id}\n"));
            net.wait(secs(1));
            let stats = net.stats();
            assert_eq!((stats.bad_lines, stats.unknown_ids, stats.unasked), (5, 5, 0));
        },
    );
}

#[test]
fn the_end_of_a_worker_is_that_of_its_clients_and_of_no_other() {
    for mode in [quiet as fn(_) -> _, |s: Simulation| quiet(s).shards(2)] {
        run(
            |workers| workers.count(2),
            mode,
            |net, listener| {
                let [one, two] = [listener.accept(), listener.accept()];
                let clients = [net.connect(), net.connect()];
                let first = opened(&one);
                let second = opened(&two);
                assert_eq!([first.as_str(), second.as_str()].iter().max(), Some(&"2"));
                one.send(format!("data {first} last words\n"));
                net.wait(secs(1));
                let (goes, stays) = match first.as_str() {
                    "1" => (&clients[0], &clients[1]),
                    _ => (&clients[1], &clients[0]),
                };
                one.reset();
                goes.expect("last words\n");
                goes.expect_end();
                stays.send("hello\n");
                two.expect(format!("data {second} hello\n"));
                // While it is away, clients go to the other one; no ID comes again.
                let new = net.connect();
                assert_eq!(opened(&two), "3");
                let again = listener.accept();
                let newer = net.connect();
                assert_eq!(opened(&again), "4");
                again.send(format!("data {second} x\ndata {first} x\ndata 3 x\n"));
                net.wait(secs(1));
                for client in [stays, &new, &newer] {
                    assert_eq!(client.received(), b"");
                }
            },
        );
    }
}

#[test]
fn while_no_worker_lives_clients_wait_and_what_they_say_does() {
    for mode in [faulty, sharded] {
        run(
            |workers| workers.queue(4),
            mode,
            |net, listener| {
                let worker = listener.accept();
                let used = net.connect();
                opened(&worker);
                used.send("x\n");
                let _ = worker.receive_until("data 1 x\n");
                worker.reset();
                used.expect_end();
                let clients: Vec<_> = (0..5).map(|_| net.connect()).collect();
                for client in &clients {
                    client.send("1\n2\n3\n4\n5\n6\n7\n");
                }
                // This one leaves before anybody has heard of it.
                let leaves = net.connect();
                leaves.send("x\n");
                leaves.reset();
                net.wait(Duration::from_micros(net.rng().below(200_000)));
                let again = listener.accept();
                let mut book = Book::default();
                let is_asked = |said: &Vec<String>| said.last().is_some_and(|last| last == "7");
                while book.clients.values().filter(|(said, _)| is_asked(said)).count() < 5 {
                    net.wait(Duration::from_millis(10));
                    book.read(&again);
                    assert!(net.now() < secs(100), "{:?}", book.clients);
                }
                book.clients.retain(|_, (said, _)| is_asked(said));
                assert_eq!(book.clients.len(), 5);
                for (said, _) in book.clients.values() {
                    assert_eq!(*said, ["1", "2", "3", "4", "5", "6", "7"]);
                }
            },
        );
    }
}

#[test]
fn a_client_that_does_not_take_what_is_said_to_it_is_closed_and_nobody_waits() {
    for mode in [quiet as fn(_) -> _, |s: Simulation| quiet(s).shards(3)] {
        run(
            |workers| workers,
            mode,
            |net, listener| {
                let worker = listener.accept();
                let deaf = net.connect();
                deaf.set_window(1000);
                deaf.stall();
                let other = net.connect();
                other.send("x\n");
                let mut book = Book::default();
                net.wait(secs(1));
                book.read(&worker);
                let (&deaf_id, &other_id) = match &book.clients.iter().collect::<Vec<_>>()[..] {
                    [(one, (said, _)), (two, _)] if said.is_empty() => (*one, *two),
                    [(one, _), (two, _)] => (*two, *one),
                    _ => panic!("two are there"),
                };
                for nth in 0..100 {
                    let text = "x".repeat(1000);
                    worker.send(format!("data {deaf_id} {text}\ndata {other_id} {nth}\n"));
                }
                for nth in 0..100 {
                    other.expect(format!("{nth}\n"));
                }
                net.wait(secs(1));
                book.read(&worker);
                assert_eq!(book.clients[&deaf_id].1.as_deref(), Some("limit"));
                assert_eq!(book.clients[&other_id].1, None);
                deaf.read_all();
                assert_eq!(deaf.receive_to_end().1, Some(Ending::Reset));
            },
        );
    }
}

#[test]
fn a_worker_that_reads_nothing_holds_its_clients_back_and_is_replaced() {
    for mode in [quiet as fn(_) -> _, |s: Simulation| quiet(s).shards(2)] {
        run(
            |workers| workers.queue(10).timeout(Some(secs(5))),
            mode,
            |net, listener| {
                let worker = listener.accept();
                worker.set_window(1000);
                worker.stall();
                let client = net.connect();
                let line = format!("{}\n", "x".repeat(10_000));
                (0..1000).for_each(|_| client.send(&line));
                net.wait(secs(4));
                // What is under way to the worker, and what waits: not all 10 MB.
                let received = net.stats().received_bytes;
                assert!(received < 2_000_000, "{received}");
                assert_eq!(client.ending(), None);
                let again = listener.accept();
                assert!(client.receive_to_end().1.is_some());
                net.connect().send("hello\n");
                let id = opened(&again);
                again.expect(format!("data {id} hello\n"));
            },
        );
    }
}

#[test]
fn what_does_not_fit_the_other_side_closes_the_client() {
    let codec = || Delimited::with_max(b"\0", 1000).expect("a delimiter");
    let server = move || {
        let workers = Workers::at(WORKER, Lines::new()).expect("a target");
        let workers = workers.protocol(Protocol::Tagged);
        Server::new().workers("127.0.0.1:1", codec(), workers)
    };
    for shards in [1, 2] {
        quiet(Simulation::new(server)).shards(shards).run(|net| {
            let worker = net.listen(WORKER).accept();
            let client = net.connect();
            client.send("one\0");
            worker.receive_until("data 1 one\n");
            client.send("two\nlines\0");
            worker.expect("close 1 limit\n");
            assert_eq!(client.receive_to_end().0, b"");
            let client = net.connect();
            worker.receive_until("\n");
            worker.send("data 2 fits\ndata 2 with\0in\ndata 2 more\n");
            worker.expect("close 2 limit\n");
            assert_eq!(client.receive_to_end().0, b"fits\0");
        });
    }
}
