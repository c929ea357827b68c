//! Limits of one service among several, and limits that change: who has a place, and for how long.

use std::time::Duration;

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server, ServiceLimits,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

const PUBLIC: usize = 0;
const HEALTH: usize = 1;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Two services that echo: a public one, and one with limits of its own.
fn server(limits: Limits, health: ServiceLimits) -> Server {
    Server::new()
        .limits(limits)
        .serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line))
        .serve("127.0.0.1:2", Lines::new(), |conn, line| conn.send(line))
        .service_limits(health)
}

fn asks(net: &Net, port: usize) -> Client {
    let client = net.connect_to(port);
    client.send("hello\n");
    client.expect("hello\n");
    client
}

/// A client that has sent a request and is not let in.
fn waits(net: &Net, port: usize) -> Client {
    let client = net.connect_to(port);
    client.send("hello\n");
    net.wait(secs(3));
    assert_eq!(client.received(), b"", "nobody may be let in at port {port}: {:?}", net.stats());
    client
}

fn leaves(net: &Net, client: &Client) {
    client.half_close();
    client.expect_end();
    net.wait(secs(10));
}

#[test]
fn a_health_port_answers_while_the_public_port_is_full() {
    let server = || {
        let limits = Limits::new().max_connections(Some(4));
        server(limits, ServiceLimits::new().reserved_connections(1))
    };
    Simulation::new(server).seeds(0..200).run(|net| {
        let public: Vec<_> = (0..3).map(|_| asks(net, PUBLIC)).collect();
        let fourth = waits(net, PUBLIC);
        for _ in 0..3 {
            let health = asks(net, HEALTH);
            let second = waits(net, HEALTH);
            leaves(net, &health);
            second.expect("hello\n");
            leaves(net, &second);
        }
        assert_eq!(fourth.received(), b"", "its place is kept for the health port");
        leaves(net, &public[0]);
        fourth.expect("hello\n");
    });
}

#[test]
fn what_is_not_reserved_is_for_all_and_a_service_has_no_more_than_it_may() {
    let server = || {
        let limits = Limits::new().max_connections(Some(5));
        let health = ServiceLimits::new().reserved_connections(1).max_connections(Some(3));
        server(limits, health)
    };
    Simulation::new(server).seeds(0..200).run(|net| {
        let health: Vec<_> = (0..3).map(|_| asks(net, HEALTH)).collect();
        let fourth = waits(net, HEALTH);
        let public: Vec<_> = (0..2).map(|_| asks(net, PUBLIC)).collect();
        let third = waits(net, PUBLIC);
        leaves(net, &public[0]);
        third.expect("hello\n");
        assert_eq!(fourth.received(), b"", "the service has all that it may have");
        leaves(net, &health[0]);
        fourth.expect("hello\n");
    });
}

#[test]
fn a_client_that_goes_to_make_room_leaves_a_place_that_the_waiting_one_can_have() {
    // Who is unused on the public and on the health port, where somebody waits, and who of the two
    // goes: neither may if its end helps nobody.
    for (health, waits_at, goes) in [
        (ServiceLimits::new(), PUBLIC, [true, false]),
        (ServiceLimits::new(), HEALTH, [true, false]),
        (ServiceLimits::new().max_connections(Some(1)), HEALTH, [false, true]),
        (ServiceLimits::new().reserved_connections(1), PUBLIC, [true, false]),
        (ServiceLimits::new().unused_timeout(None).max_connections(Some(1)), HEALTH, [false; 2]),
    ] {
        let server = move || {
            let limits = Limits::new().max_connections(Some(3)).unused_timeout(Some(secs(3600)));
            server(limits, health.clone())
        };
        Simulation::new(server).seeds(0..50).run(|net| {
            let mut unused = Vec::new();
            for port in [PUBLIC, HEALTH] {
                unused.push(net.connect_to(port));
                net.wait(secs(1));
            }
            let used = asks(net, PUBLIC);
            let client = net.connect_to(waits_at);
            client.send("hello\n");
            net.wait(secs(10));
            let gone: Vec<_> = unused.iter().map(|client| client.ending().is_some()).collect();
            assert_eq!(gone, goes, "at port {waits_at}");
            assert_eq!(client.received().is_empty(), goes == [false; 2], "at port {waits_at}");
            assert_eq!(used.ending(), None, "it had a request");
        });
    }
}

#[test]
fn each_service_has_its_own_timeouts() {
    type Act = fn(&Client);
    let some = Some(secs(2));
    let own = ServiceLimits::new;
    let cases: [(&str, ServiceLimits, Act); 4] = [
        ("idle", own().idle_timeout(some), |client| client.send("hello\n")),
        ("unused", own().unused_timeout(some), |_| {}),
        ("frame", own().frame_timeout(some), |client| client.send("hel")),
        ("write", own().write_timeout(some), |client| {
            client.set_window(10);
            client.stall();
            client.send("a line of more than ten bytes\n");
        }),
    ];
    for (name, health, act) in cases {
        let server = move || server(Limits::new(), health.clone());
        Simulation::new(server).seeds(0..50).run(|net| {
            let clients = [PUBLIC, HEALTH].map(|port| net.connect_to(port));
            clients.iter().for_each(act);
            net.wait(secs(15));
            let open = [PUBLIC, HEALTH].map(|service| {
                let stats = net.service_stats(service).expect("there are two");
                stats.accepted - stats.closed
            });
            assert_eq!(open, [1, 0], "{name}");
        });
    }
}

