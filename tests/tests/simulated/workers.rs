//! Workers: programs behind a service, here played by the script.

use std::time::Duration;

use nonforker::{
    Restart, Server, WorkerError, Workers,
    codec::{Delimited, Lines},
    sim::{Client, Faults, Listener, Net, Rng, Simulation},
};

use crate::crew::{Settings, WORKER, quiet, run_on, secs};

const ERROR: &str = "error: the worker ended\n";

fn server(set: impl Fn(Settings) -> Settings) -> Server {
    let workers = Workers::at(WORKER, Lines::with_max(100)).expect("a target");
    Server::new().workers("127.0.0.1:1", Lines::new(), set(workers))
}

fn run(
    set: impl Fn(Settings) -> Settings + Copy + 'static,
    simulation: impl FnOnce(Simulation) -> Simulation,
    script: impl Fn(&Net, &Listener),
) {
    run_on(move || server(set), simulation, script);
}

fn faulty(simulation: Simulation) -> Simulation {
    simulation.faults(Faults::lossless).seeds(0..300)
}

/// A worker answers so many requests, each with `name` and the request.
fn answer(worker: &Client, name: &str, requests: usize) {
    for _ in 0..requests {
        let line = worker.receive_until("\n");
        worker.send([name.as_bytes(), &line].concat());
    }
}

#[test]
fn replies_of_several_workers_go_back_in_the_order_of_each_client() {
    run(
        |workers| workers.count(3).in_flight(2),
        faulty,
        |net, listener| {
            let workers = [listener.accept(), listener.accept(), listener.accept()];
            let clients = [net.connect(), net.connect()];
            for nth in 0..6 {
                for (of, client) in clients.iter().enumerate() {
                    client.send(format!("{of}.{nth}\n"));
                }
            }
            // The last worker is the first to answer.
            let mut answered = 0;
            while answered < 12 {
                for worker in workers.iter().rev() {
                    let asked = worker.received();
                    answered += asked.iter().filter(|&&byte| byte == b'\n').count();
                    worker.send(asked);
                }
                net.wait(Duration::from_millis(50));
            }
            for nth in 0..6 {
                for (of, client) in clients.iter().enumerate() {
                    client.expect(format!("{of}.{nth}\n"));
                }
            }
        },
    );
}

#[test]
fn a_worker_that_ends_costs_its_own_requests_and_no_other() {
    run(
        |workers| workers.count(2).in_flight(1),
        quiet,
        |net, listener| {
            let [first, second] = [listener.accept(), listener.accept()];
            let client = net.connect();
            client.send("one\n");
            let (dies, lives) = match net.rng().below(2) {
                0 => (first, second),
                _ => (second, first),
            };
            client.send("two\nthree\n");
            let line = dies.receive_until("\n");
            // The beginning of a reply is dropped.
            dies.send("not yet a repl");
            dies.reset();
            let other = if line == b"one\n" { "two\n" } else { "one\n" };
            assert_eq!(lives.receive_until("\n"), other.as_bytes());
            lives.send(other);
            answer(&lives, "", 1);
            let expected = if line == b"one\n" { [ERROR, other] } else { [other, ERROR] };
            client.expect(expected.concat());
            client.expect("three\n");
            // It is started again, and what the first one has not answered is never its own.
            let again = listener.accept();
            client.send("four\nfive\n");
            answer(&again, "", 1);
            answer(&lives, "", 1);
            client.expect("four\nfive\n");
        },
    );
}

#[test]
fn a_worker_that_is_late_is_replaced_and_what_it_says_then_is_nobodys() {
    run(
        |workers| workers.timeout(Some(secs(5))),
        quiet,
        |net, listener| {
            let slow = listener.accept();
            let client = net.connect();
            client.send("one\n");
            let _ = slow.receive_until("one\n");
            net.wait(secs(3));
            client.send("two\n");
            let began = net.now();
            client.expect(ERROR);
            client.expect(ERROR);
            let took = net.now() - began;
            assert!(took >= Duration::from_millis(1900) && took < secs(3), "{took:?}");
            slow.send("one\n");
            let again = listener.accept();
            client.send("three\n");
            answer(&again, "", 1);
            client.expect("three\n");
        },
    );
}

#[test]
fn the_time_of_a_request_counts_from_when_it_was_the_oldest() {
    run(
        |workers| workers.timeout(Some(secs(5))),
        quiet,
        |net, listener| {
            let worker = listener.accept();
            let client = net.connect();
            client.send("1\n2\n3\n4\n");
            for nth in 1..=4 {
                net.wait(secs(4));
                answer(&worker, "", 1);
                client.expect(format!("{nth}\n"));
            }
        },
    );
}

