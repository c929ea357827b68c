//! A handle works whenever it is used: before the server is bound, while it runs, from a callback.

use std::{sync::mpsc, thread, time::Instant};

use nonforker::{Handle, Server, codec::Lines};

use crate::harness::{ANY, PATIENCE, on_every_driver};

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| match line {
        b"drain" => conn.server().drain(),
        line => conn.send(line),
    })
}

#[test]
fn a_server_that_was_ended_before_it_was_bound_ends_at_once() {
    on_every_driver(|case| {
        for end in [Handle::drain, Handle::stop] {
            let (tell, told) = mpsc::channel();
            let driver = case.driver;
            let serving = thread::spawn(move || {
                let server = echo(Server::new().driver(driver));
                end(&server.handle());
                tell.send(server.run()).expect("the test waits");
            });
            told.recv_timeout(PATIENCE).expect("it ends").expect("it ends in order");
            serving.join().expect("it does not panic");
        }
    });
}

#[test]
fn a_drain_is_not_lost_while_the_server_is_being_bound() {
    on_every_driver(|case| {
        let began = Instant::now();
        for round in 0..100 {
            let (give, given) = mpsc::channel();
            let driver = case.driver;
            let serving = thread::spawn(move || {
                let server = echo(Server::new().driver(driver));
                give.send(server.handle()).expect("the test waits");
                server.run()
            });
            let handle: Handle = given.recv().expect("the server begins");
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            handle.drain();
            serving.join().expect("it does not panic").expect("it ends in order");
            assert!(began.elapsed() < PATIENCE, "round {round} did not end");
        }
    });
}

#[test]
fn a_request_drains_the_server() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut client = server.connect();
        assert_eq!(client.ask("hello"), "hello");
        client.send("drain\n");
        assert_eq!(client.rest_text(), "");
        drop(client);
        server.ends();
    });
}
