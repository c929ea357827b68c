//! Limits that are set while the server runs: what changes, what stays, and what is refused.

use std::time::Duration;

use nonforker::{
    Limits, Outcome, Server, ServiceLimits,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Rng, Simulation},
};

const HOME: [u8; 4] = [192, 0, 2, 1];

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Echoes; `give N` answers with that many bytes.
fn server(limits: Limits) -> Server {
    Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
        let count = line.strip_prefix(b"give ").and_then(|count| std::str::from_utf8(count).ok());
        match count.and_then(|count| count.parse().ok()) {
            Some(count) => conn.send(vec![b'x'; count]),
            None => conn.send(line),
        }
    })
}

fn asks(client: &Client) {
    client.send("hello\n");
    client.expect("hello\n");
}

fn open(net: &Net) -> u64 {
    net.stats().accepted - net.stats().closed
}

fn deaf(client: &Client) {
    client.set_window(10);
    client.stall();
}

/// What a client does, and the limit that ends it for that.
type Case = (&'static str, fn(&Client), fn(Limits, Option<Duration>) -> Limits);

const CASES: [Case; 4] = [
    ("idle", |client| client.send("hello\n"), Limits::idle_timeout),
    ("unused", |_| {}, Limits::unused_timeout),
    (
        "frame",
        |client| client.send("hel"),
        |limits, time| limits.unused_timeout(None).frame_timeout(time),
    ),
    (
        "write",
        |client| {
            deaf(client);
            client.send("give 100000\n");
        },
        Limits::write_timeout,
    ),
];

#[test]
fn a_timeout_that_changes_counts_from_then_on_for_a_client_that_is_there() {
    for (name, act, set) in CASES {
        for (before, after, ends) in [
            (None, Some(secs(20)), true),
            (Some(secs(3000)), Some(secs(20)), true),
            (Some(secs(20)), None, false),
            (Some(secs(20)), Some(secs(3000)), false),
        ] {
            let limits = move |time| set(Limits::new(), time);
            Simulation::new(move || server(limits(before))).seeds(0..30).run(|net| {
                let client = net.connect();
                act(&client);
                net.wait(secs(8));
                net.set_limits(limits(after)).expect("it can change");
                net.wait(secs(15));
                assert_eq!(open(net), 1, "{name}: it began anew, {before:?} to {after:?}");
                net.wait(secs(60));
                assert_eq!(open(net), u64::from(!ends), "{name}: {before:?} to {after:?}");
            });
        }
    }
}

#[test]
fn limits_that_are_set_again_do_not_put_a_deadline_off() {
    for (name, act, set) in CASES {
        let limits = move || set(Limits::new(), Some(secs(20)));
        Simulation::new(move || server(limits())).seeds(0..30).run(|net| {
            let client = net.connect();
            act(&client);
            for _ in 0..60 {
                net.wait(secs(1));
                net.set_limits(limits()).expect("nothing changes");
            }
            assert_eq!(open(net), 0, "{name}");
        });
    }
}

#[test]
fn more_connections_are_let_in_at_once_and_fewer_as_they_leave() {
    let limits = |most| Limits::new().max_connections(Some(most)).unused_timeout(None);
    Simulation::new(move || server(limits(2))).seeds(0..200).run(|net| {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let client = net.connect();
            client.send("hello\n");
            net.wait(secs(3));
            clients.push(client);
        }
        clients[..2].iter().for_each(|client| client.expect("hello\n"));
        assert_eq!(clients[2].received(), b"", "the server is full");
        net.set_limits(limits(3)).expect("it can change");
        clients[2].expect("hello\n");
        net.set_limits(limits(1)).expect("it can change");
        for client in &clients {
            asks(client);
        }
        let fourth = net.connect();
        fourth.send("hello\n");
        for client in &clients {
            net.wait(secs(3));
            assert_eq!(fourth.received(), b"", "there are too many still");
            client.half_close();
            client.expect_end();
        }
        fourth.expect("hello\n");
    });
}

#[test]
fn connections_that_were_there_before_count_towards_a_bound_by_address() {
    let limits = |most| Limits::new().max_connections_per_ip(most);
    for before in [None, Some(9)] {
        Simulation::new(move || server(limits(before))).seeds(0..100).run(|net| {
            let mut clients: Vec<_> = (0..2).map(|_| net.connect_from(HOME)).collect();
            clients.iter().for_each(asks);
            net.set_limits(limits(Some(3))).expect("it can change");
            clients.push(net.connect_from(HOME));
            asks(&clients[2]);
            for count in 1..=2 {
                assert_eq!(net.connect_from(HOME).receive_to_end().0, b"");
                assert_eq!(net.stats().refused, count);
            }
            for client in clients {
                client.half_close();
                client.expect_end();
                net.wait(secs(10));
                asks(&net.connect_from(HOME));
            }
        });
    }
}