#[test]
fn what_nobody_asked_for_reaches_nobody() {
    run(
        |workers| workers,
        faulty,
        |net, listener| {
            let worker = listener.accept();
            worker.send("hello\nI am here\n");
            net.wait(secs(1));
            let client = net.connect();
            client.send("one\n");
            answer(&worker, "", 1);
            client.expect("one\n");
            assert_eq!(net.stats().unasked, 2);
        },
    );
}

#[test]
fn a_client_that_asks_much_delays_another_by_what_is_in_flight() {
    run(
        |workers| workers.in_flight(4),
        quiet,
        |net, listener| {
            let worker = listener.accept();
            let (greedy, modest) = (net.connect(), net.connect());
            for nth in 0..500 {
                greedy.send(format!("g{nth}\n"));
            }
            worker.receive_until("g3\n");
            modest.send("m\n");
            net.wait(secs(1));
            for nth in 0..4 {
                worker.send(format!("g{nth}\n"));
            }
            let next = worker.receive_until("m\n");
            assert!(next.len() < "g4\ng5\ng6\nm\n".len() + 1, "{}", String::from_utf8_lossy(&next));
        },
    );
}

#[test]
fn a_full_queue_holds_clients_back_and_lets_them_go_on() {
    run(
        |workers| workers.in_flight(1).queue(3),
        faulty,
        |net, listener| {
            let worker = listener.accept();
            let clients: Vec<_> = (0..4).map(|_| net.connect()).collect();
            for (of, client) in clients.iter().enumerate() {
                for nth in 0..20 {
                    client.send(format!("{of}.{nth}\n"));
                }
            }
            net.wait(secs(1));
            assert!(net.service_stats(1).expect("clients").open_tickets <= 1 + 3 + 4);
            answer(&worker, "", 80);
            for (of, client) in clients.iter().enumerate() {
                for nth in 0..20 {
                    client.expect(format!("{of}.{nth}\n"));
                }
            }
        },
    );
}

#[test]
fn clients_that_leave_are_asked_for_no_more() {
    run(
        |workers| workers.in_flight(2),
        faulty,
        |net, listener| {
            let worker = listener.accept();
            let leaving: Vec<_> = (0..50).map(|_| net.connect()).collect();
            for (of, client) in leaving.iter().enumerate() {
                client.send(format!("{of}\n"));
            }
            net.wait(secs(1));
            for client in &leaving {
                client.reset();
            }
            net.wait(secs(1));
            let stays = net.connect();
            stays.send("stays\n");
            let mut replies = 0;
            loop {
                let line = worker.receive_until("\n");
                worker.send(&line);
                if line == b"stays\n" {
                    break;
                }
                replies += 1;
            }
            assert!(replies <= 2, "only what was in flight: {replies}");
            stays.expect("stays\n");
        },
    );
}

#[test]
fn the_other_way_of_an_error_is_a_close_behind_the_replies_before() {
    run(
        |workers| workers.error(WorkerError::Close).count(2),
        quiet,
        |net, listener| {
            let [first, second] = [listener.accept(), listener.accept()];
            let client = net.connect();
            client.send("1\n2\n3\n");
            net.wait(secs(1));
            // The first has 1 and 3, the second has 2.
            answer(&second, "", 1);
            let line = first.receive_until("\n");
            first.send(&line);
            first.half_close();
            let (replies, _) = client.receive_to_end();
            assert_eq!(replies, b"1\n2\n");
        },
    );
}

#[test]
fn a_frame_that_is_two_on_the_other_side_closes_its_client() {
    let codec = || Delimited::with_max(b"\0", 1000).expect("a delimiter");
    let server = move || {
        let workers = Workers::at(WORKER, Lines::new()).expect("a target").timeout(None);
        Server::new().workers("127.0.0.1:1", codec(), workers)
    };
    quiet(Simulation::new(server)).run(|net| {
        let worker = net.listen(WORKER).accept();
        let client = net.connect();
        client.send("one\0two\nlines\0three\0");
        answer(&worker, "", 1);
        assert_eq!(client.receive_to_end().0, b"one\0");
        let client = net.connect();
        client.send("one\0two\0");
        assert_eq!(worker.receive_until("two\n"), b"one\ntwo\n");
        worker.send("with\0in\nand\n");
        assert_eq!(client.receive_to_end().0, b"");
    });
}

