//! A handle works whenever it is used: before the server is bound, while it runs, from a callback.

use std::{sync::mpsc, thread};

use nonforker::{Error, Handle, Limits, Server, Stats, codec::Lines};

use crate::harness::{ANY, PATIENCE, on_every_driver};
use crate::probe::Probe;

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| match line {
        b"drain" => conn.server().drain(),
        line => conn.send(line),
    })
}

/// A service that nobody can connect to.
fn silent(server: Server) -> Server {
    server.service(Lines::new(), Probe::new().0)
}

#[test]
fn a_server_that_was_ended_before_it_was_bound_ends_at_once() {
    on_every_driver(|case| {
        let ends = [Handle::drain, Handle::stop];
        // Without a listener nothing else wakes it.
        for (end, listens) in ends.into_iter().flat_map(|end| [(end, true), (end, false)]) {
            let (tell, told) = mpsc::channel();
            let driver = case.driver;
            let serving = thread::spawn(move || {
                let server = Server::new().driver(driver);
                let server = if listens { echo(server) } else { silent(server) };
                end(&server.handle());
                tell.send(server.run()).expect("the test waits");
            });
            told.recv_timeout(PATIENCE).expect("it ends").expect("it ends in order");
            serving.join().expect("it does not panic");
        }
    });
}

#[test]
fn what_needs_a_bound_server_says_so_before() {
    on_every_driver(|case| {
        let server = echo(Server::new().driver(case.driver));
        let handle = server.handle();
        let early = handle.set_limits(Limits::new());
        assert!(matches!(early, Err(Error::NotBound)), "{early:?}");
        assert_eq!((handle.stats(), handle.service_stats(0)), (Stats::default(), None));
        let bound = server.bind().expect("a free port");
        handle.set_limits(Limits::new()).expect("now it can");
        assert_eq!(handle.service_stats(0), Some(Stats::default()));
        assert_eq!(handle.service_stats(1), None);
        handle.drain();
        bound.run().expect("it ends in order");
    });
}

#[test]
fn a_drain_is_not_lost_while_the_server_is_being_bound() {
    on_every_driver(|case| {
        for round in 0..100 {
            let (give, given) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let driver = case.driver;
            let serving = thread::spawn(move || {
                let server = silent(Server::new().driver(driver));
                give.send(server.handle()).expect("the test waits");
                tell.send(server.run()).expect("the test waits");
            });
            let handle: Handle = given.recv().expect("the server begins");
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            handle.drain();
            let ended = told.recv_timeout(PATIENCE);
            assert!(matches!(ended, Ok(Ok(()))), "round {round}: {ended:?}");
            serving.join().expect("it does not panic");
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
