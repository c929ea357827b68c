//! The engine on a simulated network: what it promises, under every fault, for many seeds.

use nonforker::{
    Server,
    codec::Lines,
    sim::{Ending, Faults, Net, Rng, Simulation},
};

fn echo() -> Server {
    Server::new().serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
}

/// Lines of all lengths, most of them short.
fn line(rng: &mut Rng) -> Vec<u8> {
    let exponent = rng.between(0, 14);
    let length = rng.between(0, 1 << exponent);
    let mut line: Vec<u8> = (0..length).map(|_| b'a' + rng.below(26) as u8).collect();
    line.push(b'\n');
    line
}

fn everybody_is_echoed(net: &Net, lossless: bool) {
    let clients = net.rng().between(1, 12);
    for visit in net.crowd(clients, line) {
        let sent = visit.requests.concat();
        assert!(sent.starts_with(&visit.received), "{:?} got what it did not send", visit.manner);
        if lossless && visit.manner.is_answered() {
            assert_eq!(visit.received.len(), sent.len(), "{:?} is answered", visit.manner);
            assert_eq!(visit.ending, Some(Ending::Finished), "{:?} sees the end", visit.manner);
        }
    }
}

#[test]
fn echo_answers_everybody_whatever_does_not_break_the_connection() {
    Simulation::new(echo).seeds(0..2000).run(|net| everybody_is_echoed(net, true));
}

#[test]
fn echo_never_sends_what_was_not_asked_for_even_when_connections_break() {
    Simulation::new(echo)
        .seeds(0..2000)
        .faults(Faults::swarm)
        .run(|net| everybody_is_echoed(net, false));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let script = |net: &Net| everybody_is_echoed(net, false);
        Simulation::new(echo).seeds(0..50).faults(Faults::swarm).run(script)
    };
    assert_eq!(run(), run());
}