#[test]
fn a_client_that_waited_for_a_peer_goes_on_when_the_watermarks_rise() {
    let limits = |high| Limits::new().high_watermark(high).write_timeout(None);
    Simulation::new(move || server(limits(1000))).seeds(0..100).run(|net| {
        let client = net.connect();
        deaf(&client);
        client.send("give 5000\n".repeat(10));
        net.wait(secs(1));
        assert!(net.stats().frames < 10, "{:?}", net.stats());
        net.set_limits(limits(1_000_000)).expect("it can change");
        net.wait(secs(1));
        assert_eq!(net.stats().frames, 10);
        client.read_all();
    });
}

#[test]
fn a_lower_memory_budget_ends_the_client_that_holds_the_most_and_a_higher_one_lets_all_go_on() {
    let limits = |budget| {
        let roomy = Limits::new().high_watermark(1 << 20).output_cap(1 << 20);
        roomy.write_timeout(None).memory_budget(Some(budget))
    };
    for (budget, left) in [(1_000_000, 2), (1 << 30, 3)] {
        let simulation = Simulation::new(move || server(limits(2_000_000)));
        simulation.seeds(0..20).faults(|_| Faults::none()).run(|net| {
            let clients: Vec<_> = (0..3).map(|_| net.connect()).collect();
            for (client, count) in clients.iter().zip([300_000, 400_000, 1_000_000]) {
                deaf(client);
                client.send(format!("give {count}\nhello\n"));
                net.wait(Duration::from_millis(10));
            }
            net.set_limits(limits(budget)).expect("it can change");
            net.wait(Duration::from_millis(500));
            assert_eq!(open(net), left, "{:?}", net.stats());
            assert!(net.stats().buffered_bytes <= budget as u64, "{:?}", net.stats());
            let newcomer = net.connect();
            newcomer.send("hello\n");
            net.wait(Duration::from_millis(100));
            assert_eq!(newcomer.received().is_empty(), budget < 1 << 30, "it waits for memory");
            assert_eq!(clients[2].ending(), (left == 2).then_some(Ending::Reset));
        });
    }
}

#[test]
fn what_a_service_or_a_connection_has_of_its_own_stays() {
    let build = || {
        server(Limits::new())
            .service_limits(ServiceLimits::new().frame_timeout(Some(secs(50))))
            .serve("127.0.0.1:2", Lines::new(), |conn, _| -> Outcome {
                Ok(conn.set_idle_timeout(Some(secs(50)))?)
            })
    };
    Simulation::new(build).seeds(0..50).run(|net| {
        let clients = [net.connect_to(0), net.connect_to(1)];
        clients[0].send("hel");
        clients[1].send("hello\n");
        let short = Some(secs(5));
        let limits = Limits::new().frame_timeout(short).unused_timeout(None);
        net.wait(secs(1));
        net.set_limits(limits.idle_timeout(None)).expect("it can change");
        net.wait(secs(35));
        assert_eq!(open(net), 2);
        net.set_limits(Limits::new().unused_timeout(None).idle_timeout(Some(secs(3000))))
            .expect("it can");
        net.wait(secs(60));
        assert_eq!(open(net), 0);
    });
}

#[test]
fn what_counts_only_at_the_start_is_refused_by_name_and_nothing_changes() {
    let start = || Limits::new().read_per_turn(2000).idle_timeout(Some(secs(1000)));
    let idle = |limits: Limits| limits.idle_timeout(Some(secs(2)));
    Simulation::new(move || server(start())).seeds(0..5).run(|net| {
        let client = net.connect();
        asks(&client);
        for (limits, said) in [
            (
                Limits::new(),
                "read_per_turn: 64KiB is not what it was at the start, 2000 bytes, and",
            ),
            (start().backlog(7), "backlog: 7 is not what it was at the start, 1024, and"),
            (start().keepalive(None), "keepalive: none is not what it was at the start, 60s, and"),
            (start().keepalive_interval(secs(3)), "keepalive_interval: 3s is not what it was"),
            (start().keepalive_count(3), "keepalive_count: 3 is not what it was at the start, 6"),
            (start().tcp_user_timeout(Some(secs(3))), "tcp_user_timeout: 3s is not what it was"),
            (start().frames_per_turn(0), "frames_per_turn: 0 is out of bounds: at least 1"),
            (start().low_watermark(1 << 20), "low_watermark: a low watermark of 1MiB is above"),
        ] {
            let error = net.set_limits(idle(limits)).expect_err(said).to_string();
            assert!(error.starts_with(said), "{error}");
        }
        net.wait(secs(100));
        assert_eq!(open(net), 1, "nothing has changed");
        net.set_limits(idle(start().busy_poll(Some(Duration::from_micros(5)))))
            .expect("it can change");
        net.wait(secs(100));
        assert_eq!(open(net), 0, "now it has");
    });
}

