//! Cases: listeners, and whom they report.

use super::{
    Client, Heard, Rig,
    bench::{Bench, QUIET},
};
use crate::{
    address::{Address, Peer},
    driver::{Driver, Op},
};

pub(super) fn an_accepted_connection_has_its_peer_and_can_be_adopted<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    bench.accept(listener, true);
    let mut client = bench.rig.connect(&address).expect("somebody listens");
    bench.until("the connection", |bench| !bench.log.arrivals.is_empty());
    assert_eq!(bench.log.arrivals[0].peer, client.peer());

    let token = bench.adopt();
    bench.receive(token, true);
    bench.send_from(&mut client, b"ping");
    bench.until("the ping", |bench| bench.of(token).received == b"ping");
    bench.send(token, b"pong");
    bench.until("the pong", |_| client.receive() == Heard::Bytes(b"pong".to_vec()));
}

pub(super) fn a_listener_tells_where_it_is<R: Rig>(bench: &mut Bench<R>) {
    let (_, first) = bench.listen();
    let (_, second) = bench.listen();
    assert_ne!(first, second);
    for address in [first, second] {
        assert!(!matches!(address, Address::Tcp(tcp) if tcp.port() == 0), "{address}");
        bench.rig.connect(&address).expect("one can connect before anybody is accepted");
    }
}

pub(super) fn an_address_has_one_listener<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    let second = bench.driver.listen(listener + 1, &address, true);
    assert!(second.is_err(), "{address} has two");
    bench.accept(listener, true);
    bench.rig.connect(&address).expect("the first one still listens");
    bench.adopt();
}

pub(super) fn an_address_is_free_again_when_its_listener_is_closed<R: Rig>(bench: &mut Bench<R>) {
    let (first, address) = bench.listen();
    bench.driver.submit(Op::Unlisten { listener: first });
    // A driver may take a moment to let go.
    bench.settle();
    let second = bench.listen_at(&address);
    bench.accept(second, true);
    bench.rig.connect(&address).expect("somebody listens again");
    bench.until("the connection", |bench| !bench.log.arrivals.is_empty());
    assert_eq!(bench.log.arrivals[0].listener, second);
}

pub(super) fn each_listener_reports_under_its_own_number<R: Rig>(bench: &mut Bench<R>) {
    let addresses = [bench.listen().1, bench.listen().1, bench.listen().1];
    for listener in 0..3 {
        bench.accept(listener, true);
    }
    for listener in [2, 0, 1] {
        let _client = bench.rig.connect(&addresses[listener]).expect("somebody listens");
        bench.until("the connection", |bench| !bench.log.arrivals.is_empty());
        let arrival = bench.log.arrivals.pop_front().expect("somebody was accepted");
        assert_eq!(arrival.listener, listener);
    }
}

pub(super) fn a_dropped_connection_is_refused<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    bench.accept(listener, true);
    let mut refused = bench.rig.connect(&address).expect("somebody listens");
    bench.until("the connection", |bench| !bench.log.arrivals.is_empty());
    drop(bench.log.arrivals.pop_front().expect("somebody was accepted").socket);
    bench.until("the refusal", |_| matches!(refused.receive(), Heard::End | Heard::Reset));

    bench.rig.connect(&address).expect("others can connect");
    bench.adopt();
}

pub(super) fn while_accepting_is_off_nobody_is_reported<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    let mut clients = Vec::new();
    for round in 1..=3 {
        for _ in 0..2 {
            clients.push(bench.rig.connect(&address).expect("somebody listens"));
            bench.settle();
        }
        assert_eq!(bench.log.arrivals.len(), 2 * (round - 1), "while off, in round {round}");
        bench.accept(listener, true);
        bench.until("both", |bench| bench.log.arrivals.len() == 2 * round);
        bench.accept(listener, false);
    }
    let peers: Vec<_> = clients.iter().map(Client::peer).collect();
    let reported: Vec<Peer> =
        bench.log.arrivals.iter().map(|arrival| arrival.peer.clone()).collect();
    assert_eq!(reported, peers, "in the order in which they connected");
}

pub(super) fn running_out_of_descriptors_turns_accepting_off<R: Rig>(bench: &mut Bench<R>) {
    if !R::is_alone() {
        return;
    }
    let (mut served, token) = bench.open();
    let (listener, address) = bench.listen();
    let clients = [(); 3].map(|()| bench.rig.connect(&address).expect("somebody listens"));
    bench.accept(listener, true);
    R::without_descriptors(bench, |bench| {
        bench.until("the failure", |bench| bench.log.accept_failures == 1);
        // Accepting is off now, or the bench would object; nothing is retried, nothing spins.
        bench.settle();
        bench.receive(token, true);
        assert_eq!(served.send(b"others go on"), 12);
        bench.until("the others", |bench| bench.of(token).received == b"others go on");
        bench.accept(listener, true);
        bench.until("the second failure", |bench| bench.log.accept_failures == 2);
    });
    bench.settle();
    assert!(bench.log.arrivals.is_empty(), "nobody asked again");
    bench.accept(listener, true);
    bench.promptly("those who waited", |bench| bench.log.arrivals.len() == clients.len());
}

pub(super) fn a_crowd_is_accepted_without_sleeping_on_it<R: Rig>(bench: &mut Bench<R>) {
    let (listener, address) = bench.listen();
    let clients: Vec<_> =
        (0..100).map(|_| bench.rig.connect(&address).expect("somebody listens")).collect();
    bench.accept(listener, true);
    bench.promptly("the crowd", |bench| bench.log.arrivals.len() == clients.len());
    bench.settle();
}

pub(super) fn a_closed_listener_refuses_and_leaves_connections_alone<R: Rig>(bench: &mut Bench<R>) {
    let (mut client, token) = bench.open();
    let (listener, address) = bench.listen();
    let mut waiting = bench.rig.connect(&address).expect("somebody listens");
    bench.wait(QUIET);
    bench.driver.submit(Op::Unlisten { listener });
    bench.until("the refusal", |_| matches!(waiting.receive(), Heard::End | Heard::Reset));
    assert!(bench.rig.connect(&address).is_err(), "nobody listens");
    bench.accept(listener, true);
    bench.settle();

    bench.receive(token, true);
    bench.send_from(&mut client, b"still here");
    bench.until("its bytes", |bench| bench.of(token).received == b"still here");
    bench.open();
}
