//! The job server example, tested as its author would test it: on the simulated network.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/job_server.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;
#[path = "../examples/job_server_sqlite.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod sqlite;

use nonforker::{
    Server,
    sim::{Faults, Simulation},
};

fn jobs() -> Server {
    example::server("127.0.0.1:1685", 2)
}

#[test]
fn queries_are_answered_in_order_and_a_ping_behind_them() {
    Simulation::new(jobs).seeds(0..300).run(|net| {
        let clients: Vec<_> = (0..5).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("query 0 one\nping\nquery 0 two words\nquery x y\nwhat\n");
            client.half_close();
        }
        for client in &clients {
            client.expect("done one\npong\ndone two words\n");
            client.expect("error: invalid digit found in string\n");
            client.expect("error: ping, or query MS TEXT\n");
            client.expect_end();
        }
    });
}

#[test]
fn a_client_that_leaves_harms_nobody() {
    Simulation::new(jobs).seeds(0..300).faults(Faults::swarm).run(|net| {
        let (one, two) = (net.connect(), net.connect());
        one.send("query 0 lost\nquery 0 lost\n");
        two.send("query 0 kept\nping\n");
        one.reset();
        two.half_close();
        assert!(b"done kept\npong\n".starts_with(&two.receive_to_end().0));
    });
}

#[test]
fn a_database_is_asked_in_order_and_what_it_refuses_is_an_answer() {
    let notes = || sqlite::server("127.0.0.1:1685", ":memory:").expect("it is in memory");
    Simulation::new(notes).seeds(0..100).run(|net| {
        let (one, two) = (net.connect(), net.connect());
        one.send("add tea\nadd it's \"milk\"; --\nget 2\nget 1\nget 9\nget x\nadd\n");
        one.half_close();
        one.expect("1\n2\nit's \"milk\"; --\ntea\nnone\nnone\nerror: add TEXT, or get NUMBER\n");
        one.expect_end();
        two.send("get 1\n");
        two.expect("tea\n");
    });
}