#[test]
fn a_client_that_has_not_arrived_takes_a_place_and_new_limits_wait_for_its_header() {
    const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 51324 443\r\n";
    let limits = |most| {
        let timeouts = Limits::new().handshake_timeout(secs(20)).unused_timeout(None);
        timeouts.idle_timeout(most).max_connections(Some(2)).max_connections_per_ip(Some(1))
    };
    let build = move || server(limits(None)).proxy_protocol("10.0.0.0/8");
    Simulation::new(build).seeds(0..100).faults(|_| Faults::none()).run(|net| {
        let proxy = [10, 0, 0, 1];
        let clients = [net.connect_from(proxy), net.connect_from(proxy)];
        clients[0].send(&V1[..20]);
        net.wait(secs(8));
        net.set_limits(limits(Some(secs(5)))).expect("it can change");
        net.wait(secs(8));
        assert_eq!(open(net), 2, "they are not idle: their time to arrive runs");
        clients[0].send(&V1[20..]);
        asks(&clients[0]);
        // The client is counted, and its proxy is not, although the limits were set anew.
        net.set_limits(limits(Some(secs(50)))).expect("it can change");
        clients[1].send(V1);
        assert_eq!(clients[1].receive_to_end().0, b"", "one too many of this client");
        let silent = net.connect_from(proxy);
        let waits = net.connect_from(proxy);
        waits.send(V1.replace(".7 ", ".8 ") + "hello\n");
        net.wait(secs(8));
        assert_eq!((open(net), waits.received()), (2, Vec::new()), "there is no place");
        assert_eq!(silent.receive_to_end().0, b"", "it has not arrived in time");
        waits.expect("hello\n");
        assert_eq!((open(net), net.stats().refused), (2, 2));
    });
}

fn some_time(rng: &Rng) -> Duration {
    Duration::from_millis(1 + rng.below(3000))
}

/// Limits among which a server may be sent to and fro.
fn some_limits(rng: &Rng) -> Limits {
    let time = |rng: &Rng| rng.chance(500).then(|| some_time(rng));
    let size = |rng: &Rng| rng.between(1, 5000);
    Limits::new()
        .high_watermark(size(rng))
        .output_cap(size(rng))
        .frames_per_turn(size(rng))
        .max_connections(Some(size(rng) % 6 + 2))
        .max_connections_per_ip(rng.chance(500).then(|| size(rng) % 4 + 1))
        .memory_budget(Some(size(rng) * 100 + 4096))
        .frame_timeout(time(rng))
        .write_timeout(time(rng))
        .idle_timeout(time(rng))
        .unused_timeout(time(rng))
        .linger_timeout(some_time(rng))
}

/// Two services, one of them with limits of its own.
fn some_server(rng: &Rng) -> Server {
    let own = ServiceLimits::new()
        .reserved_connections(rng.between(0, 1))
        .max_connections(rng.chance(500).then(|| rng.between(1, 3)));
    let own = match rng.chance(500) {
        true => own.unused_timeout(None).high_watermark(rng.between(1, 5000)),
        false => own.max_connections_per_ip(Some(2)).idle_timeout(Some(some_time(rng))),
    };
    let server = server(some_limits(rng));
    server.serve("127.0.0.1:2", Lines::new(), |conn, line| conn.send(line)).service_limits(own)
}

#[test]
fn the_server_is_sound_whatever_is_set_when() {
    Simulation::varied(some_server).seeds(0..1500).run(|net| {
        let rng = net.rng();
        let mut clients = vec![net.connect()];
        for _ in 0..60 {
            let client = &clients[rng.between(1, clients.len()) - 1];
            match rng.below(9) {
                0 => net.set_limits(some_limits(&rng)).expect("they can change"),
                1 => clients.push(net.connect_to(rng.between(0, 1))),
                2 => clients.push(net.connect_from(HOME)),
                3 => client.send(format!("give {}\n", rng.between(1, 20_000))),
                4 => client.send("hello\n".repeat(rng.between(1, 30))),
                5 => client.send("hel"),
                6 => client.stall(),
                7 => client.read_all(),
                _ => net.wait(some_time(&rng) / 6),
            }
        }
    });
}
