//! Who is let in: up to the limit, per address, and while there are descriptors.

use std::{io::ErrorKind, thread::sleep, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nonforker::{Limits, Server, codec::Lines};

use crate::{
    client::Client,
    harness::{
        ANY, Case, Running, is_in_its_own_process, on_every_driver, open_descriptors, wait_until,
    },
};

fn echo_within(limits: Limits) -> impl FnOnce(Server) -> Server + Send + 'static {
    |server| server.limits(limits).serve(ANY, Lines::new(), |conn, line| conn.send(line))
}

#[test]
fn a_client_that_comes_when_it_is_full_waits_and_is_served() {
    on_every_driver(|case| {
        let server = case.start(echo_within(Limits::new().max_connections(Some(3))));
        let mut inside: Vec<_> = (0..3).map(|_| server.connect()).collect();
        server.has_accepted(3);
        let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
        for client in &waiting {
            client.send("may I come in?\n");
        }
        sleep(Duration::from_millis(50));
        assert_eq!(server.stats().accepted, 3);
        server.is_idle();
        for client in &mut inside {
            assert_eq!(client.ask("I am in"), "I am in");
        }
        assert_eq!(server.log.about("full").len(), 1, "it is said once");

        // One leaves, one comes: whoever waits first.
        drop(inside.pop());
        assert_eq!(waiting[0].line(), "may I come in?");
        sleep(Duration::from_millis(20));
        assert_eq!(server.stats().accepted, 4);
        drop(inside);
        for mut client in waiting {
            client.half_close();
            let reply = client.rest_text();
            assert!(reply.is_empty() || reply == "may I come in?\n", "{reply:?}");
        }
        server.has_accepted(13);
    });
}

#[test]
fn one_address_gets_its_share_and_no_more() {
    on_every_driver(|case| {
        let limits = Limits::new().max_connections_per_ip(Some(2));
        let server = case.start(|server| echo_within(limits)(server).also_on("[::1]:0"));
        let mut inside: Vec<_> = (0..2).map(|_| server.connect()).collect();
        for client in &mut inside {
            assert_eq!(client.ask("I am in"), "I am in");
        }
        for refused in 1..=5 {
            let mut client = server.connect();
            assert!(client.try_rest().is_ok_and(|replies| replies.is_empty()));
            wait_until("it is counted", || server.stats().refused == refused);
        }
        let mut elsewhere = Client::connect(&server.addresses()[1]);
        assert_eq!(elsewhere.ask("another address"), "another address");
        assert_eq!(server.log.about("too many connections").len(), 1, "it is said once");

        drop(inside.pop());
        server.holds(2);
        assert_eq!(server.connect().ask("its place is free"), "its place is free");
        // Nobody else is refused, and so the rest is counted four seconds later.
        wait_until("what was not logged is counted", || {
            !server.log.about("more often than was logged").is_empty()
        });
        let counted = server.log.about("connections of one address were refused");
        assert_eq!(counted.len(), 1, "{counted:?}");
        assert!(counted[0].contains("left_out=4"), "{counted:?}");
    });
}

/// Starts a server that is let have far fewer descriptors than there are clients, and lets the
/// clients connect and ask. They have their descriptors already: the limit is for new ones. Some
/// drivers note the limit when they begin to accept, so it is there from the start.
fn exhausted(case: &Case) -> (Running, Client, Vec<Client>) {
    const CLIENTS: usize = 80;
    let any = ANY.parse().expect("an address");
    let clients = (0..CLIENTS).map(|_| Client::prepare(&any).expect("a descriptor is free"));
    let mut clients: Vec<_> = clients.collect();
    set_descriptor_limit(Some(open_descriptors() as u64 + 40));
    let server = case.start(echo_within(Limits::new().max_connections(Some(10_000))));
    for client in &clients {
        client.finish(server.address()).expect("the server listens");
        client.send("is there room?\n");
    }
    wait_until("there are no descriptors", || !server.log.about("cannot accept").is_empty());
    let mut first = clients.remove(0);
    assert_eq!(first.line(), "is there room?");
    (server, first, clients)
}

/// Sets the soft limit of this process, to the hard one if there is none.
fn set_descriptor_limit(limit: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, limit.unwrap_or(hard), hard).expect("it can be set");
}

#[test]
fn running_out_of_descriptors_is_survived() {
    if !is_in_its_own_process("doors::running_out_of_descriptors_is_survived") {
        return;
    }
    on_every_driver(|case| {
        let (server, mut first, clients) = exhausted(case);
        sleep(Duration::from_millis(400));
        let accepted = server.stats().accepted;
        assert!((1..40).contains(&accepted), "{accepted} were accepted");
        let before = server.processor_time();
        sleep(Duration::from_millis(300));
        if let (Some(before), Some(after)) = (before, server.processor_time()) {
            let work = after.saturating_sub(before);
            assert!(work < Duration::from_millis(60), "exhausted, it worked {work:?} of 300 ms");
        }
        assert_eq!(first.ask("and I?"), "and I?");
        assert!(server.log.about("cannot accept").len() <= 2, "it is said once a second");

        // Each that goes makes room for one that waits.
        for mut client in clients {
            assert_eq!(client.line(), "is there room?");
        }
        server.holds(1);
        set_descriptor_limit(None);
    });
}

#[test]
fn descriptors_that_come_back_without_a_close_are_noticed() {
    if !is_in_its_own_process("doors::descriptors_that_come_back_without_a_close_are_noticed") {
        return;
    }
    on_every_driver(|case| {
        let (_server, _first, mut clients) = exhausted(case);
        set_descriptor_limit(None);
        for client in &mut clients {
            assert_eq!(client.line(), "is there room?", "it looks again by itself");
        }
    });
}

#[test]
fn a_client_that_is_gone_before_it_is_accepted_is_no_trouble() {
    on_every_driver(|case| {
        let limits = Limits::new().max_connections(Some(1));
        let server = case.start(echo_within(limits));
        let mut inside = server.connect();
        assert_eq!(inside.ask("I am in"), "I am in");
        for _ in 0..50 {
            let client = server.connect();
            // What was sent is refused when the connection has been reset meanwhile.
            if let Err(error) = client.try_send(b"never mind\n") {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            client.reset();
        }
        drop(inside);
        assert_eq!(server.connect().ask("I stay"), "I stay");
    });
}
