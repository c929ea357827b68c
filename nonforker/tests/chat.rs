//! The chat example, tested as its author would test it: on the simulated network.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/chat.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;

use nonforker::{
    Server,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

fn chat() -> Server {
    Server::new().serve_with("127.0.0.1:1685", Lines::new(), example::Chat::default())
}

fn join(net: &Net, name: &str) -> Client {
    let client = net.connect();
    client.send(format!("{name}\n"));
    client.expect(format!("* {name} joined lobby\n"));
    client
}

#[test]
fn what_is_said_in_a_room_is_heard_there_and_nowhere_else() {
    Simulation::new(chat).seeds(0..500).run(|net| {
        let ann = join(net, "ann");
        let bob = join(net, "bob");
        ann.expect("* bob joined lobby\n");
        let eve = join(net, "eve");
        for client in [&ann, &bob] {
            client.expect("* eve joined lobby\n");
        }
        eve.send("/join den\n");
        eve.expect("* eve joined den\n");
        for client in [&ann, &bob] {
            client.expect("* eve left lobby\n");
        }

        ann.send("hi\n");
        ann.expect("ann: hi\n");
        bob.expect("ann: hi\n");
        bob.half_close();
        bob.expect_end();
        ann.expect("* bob left lobby\n");
        eve.half_close();
        eve.expect_end();
    });
}

#[test]
fn the_first_one_in_can_kick_others_and_nobody_else_can() {
    Simulation::new(chat).seeds(0..200).run(|net| {
        let ann = join(net, "ann");
        let bob = join(net, "bob");
        ann.expect("* bob joined lobby\n");
        bob.send("/kick ann\n");
        bob.expect("* you cannot\n");
        let eve = net.connect();
        eve.send("bob\neve\n");
        eve.expect("* bob is taken\n* eve joined lobby\n");
        for client in [&ann, &bob] {
            client.expect("* eve joined lobby\n");
        }
        ann.send("/kick nobody\n");
        ann.expect("* you cannot\n");
        ann.send("/kick bob\n");
        bob.expect_end();
        bob.half_close();
        for client in [&ann, &eve] {
            client.expect("* bob left lobby\n");
        }
        eve.send("hi\n");
        ann.expect("eve: hi\n");
    });
}

#[test]
fn a_client_that_breaks_off_is_gone_for_the_others_too() {
    Simulation::new(chat).seeds(0..500).faults(|_| Faults::none()).run(|net| {
        let ann = join(net, "ann");
        for round in 0..20 {
            let name = format!("bob{round}");
            let bob = join(net, &name);
            ann.expect(format!("* {name} joined lobby\n"));
            bob.send("half a li");
            bob.reset();
            ann.expect(format!("* {name} left lobby\n"));
        }
    });
}
