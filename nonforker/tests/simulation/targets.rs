//! Relays to one of several targets: which one a client goes to, and when they are tried again.

use nonforker::{
    Balance, Relay, Server,
    sim::{Listener, Simulation},
};

use crate::relaying::{FROM, no_faults, secs};

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
