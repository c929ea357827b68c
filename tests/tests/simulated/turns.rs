//! Nobody waits for somebody else's crowd of requests. A turn takes a microsecond of virtual time.

use std::time::Duration;

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
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

fn pong(net: &Net, client: &Client) -> usize {
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
fn a_client_that_has_to_wait_goes_on_beside_a_client_that_never_rests() {
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

/// Answers each line with `reply` bytes.
fn gives(reply: usize) -> Simulation {
    let server = move || {
        Server::new().serve("127.0.0.1:1", Lines::new(), move |conn, _line| {
            conn.send(vec![b'x'; reply - 1]);
        })
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20)
}

/// Has everybody ask at one moment. Returns how long it took until all were answered, and the most
/// bytes that were held meanwhile.
fn ask(net: &Net, clients: &[Client], reply: usize) -> (Duration, u64) {
    let (began, mut held) = (net.now(), 0);
    let mut missing = clients.len() * reply;
    for client in clients {
        client.send("give\n");
    }
    while missing > 0 {
        net.wait(Duration::from_micros(1));
        held = held.max(net.stats().buffered_bytes);
        missing -= clients.iter().map(|client| client.received().len()).sum::<usize>();
        assert!(net.now() - began < Duration::from_secs(1), "{missing} bytes are missing");
    }
    (net.now() - began, held)
}

fn crowd(net: &Net) -> Vec<Client> {
    let clients: Vec<_> = (0..50).map(|_| net.connect()).collect();
    for client in &clients {
        client.set_window(1 << 20);
    }
    net.wait(Duration::from_millis(1));
    clients
}

#[test]
fn the_replies_of_a_turn_are_sent_before_there_are_too_many() {
    const REPLY: usize = 30_000;
    gives(REPLY).run(|net| {
        let (_, held) = ask(net, &crowd(net), REPLY);
        assert!(held <= 300_000, "{held} bytes were held at once");
    });
}

#[test]
fn a_server_that_has_said_much_serves_many_in_one_turn() {
    const REPLY: usize = 10;
    gives(REPLY).run(|net| {
        let clients = crowd(net);
        for _ in 0..200 {
            ask(net, &clients, REPLY);
        }
        let (took, _) = ask(net, &clients, REPLY);
        assert!(took < Duration::from_micros(20), "50 little replies took {took:?}");
    });
}
