//! The game example, tested as its author would test it: on the simulated network.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/game.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;

use std::time::Duration;

use nonforker::{
    Server,
    codec::Lines,
    sim::{Faults, Simulation},
};

fn game() -> Server {
    Server::new().serve_with("127.0.0.1:1685", Lines::new(), example::Game::default())
}

#[test]
fn everybody_sees_twenty_times_a_second_where_everybody_is() {
    Simulation::new(game).seeds(0..50).faults(|_| Faults::none()).run(|net| {
        let (one, two) = (net.connect(), net.connect());
        for client in [&one, &two] {
            client.set_window(1 << 20);
        }
        net.wait(Duration::from_millis(1));
        one.send("north\nnorth\nwest\n");
        two.send("east\nsouth\nup\n");
        two.expect("? north, south, east or west\n");
        net.wait(Duration::from_secs(1));
        let pictures = String::from_utf8(one.received()).expect("it is text");
        assert!((19..=21).contains(&pictures.lines().count()), "{pictures}");
        let last = pictures.lines().last().expect("there is one");
        assert_eq!(last, "at 1.0:-1,2 2.0:1,-1");
        assert!(String::from_utf8_lossy(&two.received()).ends_with(&format!("{last}\n")));
        one.half_close();
        net.wait(Duration::from_secs(1));
        assert!(two.received().ends_with(b"at 2.0:1,-1\n"));
    });
}
