//! Relays to one of several targets: which one a client goes to, and when they are tried again.

use nonforker::{
    Balance, Relay, Server,
    sim::{Ending, Listener, Simulation},
};

use crate::relaying::{FROM, TO, joined, no_faults, secs};

fn of_two(change: impl Fn(Relay) -> Relay + 'static) -> impl Fn() -> Server + 'static {
    move || {
        let relay = Relay::to("10.0.0.1:1").and_then(|relay| relay.or("10.0.0.2:1"));
        Server::new().relay(FROM, change(relay.expect("two targets")))
    }
}

#[test]
fn clients_are_spread_and_go_on_to_the_next_target() {
    for (balance, shares) in [(Balance::Least, [3, 3]), (Balance::First, [6, 0])] {
        no_faults(Simulation::new(of_two(move |relay| relay.balance(balance)))).run(|net| {
            let [one, two] = [net.listen("10.0.0.1:1"), net.listen("10.0.0.2:1")];
            let clients: Vec<_> = (0..6).map(|_| net.connect()).collect();
            net.wait(secs(1));
            let taken = |listener: &Listener| {
                std::iter::from_fn(|| listener.accepted()).collect::<Vec<_>>()
            };
            let (at_one, at_two) = (taken(&one), taken(&two));
            assert_eq!([at_one.len(), at_two.len()], shares, "{balance:?}");
            one.refuse();
            let last = net.connect();
            last.send("x");
            two.accept().expect("x");
            drop(clients);
        });
    }
}

#[test]
fn a_client_that_a_target_has_taken_goes_to_no_other() {
    for (how, ending) in [("reset", Ending::Reset), ("finish", Ending::Finished)] {
        no_faults(Simulation::new(of_two(|relay| relay.retry(secs(5))))).run(|net| {
            let [one, two] = [net.listen("10.0.0.1:1"), net.listen("10.0.0.2:1")];
            let (client, server) = joined(net, &one);
            server.send("half");
            client.expect("half");
            if how == "reset" {
                server.reset();
            } else {
                server.half_close();
                client.half_close();
            }
            assert_eq!(client.receive_to_end(), (Vec::new(), Some(ending)));
            net.wait(secs(6));
            assert_eq!((one.attempts(), two.attempts(), net.stats().outgoing), (1, 0, 1), "{how}");
        });
    }
}

#[test]
fn all_targets_are_tried_again_for_as_long_as_that_is_wanted() {
    for (retry, comes) in [(0, false), (2, false), (5, true)] {
        no_faults(Simulation::new(of_two(move |relay| relay.retry(secs(retry))))).run(|net| {
            let client = net.connect();
            client.send("hello");
            net.wait(secs(3));
            let two = net.listen("10.0.0.2:1");
            if comes {
                two.accept().expect("hello");
            } else {
                client.expect_end();
                assert_eq!(two.attempts(), 0);
            }
        });
    }
}

#[test]
fn a_target_that_is_down_is_tried_again_ever_more_slowly() {
    let server = || {
        let relay = Relay::to(TO).expect("a target").retry(secs(60));
        Server::new().relay(FROM, relay)
    };
    no_faults(Simulation::new(server)).run(|net| {
        let listener = net.listen(TO);
        listener.refuse();
        net.connect().send("hello");
        // The waits are from half of 50, 100, 200, 400, 800 ms to all of it, and then of a second.
        let mut tried = 0;
        for (time, expected) in [(1, 4..=7), (10, 9..=21), (10, 9..=21)] {
            net.wait(secs(time));
            let count = listener.attempts() - tried;
            assert!(expected.contains(&count), "{count} times within {time} s, after {tried}");
            tried += count;
        }
        listener.accept_all();
        listener.accept().expect("hello");
    });
}
