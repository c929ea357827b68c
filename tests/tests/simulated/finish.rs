//! Our side of a connection ends, and its peer's goes on.

use std::{cell::RefCell, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Ending, Net, Simulation},
};

/// What it saw, and what a test does about it.
type Seen = Rc<RefCell<Vec<String>>>;

/// Echoes, and finishes when a line says so.
struct Finishes {
    seen: Seen,
    /// What it does at the end of the stream.
    at_end: &'static str,
}

impl Finishes {
    fn obey(conn: &mut Conn<'_, Self>, line: &str) {
        match line {
            "finish" => conn.finish(),
            "much" => conn.send(vec![b'x'; 300_000]),
            "all" => conn.others().for_each(|other| other.send("for all")),
            "close" => conn.close(),
            line => conn.send(line),
        }
    }
}

impl Handler for Finishes {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).into_owned();
        Self::obey(conn, &line);
        self.seen.borrow_mut().push(line);
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.seen.borrow_mut().push("half_closed".to_owned());
        Self::obey(conn, self.at_end);
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        conn.finish();
        self.seen.borrow_mut().push(reason.to_string());
    }
}

/// Runs a script under the faults of many seeds. It is given what the handler saw.
fn run(limits: Limits, at_end: &'static str, script: impl Fn(&Net, &Seen) + 'static) {
    let seen = Seen::default();
    let handler = Rc::clone(&seen);
    let server = move || {
        handler.borrow_mut().clear();
        let handler = Finishes { seen: Rc::clone(&handler), at_end };
        Server::new().limits(limits.clone()).serve_with("127.0.0.1:1", Lines::new(), handler)
    };
    Simulation::new(server).seeds(0..200).run(move |net| script(net, &seen));
}

#[test]
fn what_the_peer_sends_is_handled_and_not_answered() {
    // The end of the stream closes it whatever the handler does then.
    for at_end in ["close", "finish", "nothing"] {
        run(Limits::new(), at_end, |net, seen| {
            let (client, other) = (net.connect(), net.connect());
            client.send("one\nfinish\ntwo\n");
            client.expect("one\n");
            client.expect_end();
            client.send("three\n");
            other.send("all\nhello\n");
            other.expect("hello\n");
            client.half_close();
            net.settle();
            assert!(client.received().is_empty(), "nothing comes behind the end");
            let stats = net.stats();
            assert_eq!((stats.accepted, stats.closed), (2, 1));
            let mut seen = seen.borrow().clone();
            // The two clients are not ordered.
            seen.retain(|line| !["all", "hello"].contains(&line.as_str()));
            let all = ["one", "finish", "two", "three", "half_closed", "the peer has finished"];
            assert_eq!(seen, all);
        });
    }
}

#[test]
fn the_end_comes_behind_all_that_is_queued() {
    run(Limits::new(), "close", |net, _| {
        let client = net.connect();
        client.set_window(1000);
        client.send("much\nmuch\nfinish\nmore\n");
        let (bytes, ending) = client.receive_to_end();
        assert_eq!((bytes.len(), ending), (2 * 300_001, Some(Ending::Finished)));
    });
}

#[test]
fn frames_that_wait_when_the_peer_has_finished_are_handled() {
    run(Limits::new().frames_per_turn(1), "nothing", |net, seen| {
        let client = net.connect();
        client.send("finish\ntwo\nthree\n");
        client.half_close();
        client.expect_end();
        net.settle();
        let all = ["finish", "two", "three", "half_closed", "the peer has finished"];
        assert_eq!(*seen.borrow(), all);
    });
}

#[test]
fn a_client_that_sends_nothing_more_is_idle() {
    let limits = Limits::new().idle_timeout(Some(Duration::from_secs(10)));
    run(limits, "close", |net, seen| {
        let client = net.connect();
        client.send("finish\n");
        client.expect_end();
        for _ in 0..5 {
            net.wait(Duration::from_secs(7));
            client.send("on\n");
            net.settle();
        }
        assert_eq!(net.stats().closed, 0, "what it sends counts");
        net.wait(Duration::from_secs(25));
        assert_eq!(seen.borrow().last().map(String::as_str), Some("idle for too long"));
        assert_eq!(net.stats().closed, 1, "it does not linger for ever");
    });
}

#[test]
fn a_drain_closes_it() {
    run(Limits::new(), "close", |net, seen| {
        let client = net.connect();
        client.send("finish\nlast\n");
        client.expect_end();
        net.settle();
        net.drain();
        client.half_close();
        net.settle();
        assert!(net.has_ended());
        let seen = seen.borrow();
        assert_eq!(seen[..2], ["finish", "last"]);
        // Either end may come first.
        let last = seen.last().map_or("", String::as_str);
        assert!(["the server drained", "the peer has finished"].contains(&last), "{last}");
    });
}
