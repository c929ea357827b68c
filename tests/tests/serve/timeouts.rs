//! Who makes no progress is let go; who is slow but steady is not.

use std::{
    sync::mpsc::Receiver,
    thread::sleep,
    time::{Duration, Instant},
};

use nonforker::{Conn, ConnId, Handler, Limits, Outcome, Server, codec::Lines};

use crate::{
    client::{Client, hear},
    harness::{ANY, Case, Running, on_every_driver},
    probe::Probe,
};

/// Long enough that a busy machine does not exceed it by chance, short enough to wait for.
const TIMEOUT: Duration = Duration::from_millis(500);

fn start(case: &Case, limits: Limits) -> (Running, Receiver<String>) {
    let (probe, told) = Probe::new();
    let build = move |server: Server| server.limits(limits).serve_with(ANY, Lines::new(), probe);
    (case.start(build), told)
}

/// Asserts that it took the timeout, and not much longer.
fn took_the_timeout(began: Instant) {
    let took = began.elapsed();
    assert!(took >= TIMEOUT.mul_f32(0.95), "after {took:?} of {TIMEOUT:?}");
    assert!(took < TIMEOUT * 8, "not before {took:?} of {TIMEOUT:?}");
}

#[test]
fn a_client_that_is_silent_too_long_is_closed_in_order() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new().idle_timeout(Some(TIMEOUT)));
        let (mut silent, mut lively) = (server.connect(), server.connect());
        assert_eq!(silent.ask("hello"), "hello");
        let began = Instant::now();
        for _ in 0..8 {
            assert_eq!(lively.ask("I live"), "I live");
            sleep(TIMEOUT / 10);
        }
        assert_eq!(silent.rest_text(), "");
        took_the_timeout(began);
        hear(&told, "closed 0: idle for too long");
        assert_eq!(lively.ask("I still live"), "I still live");
    });
}

#[test]
fn a_client_that_sends_a_request_a_byte_at_a_time_is_closed_however_steady() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new().frame_timeout(Some(TIMEOUT)));
        let mut client = server.connect();
        assert_eq!(client.ask("a whole one"), "a whole one");
        let began = Instant::now();
        while told.try_iter().all(|what| !what.starts_with("closed 0: a frame did not")) {
            // It fails once the server has gone.
            let _ = client.try_send(b"s");
            sleep(TIMEOUT / 20);
            assert!(began.elapsed() < TIMEOUT * 8, "it is still there after {:?}", began.elapsed());
        }
        took_the_timeout(began);
    });
}

#[test]
fn whole_requests_however_slow_are_no_attack() {
    on_every_driver(|case| {
        let (server, _told) = start(case, Limits::new().frame_timeout(Some(TIMEOUT)));
        let mut client = server.connect();
        // In all it takes longer than the timeout, each request far less.
        for _ in 0..8 {
            client.send("in two ");
            sleep(TIMEOUT / 5);
            assert_eq!(client.ask("pieces"), "in two pieces");
        }
        sleep(TIMEOUT * 2);
        assert_eq!(client.ask("a pause between them"), "a pause between them");
    });
}

#[test]
fn a_request_that_waits_for_us_is_not_late() {
    on_every_driver(|case| {
        let (server, _told) = start(case, Limits::new().frame_timeout(Some(TIMEOUT)));
        let (mut client, mut other) = (server.connect(), server.connect());
        server.has_accepted(2);
        client.send("pau");
        server.has_received(3);
        client.send("se\nwhole\nand a begin");
        assert_eq!(client.line(), "paused");
        sleep(TIMEOUT * 2);
        assert_eq!(other.ask("resume 0"), "resumed");
        assert_eq!(client.line(), "whole");
        assert_eq!(client.ask("ning"), "and a beginning");
    });
}

#[test]
fn a_client_that_takes_nothing_is_reset() {
    on_every_driver(|case| {
        let (server, told) = start(case, Limits::new().write_timeout(Some(TIMEOUT)));
        let mut client = server.connect();
        client.send("big 20000000\n");
        server.has_received(13);
        let began = Instant::now();
        hear(&told, "closed 0: the peer did not take its replies in time");
        took_the_timeout(began);
        client.is_reset();
    });
}

#[test]
fn a_client_that_takes_little_but_steadily_is_served_to_the_end() {
    on_every_driver(|case| {
        const REPLY: usize = 400_000;
        let (server, _told) = start(case, Limits::new().write_timeout(Some(TIMEOUT)));
        let mut client =
            Client::connect_with(server.address(), |socket| socket.set_recv_buffer_size(16 * 1024));
        // Twice, to fill what the kernel buffers and have the timeout apply to the rest.
        client.send(format!("big {REPLY}\nbig {REPLY}\n"));
        let began = Instant::now();
        let mut left = 2 * (REPLY + 1);
        while left > 0 {
            left -= client.exactly(left.min(10_000)).len();
            sleep(TIMEOUT / 20);
        }
        let took = began.elapsed();
        assert!(took > TIMEOUT * 3, "too fast to prove anything: {took:?}");
    });
}

#[test]
fn a_thousand_deadlines_cost_no_work_before_they_are_due() {
    on_every_driver(|case| {
        let limits = Limits::new()
            .idle_timeout(Some(Duration::from_secs(3600)))
            .frame_timeout(Some(Duration::from_secs(3600)));
        let (server, _told) = start(case, limits);
        let mut clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("unfinish");
        }
        server.has_received(8 * 1000);
        server.settles();
        server.is_idle();
        for client in &mut clients {
            assert_eq!(client.ask("ed"), "unfinished");
        }
    });
}

/// Answers nothing; what makes it pause is a timer.
struct Pauses(std::rc::Rc<std::cell::Cell<Option<ConnId>>>);

impl Handler for Pauses {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        match self.0.get() {
            None => self.0.set(Some(conn.id())),
            Some(first) => conn.others().get(first)?.resume(),
        }
        conn.after(TIMEOUT / 5, Self::timer)?;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }
}

impl Pauses {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.pause();
        Ok(())
    }
}

#[test]
fn a_request_whose_rest_we_do_not_read_is_not_late() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            let limits = Limits::new().frame_timeout(Some(TIMEOUT));
            server.limits(limits).serve_with(ANY, Lines::new(), Pauses(std::rc::Rc::default()))
        });
        let mut client = server.connect();
        client.send("begun before ");
        server.has_received(13);
        sleep(TIMEOUT / 2);
        // It is paused by now, and the rest of the request waits in the kernel.
        client.send("the pause\n");
        sleep(TIMEOUT * 2);
        let _resumes = server.connect();
        assert_eq!(client.line(), "begun before the pause");
    });
}

#[test]
fn a_client_that_only_sends_is_not_idle() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            let limits = Limits::new().idle_timeout(Some(TIMEOUT));
            server.limits(limits).serve(ANY, Lines::new(), |_conn, _line| {})
        });
        let mut client = server.connect();
        let began = Instant::now();
        while began.elapsed() < TIMEOUT * 3 {
            client.send("no answer is needed\n");
            sleep(TIMEOUT / 10);
        }
        client.hears_nothing_for(TIMEOUT / 10);
    });
}
