//! Work that blocks is done by threads, which a simulation has at times of its seed.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use nonforker::{
    Limits, Outcome, Server,
    codec::Lines,
    sim::{Client, Faults, Simulation},
};

const ADDRESS: &str = "127.0.0.1:1685";

fn fail() -> usize {
    resume_unwind(Box::new("no noise"))
}

/// Works for each line but `ping`. Counts the work that was begun.
fn server(begun: Arc<AtomicUsize>) -> Server {
    let limits = Limits::new().answer_timeout(None);
    Server::new().limits(limits).serve(ADDRESS, Lines::new(), move |conn, line| {
        let (line, begun) = (line.to_vec(), Arc::clone(&begun));
        match &line[..] {
            b"ping" => conn.send("pong"),
            b"panic" => conn.offload(fail, |_, conn, _| conn.send("never")),
            b"fail" => {
                conn.offload(|| (), |_, _, ()| -> Outcome { Err("a failure".into()) });
            }
            _ => conn.offload(
                move || {
                    begun.fetch_add(1, Relaxed);
                    line
                },
                |_, conn, line| conn.send(line),
            ),
        }
    })
}

#[test]
fn results_come_in_order_and_nobody_else_waits() {
    Simulation::new(|| server(Arc::default())).run(|net| {
        let clients: Vec<Client> = (0..net.rng().between(1, 20)).map(|_| net.connect()).collect();
        for (index, client) in clients.iter().enumerate() {
            client.send(format!("one {index}\nping\ntwo {index}\n"));
            client.half_close();
        }
        for (index, client) in clients.iter().enumerate() {
            client.expect(format!("one {index}\npong\ntwo {index}\n"));
            client.expect_end();
        }
    });
}

#[test]
fn a_ping_does_not_wait_for_work() {
    let simulation = Simulation::new(|| server(Arc::default())).faults(|_| Faults::none());
    simulation.run(|net| {
        let (slow, quick) = (net.connect(), net.connect());
        slow.send("work\n".repeat(50));
        quick.send("ping\n");
        quick.expect("pong\n");
        assert!(net.now() < Duration::from_millis(1));
        slow.expect("work\n".repeat(50));
        assert!(net.now() > Duration::from_millis(1), "work takes its time");
    });
}

#[test]
fn a_panic_or_an_error_ends_the_connection_that_asked() {
    Simulation::new(|| server(Arc::default())).seeds(0..50).run(|net| {
        let [panics, fails, other] = ["panic\n", "fail\n", "work\n"].map(|line| {
            let client = net.connect();
            client.send(line);
            client
        });
        panics.expect_end();
        fails.expect_end();
        other.expect("work\n");
        assert_eq!((net.stats().panics, net.stats().open_tickets), (1, 0));
    });
}

#[test]
fn what_nobody_waits_for_is_not_begun() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let make = move || server(Arc::clone(&count)).offload_threads(1);
    let asked = AtomicUsize::new(0);
    Simulation::new(make).faults(|_| Faults::none()).seeds(0..50).run(|net| {
        let clients: Vec<Client> = (0..10).map(|_| net.connect()).collect();
        clients.iter().for_each(|client| client.send("work\n"));
        net.wait(Duration::from_micros(100));
        clients[5..].iter().for_each(Client::reset);
        net.settle();
        clients[..5].iter().for_each(|client| client.expect("work\n"));
        asked.fetch_add(usize::try_from(net.stats().tickets).expect("ten"), Relaxed);
    });
    // The work of some may have begun, or be done, before they left.
    let (begun, asked) = (begun.load(Relaxed), asked.load(Relaxed));
    assert!(asked > 450 && (asked / 2..asked * 3 / 4).contains(&begun), "{begun} of {asked}");
}

#[test]
fn a_drain_waits_for_work() {
    Simulation::new(|| server(Arc::default())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("work\n");
        net.wait(Duration::from_micros(5));
        net.drain();
        client.expect("work\n");
        client.expect_end();
        net.settle();
        assert_eq!((net.has_ended(), net.cut_off()), (true, 0));
    });
}