#[test]
fn a_drain_waits_for_the_replies_of_workers() {
    for shards in [1, 3] {
        run(
            |workers| workers,
            |s| faulty(s).shards(shards),
            |net, listener| {
                let worker = listener.accept();
                // Also those of other shards than that of the worker.
                let clients: Vec<_> = (0..3 * shards).map(|_| net.connect()).collect();
                for client in &clients {
                    client.send("one\ntwo\n");
                }
                net.settle();
                net.drain();
                net.wait(secs(1));
                answer(&worker, "to ", 6 * shards);
                for client in &clients {
                    assert_eq!(client.receive_to_end().0, b"to one\nto two\n");
                }
                worker.expect_end();
            },
        );
    }
}

#[test]
fn five_fast_ends_in_a_row_end_the_server() {
    run(
        |workers| workers,
        quiet,
        |net, listener| {
            for _ in 0..5 {
                assert!(!net.has_ended());
                listener.accept().half_close();
            }
            net.wait(secs(15));
            assert!(net.has_ended());
        },
    );
    run(
        |workers| workers.restart(Restart::Always),
        quiet,
        |net, listener| {
            for _ in 0..8 {
                listener.accept().half_close();
            }
            let worker = listener.accept();
            let client = net.connect();
            client.send("one\n");
            answer(&worker, "", 1);
            client.expect("one\n");
        },
    );
}

#[test]
fn a_request_that_kills_workers_never_ends_the_server() {
    run(
        |workers| workers,
        quiet,
        |net, listener| {
            let client = net.connect();
            for _ in 0..7 {
                client.send("kill\n");
                let worker = listener.accept();
                worker.receive_until("kill\n");
                worker.reset();
                client.expect(ERROR);
            }
            client.send("hello\n");
            answer(&listener.accept(), "", 1);
            client.expect("hello\n");
        },
    );
}

#[test]
fn shards_have_the_workers_of_the_whole() {
    run(
        |workers| workers.in_flight(3).queue(5),
        |s| faulty(s).shards(3),
        |net, listener| {
            let worker = listener.accept();
            let clients: Vec<_> = (0..9).map(|_| net.connect()).collect();
            for (of, client) in clients.iter().enumerate() {
                client.send(format!("{of}.0\n{of}.1\n"));
            }
            answer(&worker, "", 18);
            for (of, client) in clients.iter().enumerate() {
                client.expect(format!("{of}.0\n{of}.1\n"));
            }
            assert!(listener.accepted().is_none(), "one worker, and not one for each shard");
        },
    );
}

/// What a worker does behind a reply. Returns whether it has ended, or will say nothing more.
fn misbehave(rng: &Rng, worker: &Client) -> bool {
    match rng.below(12) {
        0 => worker.reset(),
        1 => {
            worker.send("half a rep");
            worker.half_close();
        }
        2 => worker.send("half a rep"),
        _ => return false,
    }
    true
}

#[test]
fn no_client_ever_gets_the_reply_of_another() {
    let set = |workers: Settings| workers.count(2).in_flight(3).timeout(Some(secs(5)));
    run(set, faulty, |net, listener| {
        let rng = net.rng();
        let clients: Vec<_> = (0..5).map(|_| net.connect()).collect();
        for nth in 0..8 {
            for (of, client) in clients.iter().enumerate() {
                client.send(format!("{of}.{nth}\n"));
            }
        }
        let mut workers: Vec<(Client, Vec<u8>)> = Vec::new();
        let mut got = vec![Vec::new(); clients.len()];
        let lines = |got: &Vec<u8>| got.iter().filter(|&&byte| byte == b'\n').count();
        for turn in 0.. {
            assert!(turn < 2000, "nobody makes progress");
            for (client, got) in clients.iter().zip(&mut got) {
                got.extend(client.received());
            }
            if got.iter().all(|got| lines(got) >= 8) {
                break;
            }
            workers.extend(std::iter::from_fn(|| listener.accepted()).map(|new| (new, Vec::new())));
            workers.retain_mut(|(worker, asked)| {
                asked.extend(worker.received());
                let mut ended = worker.ending().is_some();
                while !ended && let Some(end) = asked.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = asked.drain(..=end).collect();
                    worker.send(line);
                    ended = misbehave(&rng, worker);
                }
                !ended
            });
            net.wait(Duration::from_millis(100));
        }
        for (of, got) in got.iter().enumerate() {
            let text = String::from_utf8_lossy(got);
            for (nth, line) in text.lines().enumerate() {
                let own = line == format!("{of}.{nth}");
                assert!(own || line == "error: the worker ended", "{of}.{nth}: {line}");
            }
        }
    });
}
