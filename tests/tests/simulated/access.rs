//! Who may come in, how many and how fast; and how connections end that are old, or that a drain ends
//! one after the other.

use std::{cell::RefCell, net::Ipv6Addr, time::Duration};

use nonforker::{
    Access, Conn, Error, Handler, Limits, Networks, Outcome, Server, Ticket,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation},
};

const ADDRESS: &str = "127.0.0.1:1685";

thread_local! {
    static TICKETS: RefCell<Vec<Ticket<Door>>> = RefCell::default();
}

/// Echoes, and says goodbye.
struct Door;

impl Handler for Door {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let peer = conn.peer().ip();
        assert!(peer.is_none_or(|ip| ip.to_string() != "10.6.6.6"), "it is denied");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"defer" => {
                let ticket = conn.defer();
                TICKETS.with_borrow_mut(|tickets| tickets.push(ticket));
            }
            line => conn.send(line),
        }
        Ok(())
    }

    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("bye");
        Ok(())
    }
}

fn plain() -> Limits {
    Limits::new().unused_timeout(None)
}

fn made(limits: Limits, shape: fn(Server) -> Server) -> impl Fn() -> Server + 'static {
    move || {
        TICKETS.with_borrow_mut(Vec::clear);
        shape(Server::new().limits(limits.clone()).serve_with(ADDRESS, Lines::new(), Door))
    }
}

fn of(limits: Limits, shape: fn(Server) -> Server) -> Simulation {
    Simulation::new(made(limits, shape)).seeds(0..40).faults(|_| Faults::none())
}

fn networks(text: &str) -> Networks {
    text.parse().expect("it is well written")
}

/// Of these clients, how many are served.
fn served(net: &Net, clients: &[Client]) -> usize {
    clients.iter().for_each(|client| client.send("hello\n"));
    net.settle();
    clients.iter().filter(|client| client.received() == b"hello\n").count()
}

fn is_served(net: &Net, client: &Client) -> bool {
    served(net, std::slice::from_ref(client)) == 1
}

#[test]
fn denied_networks_are_out_and_with_any_allowed_all_others_are() {
    let shape = |server: Server| {
        let access = Access::new().allow(networks("10.0.0.0/8,2001:db8::/32"));
        server.access(access.deny(networks("10.6.6.0/24"))).refuse_with("busy\n")
    };
    of(plain(), shape).run(|net| {
        for (ip, comes_in) in [
            ("10.0.0.1", true),
            ("10.6.6.6", false),
            ("10.6.7.6", true),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            let client = net.connect_from(ip.parse::<std::net::IpAddr>().expect("an address"));
            client.send("hello\n");
            net.settle();
            let expected: &[u8] = if comes_in { b"hello\n" } else { b"" };
            assert_eq!(client.received(), expected, "{ip}");
            assert_eq!(client.ending().is_none(), comes_in, "{ip}");
        }
        assert_eq!(net.stats().refused, 3);
    });
}

#[test]
fn behind_a_proxy_it_is_the_real_client_that_counts() {
    let shape = |server: Server| {
        let access = Access::new().deny(networks("10.6.6.0/24"));
        server.access(access).proxy_protocol("192.0.2.0/24").refuse_with("busy\n")
    };
    let limits = plain().max_connections_per_net(Some(1));
    of(limits, shape).faults(Faults::lossless).run(|net| {
        let through = |ip: &str| {
            let client = net.connect_from([192, 0, 2, 9]);
            let family = if ip.contains(':') { "6" } else { "4" };
            client.send(format!("PROXY TCP{family} {ip} {ip} 5 6\r\nhello\n"));
            client
        };
        let denied = [through("10.6.6.6"), through("::ffff:10.6.6.6")];
        let one = through("10.6.7.1");
        one.expect("hello\n");
        let busy = through("10.6.7.2");
        assert_eq!(busy.receive_to_end(), (b"busy\n".to_vec(), Some(Ending::Finished)));
        through("2001:db8::1").expect("hello\n");
        for client in denied {
            assert_eq!(client.receive_to_end().0, b"");
        }
    });
}

#[test]
fn a_network_has_so_many_connections_in_all_shards() {
    let limits = plain().max_connections_per_net(Some(4)).max_connections_per_ip(Some(3));
    for shards in [1, 3] {
        of(limits.clone(), |server| server).shards(shards).run(|net| {
            let v6 = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, number, 7, 7, number);
            let clients: Vec<_> =
                (0..9).map(|number| net.connect_from([10, 0, 1, number])).collect();
            assert_eq!(served(net, &clients), 4, "a /24");
            let others: Vec<_> = (0..9).map(|number| net.connect_from(v6(number))).collect();
            assert_eq!(served(net, &others), 4, "a /64");
            let same: Vec<_> = (0..9).map(|_| net.connect_from([10, 0, 2, 1])).collect();
            assert_eq!(served(net, &same), 3, "of one address there are fewer");
            // The one that its address refused is not counted for its network.
            assert!(is_served(net, &net.connect_from([10, 0, 2, 2])));
            assert!(!is_served(net, &net.connect_from([10, 0, 2, 3])));
            clients.iter().for_each(Client::half_close);
            net.settle();
            net.wait(Duration::from_secs(10));
            assert!(is_served(net, &net.connect_from([10, 0, 1, 77])), "there is room again");
            // Now each address is a network, and all are counted anew.
            net.set_limits(limits.clone().net_prefix(32, 128)).expect("it is well");
            net.settle();
            assert!(is_served(net, &net.connect_from([10, 0, 2, 9])));
        });
    }
}

