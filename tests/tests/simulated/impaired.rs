//! Relays that are a bad network on purpose.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nonforker::{
    Limits, Relay, RelayFaults, Server,
    sim::{Client, Ending, Simulation},
};

use crate::relaying::{FROM, TO, bytes, joined, no_faults};

/// What becomes of so many connections through a relay with these faults: how many bytes each side got,
/// and how its stream ended.
fn ends_of(faults: &RelayFaults, seed: u64) -> Vec<[(usize, Option<Ending>); 2]> {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let faults = faults.clone();
    let server = move || {
        let relay = Relay::to(TO).expect("a target").faults(faults.clone());
        Server::new().limits(Limits::new().write_timeout(None)).relay(FROM, relay)
    };
    no_faults(Simulation::new(server).seeds(seed..seed + 1)).run(move |net| {
        let listener = net.listen(TO);
        let mut all = Vec::new();
        for number in 0..40 {
            let (client, server) = joined(net, &listener);
            // One after the other: how far the one has come when the other is struck depends on time.
            client.send(bytes(5000, number));
            net.wait(Duration::from_secs(30));
            server.send(bytes(5000, number + 1));
            net.wait(Duration::from_secs(30));
            // A reset may overtake bytes.
            let ends = [&client, &server].map(|end| match end.ending() {
                Some(Ending::Reset) => (0, Some(Ending::Reset)),
                ending => (end.received().len(), ending),
            });
            all.push(ends);
            client.reset();
            server.reset();
        }
        *told.lock().expect("nobody panics") = all;
    });
    let ends = ends.lock().expect("nobody panics");
    ends.clone()
}

#[test]
fn the_same_seed_gives_the_same_faults_whatever_the_network_does() {
    let faults = RelayFaults::new().cut(0.3).reset(0.3).stall(0.2).slice(1, 900).seed(5);
    let first = ends_of(&faults, 1);
    assert_eq!(first, ends_of(&faults, 2), "on another network");
    let slow = faults.clone().latency(Duration::ZERO, Duration::from_millis(90));
    assert_eq!(first, ends_of(&slow.bandwidth(100_000), 3), "and slower");
    assert_ne!(first, ends_of(&faults.clone().seed(6), 1), "another seed");
    let whole = first.iter().filter(|ends| ends.iter().all(|end| end.0 == 5000)).count();
    assert!((2..20).contains(&whole), "{whole} are spared: {first:?}");
    let count = |ending| first.iter().filter(|ends| ends[0].1 == Some(ending)).count();
    assert!(count(Ending::Finished) > 3 && count(Ending::Reset) > 3, "{first:?}");
}

#[test]
fn a_relay_that_stalls_stands_still_both_ways_for_ever() {
    let server = || {
        let relay = Relay::to(TO).expect("a target").faults(RelayFaults::new().stall(1.0));
        Server::new().limits(Limits::new().write_timeout(None)).relay(FROM, relay)
    };
    no_faults(Simulation::new(server).seeds(0..3)).run(|net| {
        let listener = net.listen(TO);
        let mut stood = [0, 0];
        for number in 0..20 {
            let (client, server) = joined(net, &listener);
            let send = |from: &Client, to: &Client| {
                from.send(bytes(5000, number));
                net.wait(Duration::from_secs(1));
                to.received().len()
            };
            let (up, down) = (send(&client, &server), send(&server, &client));
            assert!(
                up < 5000 && down == 0 || up == 5000 && (1..5000).contains(&down),
                "{up} {down}"
            );
            stood[usize::from(up == 5000)] += 1;
            let more = (send(&client, &server), send(&server, &client));
            assert_eq!(more, (0, 0), "behind {up} and {down} bytes");
            assert_eq!((client.ending(), server.ending()), (None, None));
        }
        assert!(stood.iter().all(|&count| count > 3), "{stood:?}");
    });
}

#[test]
fn a_relay_with_faults_loses_no_byte_before_them() {
    let server = || {
        let ms = Duration::from_millis;
        let faults = RelayFaults::new().latency(ms(5), ms(80)).bandwidth(20_000).slice(1, 2000);
        let relay = Relay::to(TO).expect("a target").faults(faults.seed(3));
        Server::new().limits(Limits::new().write_timeout(None)).relay(FROM, relay)
    };
    Simulation::new(server).seeds(0..60).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        let (up, down) = (bytes(30_000, 1), bytes(9_000, 2));
        client.send(&up);
        client.half_close();
        server.send(&down);
        assert_eq!(server.receive_to_end(), (up, Some(Ending::Finished)));
        client.expect(&down);
        server.send("the last");
        server.half_close();
        client.expect("the last");
        client.expect_end();
    });
}
