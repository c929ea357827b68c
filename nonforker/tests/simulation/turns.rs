//! Nobody waits for somebody else's crowd of requests. A turn takes a microsecond of virtual time.

use std::time::Duration;

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Client, Faults, Simulation},
};

const FRAMES_PER_TURN: usize = 10;

/// Answers `ping` with the number of lines it has handled so far, for everybody.
fn server() -> Server {
    let mut handled = 0;
    let limits = Limits::new().frames_per_turn(FRAMES_PER_TURN);
    Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), move |conn, line| {
        handled += 1;
        if line == b"ping" {
            conn.send(format!("{handled:9}"));
        }
    })
}

fn pong(net: &nonforker::sim::Net, client: &Client) -> usize {
    loop {
        let received = client.received();
        if let Some(number) = received.strip_suffix(b"\n") {
            return String::from_utf8_lossy(number).trim().parse().expect("a number");
        }
        net.wait(Duration::from_micros(1));
    }
}

fn simulation() -> Simulation {
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..50)
}

#[test]
fn a_flood_in_one_read_does_not_keep_a_ping_waiting() {
    simulation().run(|net| {
        let (flood, client) = (net.connect(), net.connect());
        client.set_window(100);
        client.send("ping\n");
        let mut before = pong(net, &client);
        flood.send("\n".repeat(60_000));
        for _ in 0..20 {
            client.send("ping\n");
            let handled = pong(net, &client);
            assert!(handled - before <= 10 * FRAMES_PER_TURN, "{} went first", handled - before);
            before = handled;
        }
    });
}

#[test]
fn whoever_has_to_wait_goes_on_beside_somebody_who_never_rests() {
    simulation().run(|net| {
        let (flood, client) = (net.connect(), net.connect());
        client.set_window(100);
        flood.send("\n".repeat(60_000));
        net.wait(Duration::from_micros(100));
        let began = net.now();
        client.send("\n".repeat(20 * FRAMES_PER_TURN) + "ping\n");
        let handled = pong(net, &client);
        let took = (net.now() - began).as_micros();
        assert!(took <= 60, "21 turns took {took}");
        assert!(handled < 10_000, "the flood is not over: {handled}");
    });
}