#[test]
fn a_network_comes_in_so_often_a_second_in_all_shards() {
    let limits = plain().accept_rate(Some(5));
    for shards in [1, 3] {
        of(limits.clone(), |server| server).shards(shards).run(|net| {
            for _ in 0..3 {
                let clients: Vec<_> =
                    (0..9).map(|number| net.connect_from([10, 0, 1, number])).collect();
                let others: Vec<_> =
                    (0..3).map(|number| net.connect_from([10, 0, 2, number])).collect();
                assert_eq!((served(net, &clients), served(net, &others)), (5, 3));
                net.wait(Duration::from_secs(2));
            }
            assert_eq!(net.stats().refused, 3 * 4);
        });
    }
}

#[test]
fn one_that_a_limit_refuses_is_told_and_takes_no_place_that_others_need() {
    let limits = plain().max_connections_per_ip(Some(1)).max_connections(Some(8));
    let shape = |server: Server| server.refuse_with("busy\r\n");
    of(limits, shape).faults(Faults::lossless).run(|net| {
        let one = net.connect_from([10, 0, 1, 1]);
        assert!(is_served(net, &one));
        for _ in 0..3 {
            let busy = net.connect_from([10, 0, 1, 1]);
            busy.send("hello\n");
            assert_eq!(busy.receive_to_end(), (b"busy\r\n".to_vec(), Some(Ending::Finished)));
        }
        net.settle();
        // Those that do not close have a place for a while, and never more than three quarters.
        let silent: Vec<_> = (0..20).map(|_| net.connect_from([10, 0, 1, 1])).collect();
        net.settle();
        let told = silent.iter().filter(|client| client.received() == b"busy\r\n").count();
        assert!((1..=6).contains(&told), "{told}");
        assert!(is_served(net, &net.connect_from([10, 0, 1, 2])), "there is a place");
    });
}

#[test]
fn a_connection_ends_at_its_age_with_a_goodbye() {
    const AGE: Duration = Duration::from_secs(100);
    of(plain().max_age(Some(AGE)), |server| server).run(|net| {
        let clients: Vec<_> = (0..20).map(|_| net.connect()).collect();
        clients.iter().for_each(|client| client.set_window(1 << 16));
        assert_eq!(served(net, &clients), 20);
        net.wait(AGE - Duration::from_secs(1));
        assert!(clients.iter().all(|client| client.ending().is_none()), "it is too early");
        let mut seen = Vec::new();
        for second in 0..13 {
            net.wait(Duration::from_secs(1));
            // One does not stop sending, and another is in the midst of a request.
            if clients[0].ending().is_none() {
                clients[0].send("more\n");
            }
            seen.push(clients.iter().filter(|client| client.ending().is_some()).count());
            if second == 1 {
                clients[1].send("half of");
            }
        }
        assert_eq!(seen[12], 20, "{seen:?}");
        assert!(seen[2] < 12 && seen[4] > 2, "not all at once: {seen:?}");
        for (number, client) in clients.iter().enumerate() {
            let received = client.received();
            assert!(received.ends_with(b"bye\n"), "{number}: {received:?}");
            assert_eq!(client.ending(), Some(Ending::Finished));
        }
        assert!(is_served(net, &net.connect()), "they may come again");
    });
}

#[test]
fn one_that_never_falls_silent_and_one_that_waits_end_as_well() {
    let limits = plain().max_age(Some(Duration::from_secs(10))).answer_timeout(None);
    of(limits.drain_timeout(Duration::from_secs(5)), |server| server).run(|net| {
        let (talks, waits) = (net.connect(), net.connect());
        talks.set_window(1 << 16);
        waits.send("defer\n");
        for _ in 0..12_000 {
            if talks.ending().is_some() {
                break;
            }
            talks.send("hello\n");
            net.wait(Duration::from_millis(1));
        }
        assert!(net.now() > Duration::from_secs(10), "{:?}", net.now());
        assert!(net.now() < Duration::from_millis(11_200), "{:?}", net.now());
        assert!(talks.received().ends_with(b"bye\n"));
        assert_eq!(waits.ending(), None, "it is not answered yet");
        net.wait(Duration::from_secs(6));
        assert!(waits.ending().is_some(), "it is cut off");
    });
}

#[test]
fn one_from_which_each_turn_brings_something_is_not_waited_for() {
    let limits = plain().max_age(Some(Duration::from_millis(100))).read_per_turn(16);
    of(limits, |server| server).run(|net| {
        let client = net.connect();
        client.set_window(1 << 20);
        net.wait(Duration::from_millis(99));
        // A turn takes a microsecond, and reads three of them.
        client.send("hello\n".repeat(60_000));
        let (received, _) = client.receive_to_end();
        assert!(net.now() < Duration::from_millis(112), "{:?}", net.now());
        assert!(received.ends_with(b"hello\nbye\n"));
    });
}

