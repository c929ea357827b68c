//! The engine on a simulated network: what it promises, under every fault, for many seeds.
//!
//! Each scenario is a server whose limits differ from seed to seed, clients that behave as clients
//! do, and an oracle that knows what each of them may have received. What holds for the engine
//! after every turn is checked by the simulation itself.

mod limits;
mod ping;
mod time;

use std::time::Duration;

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Ending, Faults, Net, Rng, Simulation, Visit},
};

/// Limits that make every corner near: tiny watermarks and turns, few slots.
pub(crate) fn narrow(rng: &mut Rng) -> Limits {
    let high = rng.magnitude(1 << 17);
    let mut limits = Limits::new()
        .high_watermark(high)
        .low_watermark(rng.between(0, high))
        .read_per_turn(1 + rng.magnitude(1 << 16))
        .frames_per_turn(1 + rng.magnitude(1 << 10))
        // A simulated network may be slower than any real one.
        .frame_timeout(None);
    if rng.chance(300) {
        limits = limits.max_connections(Some(rng.between(1, 6)));
    }
    limits
}

fn echo(rng: &mut Rng) -> Server {
    let server = Server::new().limits(narrow(rng));
    server.serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
}

/// Lines of all lengths, most of them short.
pub(crate) fn line(rng: &mut Rng) -> Vec<u8> {
    let length = rng.magnitude(1 << 14);
    let mut line: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
    line.push(b'\n');
    line
}

/// What holds for every client, and for those that are to be answered.
fn is_echoed(visit: &Visit, lossless: bool) {
    let sent = visit.requests.concat();
    let manner = visit.manner;
    assert!(sent.starts_with(&visit.received), "{manner:?} got what it did not send");
    if lossless && manner.is_answered() {
        assert_eq!(visit.received.len(), sent.len(), "{manner:?} is answered");
        assert_eq!(visit.ending, Some(Ending::Finished), "{manner:?} sees the end");
    }
}

fn crowd(net: &Net, lossless: bool) {
    let clients = net.rng().between(1, 12);
    for visit in net.crowd(clients, line) {
        is_echoed(&visit, lossless);
    }
}

#[test]
fn everybody_who_reads_is_answered_whatever_does_not_break_the_connection() {
    Simulation::varied(echo).seeds(0..4000).run(|net| crowd(net, true));
}

#[test]
fn nobody_gets_what_they_did_not_ask_for_even_when_connections_break() {
    Simulation::varied(echo).seeds(0..4000).faults(Faults::swarm).run(|net| crowd(net, false));
}

#[test]
fn a_drain_at_any_moment_cuts_no_reply_in_two() {
    Simulation::varied(echo).seeds(0..4000).run(|net| {
        let micros = net.rng().below(1 << 20);
        net.drain_in(Duration::from_micros(micros));
        let clients = net.rng().between(1, 12);
        for visit in net.crowd(clients, line) {
            is_echoed(&visit, false);
            if visit.manner.is_answered() && visit.ending == Some(Ending::Finished) {
                assert!(matches!(visit.received.last(), None | Some(b'\n')), "{visit:?}");
            }
        }
    });
}

#[test]
fn what_has_arrived_before_a_drain_is_answered() {
    let server =
        || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line: &[u8]| conn.send(line));
    let faults = |rng: &mut Rng| {
        let Faults { short_read, short_write, fragment, .. } = Faults::lossless(rng);
        Faults { short_read, short_write, fragment, ..Faults::none() }
    };
    Simulation::new(server).seeds(0..2000).faults(faults).run(|net| {
        let count = net.rng().between(1, 40);
        let clients: Vec<_> = (0..count).map(|_| net.connect()).collect();
        for (index, client) in clients.iter().enumerate() {
            client.send(format!("one {index}\ntwo {index}\nincomplete"));
        }
        // Nobody has been accepted yet.
        net.drain();
        for (index, client) in clients.iter().enumerate() {
            client.expect(format!("one {index}\ntwo {index}\n"));
            client.expect_end();
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let script = |net: &Net| crowd(net, false);
        Simulation::varied(echo).seeds(0..200).faults(Faults::swarm).run(script)
    };
    let hash = run();
    assert_eq!(hash, run());
    // The same on any machine. It changes with the engine and with the simulator, on purpose:
    // then this number is to be changed with them.
    println!("hash {hash:#018x}");
}
