//! The system lacks something: the server does without, does not spin, says so, and recovers.

use std::time::Duration;

use nonforker::{
    Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation},
};

use crate::warnings::warnings;

fn echo() -> Server {
    Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line))
}

fn without_faults() -> Simulation {
    Simulation::new(echo).faults(|_| Faults::none()).seeds(0..20)
}

/// That the client is served, and how long that takes.
fn served(net: &Net, client: &Client) -> Duration {
    let began = net.now();
    client.send("hello\n");
    client.expect("hello\n");
    net.now() - began
}

#[test]
fn without_descriptors_the_server_tries_now_and_then_and_says_so_once_a_second() {
    without_faults().run(|net| {
        let before = net.connect();
        served(net, &before);
        net.set_faults(Faults { accept_exhausted: 1000, ..Faults::none() });
        let client = net.connect();
        let count = warnings("cannot accept", || net.wait(Duration::from_millis(3050)));
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(count.left_out <= 30, "accepting failed {} times", count.left_out);
        let among = served(net, &before);
        assert!(among < Duration::from_millis(1), "others waited {among:?}");
        net.set_faults(Faults::none());
        let took = served(net, &client);
        assert!(took < Duration::from_millis(110), "it took {took:?} to recover");
    });
}

#[test]
fn refusals_that_go_on_are_retried_at_once_at_first_and_then_now_and_then() {
    without_faults().run(|net| {
        let before = net.connect();
        served(net, &before);
        net.set_faults(Faults { accept_refused: 1000, ..Faults::none() });
        let client = net.connect();
        // Refused a few times only, it would have been accepted at once.
        let count = warnings("cannot accept", || net.wait(Duration::from_micros(10)));
        assert_eq!(count.given, 0, "too few refusals for a warning");
        let count = warnings("cannot accept", || net.wait(Duration::from_millis(3050)));
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(count.left_out <= 30, "accepting was paused {} times", count.left_out);
        let among = served(net, &before);
        assert!(among < Duration::from_millis(1), "others waited {among:?}");
        net.set_faults(Faults::none());
        let took = served(net, &client);
        assert!(took < Duration::from_millis(110), "it took {took:?} to recover");
    });
}

#[test]
fn a_descriptor_that_becomes_free_is_used_at_once() {
    without_faults().run(|net| {
        let before = net.connect();
        served(net, &before);
        net.set_faults(Faults { accept_exhausted: 1000, ..Faults::none() });
        let client = net.connect();
        net.wait(Duration::from_millis(10));
        net.set_faults(Faults::none());
        before.half_close();
        before.expect_end();
        let took = served(net, &client);
        assert!(took < Duration::from_millis(10), "it took {took:?}");
    });
}

#[test]
fn a_connection_that_breaks_before_it_is_accepted_keeps_nobody_out() {
    without_faults().run(|net| {
        net.set_faults(Faults { accept_aborted: 1000, ..Faults::none() });
        let aborted = net.connect();
        assert_eq!(aborted.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        net.set_faults(Faults::none());
        let took = served(net, &net.connect());
        assert!(took < Duration::from_millis(10), "it took {took:?}");
    });
}

#[test]
fn without_kernel_buffers_the_server_tries_now_and_then_and_loses_nothing() {
    without_faults().run(|net| {
        let client = net.connect();
        net.set_faults(Faults { send_exhausted: 1000, ..Faults::none() });
        client.send("hello\n");
        let count = warnings("out of buffers", || net.wait(Duration::from_millis(3050)));
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(count.left_out <= 60, "sending failed {} times", count.left_out);
        net.set_faults(Faults::none());
        client.expect("hello\n");
    });
}
