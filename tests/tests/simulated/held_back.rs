//! Clients of workers that are held back: by a full queue, by a full mailbox, and not for ever.

use std::time::Duration;

use nonforker::{
    Limits, Protocol, Server, Workers,
    codec::Lines,
    sim::{Client, Faults, Listener, Net, Simulation},
};

use crate::crew::{Settings, WORKER};

/// A server where at most `queue` requests wait, and `remote_max` closures of other shards.
fn server(queue: usize, remote_max: usize, protocol: Protocol) -> Server {
    let workers = Workers::at(WORKER, Lines::with_max(20_000)).expect("a target");
    let set = |workers: Settings| workers.in_flight(1).queue(queue).protocol(protocol);
    Server::new().limits(Limits::new().remote_max(remote_max)).workers(
        "127.0.0.1:1",
        Lines::with_max(20_000).accept_unterminated(),
        set(workers),
    )
}

fn faulty(simulation: Simulation) -> Simulation {
    simulation.faults(Faults::lossless).seeds(0..100)
}

fn worker(net: &Net) -> (Listener, Client) {
    let listener = net.listen(WORKER);
    let worker = listener.accept();
    (listener, worker)
}

#[test]
fn no_more_requests_wait_than_may_and_the_rest_is_in_the_account() {
    for shards in [1, 3] {
        let simulation = Simulation::new(|| server(3, 10_000, Protocol::Plain)).shards(shards);
        simulation.faults(|_| Faults::none()).seeds(0..20).run(|net| {
            let (_listener, worker) = worker(net);
            let line = format!("{}\n", "x".repeat(10_000));
            let clients: Vec<_> = (0..30).map(|_| net.connect()).collect();
            clients.iter().for_each(|client| client.send(&line));
            // A simulated window may be narrow, and the worker has 30 s.
            net.wait(Duration::from_secs(20));
            let stats = net.stats();
            assert!(stats.open_tickets <= 1 + 3, "{}", stats.open_tickets);
            assert!(stats.buffered_bytes >= 26 * 10_000, "{}", stats.buffered_bytes);
            let replies: Vec<_> = clients
                .iter()
                .map(|_| {
                    let asked = worker.receive_until("\n");
                    worker.send(&asked);
                    asked
                })
                .collect();
            assert!(replies.iter().all(|asked| *asked == line.as_bytes()));
            clients.iter().for_each(|client| client.expect(&line));
        });
    }
}

#[test]
fn the_last_line_of_a_client_that_has_finished_waits_as_any_other() {
    for shards in [1, 2] {
        faulty(Simulation::new(|| server(1, 10_000, Protocol::Plain))).shards(shards).run(|net| {
            let (_listener, worker) = worker(net);
            let clients: Vec<_> = (0..8).map(|_| net.connect()).collect();
            for (of, client) in clients.iter().enumerate() {
                client.send(format!("{of} first\n{of} last"));
                client.half_close();
            }
            net.wait(Duration::from_secs(1));
            for _ in 0..16 {
                worker.send(worker.receive_until("\n"));
            }
            for (of, client) in clients.iter().enumerate() {
                client.expect(format!("{of} first\n{of} last\n"));
                client.expect_end();
            }
        });
    }
}

#[test]
fn a_full_mailbox_of_another_shard_loses_nothing() {
    faulty(Simulation::new(|| server(50, 1, Protocol::Plain))).shards(3).run(|net| {
        let (_listener, worker) = worker(net);
        let clients: Vec<_> = (0..12).map(|_| net.connect()).collect();
        for (of, client) in clients.iter().enumerate() {
            client.send((0..10).map(|nth| format!("{of}.{nth}\n")).collect::<String>());
        }
        for _ in 0..120 {
            worker.send(worker.receive_until("\n"));
        }
        for (of, client) in clients.iter().enumerate() {
            client.expect((0..10).map(|nth| format!("{of}.{nth}\n")).collect::<String>());
        }
    });
    faulty(Simulation::new(|| server(5, 1, Protocol::Tagged))).shards(3).run(|net| {
        let (_listener, worker) = worker(net);
        let clients: Vec<_> = (0..12).map(|_| net.connect()).collect();
        for (of, client) in clients.iter().enumerate() {
            client.send((0..10).map(|nth| format!("{of}.{nth}\n")).collect::<String>());
        }
        let mut data = 0;
        while data < 120 {
            let line = worker.receive_until("\n");
            if line.starts_with(b"data") {
                data += 1;
                worker.send(&line);
            }
        }
        for (of, client) in clients.iter().enumerate() {
            client.expect((0..10).map(|nth| format!("{of}.{nth}\n")).collect::<String>());
        }
        net.drain();
        let (rest, _) = worker.receive_to_end();
        let rest = String::from_utf8(rest).expect("it is text");
        let closes = rest.lines().filter(|line| line.starts_with("close")).count();
        assert_eq!(closes, 12, "{rest}");
    });
}

#[test]
fn two_thousand_clients_leave_at_once_and_another_is_served() {
    for protocol in [Protocol::Plain, Protocol::Tagged] {
        let simulation = Simulation::new(move || server(100, 10_000, protocol));
        simulation.faults(|_| Faults::none()).seeds(0..2).run(|net| {
            let (_listener, worker) = worker(net);
            let clients: Vec<_> = (0..2000).map(|_| net.connect()).collect();
            clients.iter().for_each(|client| client.send("hello\n"));
            net.wait(Duration::from_secs(1));
            clients.iter().for_each(Client::reset);
            let stays = net.connect();
            stays.send("stays\n");
            loop {
                let line = String::from_utf8(worker.receive_until("\n")).expect("it is text");
                match line.strip_prefix("data ") {
                    _ if protocol == Protocol::Plain => worker.send(&line),
                    Some(data) => worker.send(format!("data {data}")),
                    None => {}
                }
                if line.ends_with("stays\n") {
                    break;
                }
            }
            stays.expect("stays\n");
        });
    }
}