#[test]
fn the_watermarks_and_the_frames_of_a_turn_are_those_of_the_service() {
    /// Answers with how much is queued for it when pressure has risen.
    struct Pours;

    impl Handler for Pours {
        type Codec = Lines;
        type Session = ();

        fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
            conn.send([b'x'; 99]);
            Ok(())
        }
    }

    let server = || {
        Server::new()
            .serve_with("127.0.0.1:1", Lines::new(), Pours)
            .serve_with("127.0.0.1:2", Lines::new(), Pours)
            .service_limits(ServiceLimits::new().high_watermark(1000))
    };
    Simulation::new(server).seeds(0..50).run(|net| {
        for (port, frames) in [(PUBLIC, 300), (HEALTH, 11)] {
            let client = net.connect_to(port);
            client.set_window(0);
            client.stall();
            client.send("\n".repeat(300));
            net.wait(secs(1));
            let stats = net.service_stats(port).expect("there are two");
            assert!(stats.frames <= frames, "{stats:?}");
            assert!(port == HEALTH || stats.frames == frames, "{stats:?}");
            client.read_all();
        }
    });
}

#[test]
fn services_count_for_themselves_and_the_server_for_all() {
    Simulation::new(|| server(Limits::new(), ServiceLimits::new())).seeds(0..50).run(|net| {
        let public = asks(net, PUBLIC);
        for _ in 0..2 {
            leaves(net, &asks(net, HEALTH));
        }
        let of = |service| {
            let stats = net.service_stats(service)?;
            Some([
                stats.accepted,
                stats.closed,
                stats.frames,
                stats.received_bytes,
                stats.sent_bytes,
            ])
        };
        assert_eq!(of(PUBLIC), Some([1, 0, 1, 6, 6]));
        assert_eq!(of(HEALTH), Some([2, 2, 2, 12, 12]));
        assert_eq!(of(2), None);
        let all = net.stats();
        assert_eq!((all.accepted, all.frames, all.sent_bytes), (3, 3, 18));
        leaves(net, &public);
    });
}

/// Whoever says `N` may be silent for so many seconds from now on, and for ever with 0. `others N`
/// does it to all others.
struct Patient;

impl Handler for Patient {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let text = std::str::from_utf8(line)?;
        let parsed = |text: &str| -> Result<_, std::num::ParseIntError> {
            let seconds: u64 = text.parse()?;
            Ok((seconds > 0).then(|| secs(seconds)))
        };
        if let Some(text) = text.strip_prefix("others ") {
            let timeout = parsed(text)?;
            let mut results = Vec::new();
            conn.others().for_each(|other| results.push(other.set_idle_timeout(timeout)));
            results.into_iter().collect::<Result<(), _>>()?;
        } else if text != "hello" {
            conn.set_idle_timeout(parsed(text)?)?;
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        assert!(conn.set_idle_timeout(Some(secs(1))).is_ok(), "it is too late, and no error");
    }
}

#[test]
fn one_connection_may_be_silent_for_longer_or_not_as_long_as_the_others() {
    const NEVER: u64 = 1 << 40;
    for (limit, said, closed_after) in [
        (Some(secs(10)), "hello", [10, 10]),
        (Some(secs(10)), "3", [3, 10]),
        (Some(secs(10)), "30", [30, 10]),
        (Some(secs(10)), "0", [NEVER, 10]),
        (None, "3", [3, NEVER]),
        (Some(secs(10)), "others 5", [10, 5]),
        (None, "others 5", [NEVER, 5]),
        // Out of bounds: an error, which ends the connection that asked for it.
        (Some(secs(10)), "3155760001", [0, 10]),
    ] {
        let server = move || {
            let limits = Limits::new().idle_timeout(limit);
            Server::new().limits(limits).serve_with("127.0.0.1:1", Lines::new(), Patient)
        };
        Simulation::new(server).seeds(0..50).faults(|_| Faults::none()).run(|net| {
            let clients = [net.connect(), net.connect()];
            clients[1].send("hello\n");
            net.wait(Duration::from_millis(1));
            clients[0].send(format!("{said}\n"));
            net.wait(Duration::from_millis(400));
            for second in 0..40 {
                let open = clients.each_ref().map(|client| client.ending().is_none());
                let expected = closed_after.map(|after| second < after);
                assert_eq!(open, expected, "{limit:?}, {said:?}, after {second} s");
                net.wait(secs(1));
            }
        });
    }
}

#[test]
fn an_own_idle_timeout_counts_from_what_goes_either_way() {
    let server = || Server::new().serve_with("127.0.0.1:1", Lines::new(), Patient);
    Simulation::new(server).seeds(0..50).run(|net| {
        let client = net.connect();
        client.send("6\n");
        for _ in 0..20 {
            net.wait(secs(3));
            client.send("hello\n");
        }
        assert_eq!(client.ending(), None);
        net.wait(secs(15));
        assert!(client.ending().is_some(), "it is silent");
    });
}