#[test]
fn a_drain_may_be_spread_out() {
    const SPREAD: Duration = Duration::from_secs(20);
    let limits = plain().drain_spread(SPREAD).drain_timeout(Duration::from_secs(5));
    for shards in [1, 3] {
        of(limits.clone(), |server| server).shards(shards).run(|net| {
            let clients: Vec<_> = (0..40).map(|_| net.connect()).collect();
            assert_eq!(served(net, &clients), 40);
            net.drain();
            for second in 1..20 {
                net.wait(Duration::from_secs(1));
                let ended = clients.iter().filter(|client| client.ending().is_some()).count();
                let even = 2 * second;
                assert!((even..=even + 6).contains(&(ended + 2)), "{ended} after {second} s");
                // Those that are still there are served.
                if let Some(client) = clients.iter().rev().find(|client| client.ending().is_none())
                {
                    client.send("still\n");
                }
            }
            net.wait(Duration::from_secs(3));
            assert!(net.has_ended());
            assert_eq!(net.cut_off(), 0);
            assert!(clients.iter().all(|client| client.received().ends_with(b"bye\n")));
        });
    }
}

#[test]
fn a_drain_that_is_spread_out_has_a_deadline_behind_that() {
    let limits = plain().answer_timeout(None).drain_spread(Duration::from_secs(20));
    of(limits.drain_timeout(Duration::from_secs(5)), |server| server).run(|net| {
        let client = net.connect();
        client.send("defer\n");
        net.settle();
        net.drain();
        net.wait(Duration::from_secs(24));
        assert!(!net.has_ended());
        net.wait(Duration::from_secs(2));
        assert!(net.has_ended());
        assert_eq!(net.cut_off(), 1);
    });
}

/// Whether a client is served within a second.
fn comes_in(net: &Net, client: &Client) -> bool {
    net.wait(Duration::from_secs(1));
    client.received() == b"hello\n"
}

#[test]
fn listeners_are_suspended_and_changed_while_the_server_runs() {
    for shards in [1, 3] {
        of(plain(), |server| server.also_on("127.0.0.1:2")).shards(shards).run(|net| {
            let says = |client: Client| {
                client.send("hello\n");
                client
            };
            let server = net.server();
            let old = says(net.connect());
            assert!(comes_in(net, &old));
            server.suspend(0).expect("it exists");
            net.settle();
            let late = says(net.connect());
            assert!(!comes_in(net, &late), "it waits");
            assert!(comes_in(net, &says(net.connect_to(1))), "the other listener goes on");
            assert!(is_served(net, &old), "and so does who is there");
            server.resume(0).expect("it exists");
            assert!(comes_in(net, &late));

            server.set_access(0, Access::new().deny(networks("10.0.0.0/8"))).expect("it exists");
            net.settle();
            assert!(!comes_in(net, &says(net.connect_from([10, 0, 0, 1]))));
            assert!(comes_in(net, &says(net.connect_from([11, 0, 0, 1]))));
            server.set_access(0, Access::new()).expect("it exists");
            net.settle();
            assert!(comes_in(net, &says(net.connect_from([10, 0, 0, 1]))));
            let error = server.suspend(2);
            assert!(matches!(error, Err(Error::NoListener { listener: 2, listeners: 2 })));
        });
    }
}

#[test]
fn a_server_that_prepares_for_its_end_is_not_ready_and_serves() {
    of(plain(), |server| server).shards(2).run(|net| {
        let server = net.server();
        assert!(server.is_ready());
        server.prepare();
        assert!(!server.is_ready());
        let clients: Vec<_> = (0..9).map(|_| net.connect()).collect();
        assert_eq!(served(net, &clients), 9);
        assert!(!net.has_ended());
        net.drain();
        assert!(!server.is_ready());
        net.settle();
        assert!(net.has_ended());
    });
}

#[test]
fn whatever_goes_wrong_on_the_network_nobody_is_forgotten() {
    let limits = plain()
        .max_age(Some(Duration::from_secs(3)))
        .max_connections_per_net(Some(3))
        .accept_rate(Some(4))
        .drain_spread(Duration::from_secs(2));
    let run = || {
        let server = made(limits.clone(), |server| server.refuse_with("busy\n"));
        Simulation::new(server).shards(2).seeds(0..60).faults(Faults::swarm).run(|net| {
            let rng = net.rng();
            for _ in 0..30 {
                let number = u8::try_from(rng.between(0, 5)).expect("it is small");
                let client = net.connect_from([10, 0, number, 1]);
                client.send("hello\nhel");
                if rng.chance(300) {
                    client.half_close();
                }
                net.wait(Duration::from_millis(rng.below(500)));
                let received = client.received();
                let all: [&[u8]; 2] = [b"hello\nbye\n", b"busy\n"];
                assert!(all.iter().any(|all| all.starts_with(&received)), "{received:?}");
            }
        })
    };
    assert_eq!(run(), run());
}
