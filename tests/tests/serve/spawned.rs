//! A server on a thread of its own: what it tells, and how it ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
};

use nonforker::{
    Address, DriverKind, Error, Handler, Limits, Outcome, Running, Server, codec::Lines,
};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver, open_descriptors},
};

fn spawn(driver: DriverKind) -> Running {
    let make = move || Server::new().driver(driver).serve(ANY, Lines::new(), reply);
    Server::spawn(make).expect("a free port")
}

fn reply(conn: &mut nonforker::Conn<'_, nonforker::Closure<Lines>>, line: &[u8]) {
    match line {
        b"thread" => conn.send(thread::current().name().unwrap_or("none")),
        b"drain" => conn.server().drain(),
        line => conn.send(line),
    }
}

#[test]
fn it_runs_on_a_thread_with_a_name_until_it_is_drained() {
    on_every_driver(|case| {
        let before = open_descriptors();
        let running = spawn(case.driver);
        assert_eq!(running.addresses().len(), 1);
        let mut client = Client::connect(&running.addresses()[0]);
        assert_eq!(client.ask("hello"), "hello");
        assert_eq!(client.ask("thread"), "nonforker");
        assert_eq!(running.handle().stats().accepted, 1);
        client.send("last\n");
        client.half_close();
        let ended = running.drain_and_wait();
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(client.rest_text(), "last\n");
        drop(client);
        assert!(open_descriptors() <= before, "descriptors are left");
    });
}

#[test]
fn the_thread_that_waits_learns_how_it_ended() {
    on_every_driver(|case| {
        let running = spawn(case.driver);
        let client = Client::connect(&running.addresses()[0]);
        client.send("drain\n");
        client.half_close();
        running.wait().expect("it ends in order");

        let driver = case.driver;
        let running = Server::spawn(move || {
            Server::new().driver(driver).serve(ANY, Lines::new(), |conn, _line| {
                conn.send(vec![b'x'; 64 << 20]);
                conn.server().stop();
            })
        });
        let running = running.expect("a free port");
        let client = Client::connect(&running.addresses()[0]);
        client.send("much\n");
        let ended = running.wait();
        assert!(matches!(ended, Err(Error::CutOff { connections: 1 })), "{ended:?}");
    });
}

#[test]
fn errors_and_panics_come_to_the_thread_that_spawned_it() {
    on_every_driver(|case| {
        let first = spawn(case.driver);
        let (driver, taken) = (case.driver, first.addresses()[0].clone());
        let second = move || Server::new().driver(driver).serve(taken, Lines::new(), reply);
        let error = Server::spawn(second).expect_err("the port is taken");
        assert!(matches!(error, Error::Listen { .. }), "{error}");
        let error = Server::spawn(Server::new).expect_err("there is nothing to serve");
        assert!(matches!(error, Error::NothingToServe), "{error}");
        let panicked = catch_unwind(|| Server::spawn(|| resume_unwind(Box::new("mine"))));
        let payload = panicked.expect_err("its maker panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"mine"));

        let failing = move || Server::new().driver(driver).serve_with(ANY, Lines::new(), Fails);
        let running = Server::spawn(failing).expect("it can be bound");
        let error = running.wait().expect_err("its handler does not start");
        assert!(matches!(error, Error::Handler(_)), "{error}");
    });
}

/// Does not start, and panics when it is dropped.
struct Fails;

impl Handler for Fails {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, _all: &mut nonforker::Connections<'_, Self>) -> Outcome {
        Err("not today".into())
    }

    fn frame(&mut self, _conn: &mut nonforker::Conn<'_, Self>, _line: &[u8]) -> Outcome {
        Ok(())
    }
}

/// Panics when it is dropped, with the server.
struct Falls;

impl Handler for Falls {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, _conn: &mut nonforker::Conn<'_, Self>, _line: &[u8]) -> Outcome {
        Ok(())
    }
}

impl Drop for Falls {
    fn drop(&mut self) {
        resume_unwind(Box::new("fallen"));
    }
}

#[test]
fn a_panic_of_the_thread_comes_to_a_caller_that_waits_and_not_to_one_that_drops_it() {
    on_every_driver(|case| {
        let driver = case.driver;
        let make = move || Server::new().driver(driver).serve_with(ANY, Lines::new(), Falls);
        let running = Server::spawn(make).expect("a free port");
        let waited = catch_unwind(AssertUnwindSafe(|| running.drain_and_wait()));
        let payload = waited.expect_err("the thread panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"fallen"));
        drop(Server::spawn(make).expect("a free port"));
    });
}

#[test]
fn dropped_it_is_drained_and_waited_for() {
    on_every_driver(|case| {
        let running = spawn(case.driver);
        let address = running.addresses()[0].clone();
        let mut client = Client::connect(&address);
        client.send("one\ntwo\n");
        client.half_close();
        drop(running);
        assert_eq!(client.rest_text(), "one\ntwo\n");
        let Address::Tcp(address) = address else { unreachable!("it is TCP") };
        std::net::TcpListener::bind(address).expect("nobody listens there any more");
    });
}

#[test]
fn a_handler_that_owns_its_server_can_drop_it() {
    on_every_driver(|case| {
        let driver = case.driver;
        let (give, given) = mpsc::channel::<Running>();
        let make = move || {
            let limits = Limits::new().linger_timeout(std::time::Duration::from_millis(100));
            let drops = move |_: &mut nonforker::Conn<'_, _>, _: &[u8]| drop(given.recv());
            Server::new().driver(driver).limits(limits).serve(ANY, Lines::new(), drops)
        };
        let running = Server::spawn(make).expect("a free port");
        let mut client = Client::connect(&running.addresses()[0]);
        give.send(running).expect("the handler waits");
        client.send("drop\n");
        assert_eq!(client.rest_text(), "");
    });
}
