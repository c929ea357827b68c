//! The market data example, tested as its author would test it: on the simulated network.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/market_data.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Faults, Simulation},
};

fn market() -> Server {
    let limits =
        Limits::new().high_watermark(1000).low_watermark(500).output_cap(1000).write_timeout(None);
    Server::new().limits(limits).serve_with("127.0.0.1:1685", Lines::new(), example::Market)
}

#[test]
fn a_client_gets_the_quotes_that_it_asked_for() {
    Simulation::new(market).seeds(0..200).run(|net| {
        let remote = net.remote::<example::Market>().expect("it is the only service");
        let quote = |symbol, price| example::quote(&remote, symbol, price).expect("there is room");
        let (one, two) = (net.connect(), net.connect());
        one.send("ABC\n");
        two.send("ABC\nXYZ\n");
        net.settle();
        quote("ABC", 1);
        quote("XYZ", 2);
        one.expect("ABC 1\n");
        two.expect("ABC 1\nXYZ 2\n");
        two.send("-ABC\n");
        net.settle();
        quote("ABC", 3);
        quote("XYZ", 4);
        one.expect("ABC 3\n");
        two.expect("XYZ 4\n");
    });
}

#[test]
fn a_client_that_is_too_slow_gets_the_latest_and_is_told_how_many_it_missed() {
    Simulation::new(market).seeds(0..50).faults(|_| Faults::none()).run(|net| {
        let remote = net.remote::<example::Market>().expect("it is the only service");
        let slow = net.connect();
        slow.set_window(100);
        slow.send("ABC\n");
        net.settle();
        slow.stall();
        for price in 0..5000 {
            example::quote(&remote, "ABC", price).expect("there is room");
        }
        net.settle();
        slow.read_all();
        net.settle();
        let received = String::from_utf8(slow.received()).expect("it is text");
        let (quotes, told) = received.split_once('*').expect("it is told");
        assert!(quotes.ends_with("ABC 4999\n"), "{quotes}");
        let missed = 5000 - quotes.lines().count();
        assert!(missed > 4000);
        assert_eq!(told, format!(" {missed} missed so far\n"));
    });
}
