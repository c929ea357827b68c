//! Connections that the server makes, and relays between them and its clients.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nonforker::{Limits, ProxyHeader, Relay, Server};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    client::Client,
    harness::{ANY, PATIENCE, Running, on_every_driver, wait_until},
};

/// A server for the one under test to connect to, and its target.
pub(crate) fn upstream() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).expect("a port");
    socket.listen(128).expect("it can listen");
    socket.set_read_timeout(Some(PATIENCE)).expect("it need not wait for ever");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("it is TCP");
    (socket, address.to_string())
}

/// A client and the other end of its connection to the target.
fn joined(server: &Running, listener: &Socket) -> (Client, Client) {
    let client = server.connect();
    (client, Client::accepted(listener))
}

/// A server behind a Unix socket with a short backlog, and the socket's path.
fn unix_upstream(name: &str) -> (Socket, PathBuf) {
    let path = std::env::temp_dir().join(format!("nonforker-{name}-{}", std::process::id()));
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener.bind(&SockAddr::unix(&path).expect("a short path")).expect("the path is free");
    listener.listen(1).expect("it can listen");
    (listener, path)
}

fn to(target: &str) -> impl FnOnce(Server) -> Server + Send + 'static {
    let target = target.to_owned();
    move |server| server.relay(ANY, target)
}

#[test]
fn bytes_and_ends_go_both_ways() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let server = case.start(to(&target));
        let (mut client, mut behind) = joined(&server, &listener);
        for round in 0..50 {
            let (up, down) = (format!("up {round}"), format!("down {round}"));
            client.send(&up);
            assert_eq!(behind.exactly(up.len()), up.as_bytes());
            behind.send(&down);
            assert_eq!(client.exactly(down.len()), down.as_bytes());
        }
        client.half_close();
        assert_eq!(behind.rest(), b"");
        behind.send("the last");
        assert_eq!(client.exactly(8), b"the last");
        drop(behind);
        assert_eq!(client.rest(), b"");
        server.holds(0);
    });
}

#[test]
fn a_target_may_be_a_name_or_a_unix_socket() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let port = target.rsplit_once(':').expect("it has a port").1;
        let server = case.start(to(&format!("localhost:{port}")));
        let (client, mut behind) = joined(&server, &listener);
        client.send("by name");
        assert_eq!(behind.exactly(7), b"by name");
        drop((client, behind));
        drop(server);

        let (listener, path) = unix_upstream("behind");
        let server = case.start(to(&format!("unix:{}", path.display())));
        // More than its backlog holds: they wait for a place.
        let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        for client in &clients {
            client.send("x");
        }
        for _ in 0..20 {
            assert_eq!(Client::accepted(&listener).exactly(1), b"x");
        }
        drop(clients);
        std::fs::remove_file(path).expect("it is there");
    });
}

#[test]
fn megabytes_go_both_ways_at_once_and_none_is_lost() {
    on_every_driver(|case| {
        const COUNT: usize = 8 << 20;
        let (listener, target) = upstream();
        let server = case.start(to(&target));
        let (client, behind) = joined(&server, &listener);
        let pattern = |seed: usize| -> Vec<u8> {
            (0..COUNT).map(|at| ((at / 3).wrapping_mul(seed) >> 5).to_le_bytes()[0]).collect()
        };
        let ends = [(client, 7, 11), (behind, 11, 7)];
        let threads = ends.map(|(mut end, own, other)| {
            thread::spawn(move || {
                let twin = end.twin();
                let sender = thread::spawn(move || {
                    twin.send(pattern(own));
                    twin.half_close();
                });
                let got = end.rest();
                assert!(got == pattern(other), "{} of {COUNT} bytes", got.len());
                sender.join().expect("everything is taken");
            })
        });
        for thread in threads {
            thread.join().expect("everything arrives");
        }
        server.holds(0);
        assert_eq!(server.stats().sent_bytes, 2 * COUNT as u64);
    });
}

#[test]
fn a_reset_is_passed_on_as_one() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let server = case.start(to(&target));
        for by_client in [true, false] {
            let (mut client, mut behind) = joined(&server, &listener);
            client.send("x");
            assert_eq!(behind.exactly(1), b"x");
            if by_client {
                client.reset();
                behind.is_reset();
            } else {
                behind.reset();
                client.is_reset();
            }
            server.holds(0);
        }
    });
}

/// A server that has answered leaves, and has not read all that it was sent: its reply is taken whole.
#[test]
fn what_a_unix_socket_leaves_unread_costs_no_reply() {
    on_every_driver(|case| {
        let (listener, path) = unix_upstream("unread");
        let server = case.start(to(&format!("unix:{}", path.display())));
        let mut asked = 0;
        for reply in [1, 100, 100_000] {
            let mut client = server.connect();
            client.send("x".repeat(1000));
            let behind = Client::accepted(&listener);
            asked += 1000;
            wait_until("the request is there", || server.stats().sent_bytes >= asked);
            behind.send(vec![b'y'; reply]);
            asked += reply as u64;
            drop(behind);
            assert_eq!(client.rest().len(), reply);
            drop(client);
            server.holds(0);
        }
        std::fs::remove_file(path).expect("it is there");
    });
}

#[test]
fn who_does_not_read_takes_little_memory_and_holds_up_one_direction() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let server = case.start(to(&target));
        let (mut client, behind) = joined(&server, &listener);
        let twin = client.twin();
        let sender = thread::spawn(move || {
            let sent = twin.stuff(&vec![b'x'; 64 << 20]);
            assert!(sent < 32 << 20, "{sent} bytes were taken for a peer that reads none");
        });
        sender.join().expect("it does not wait");
        let held = server.stats().buffered_bytes;
        assert!(held < 512 << 10, "{held} bytes are held");
        behind.send("meanwhile");
        assert_eq!(client.exactly(9), b"meanwhile");
        client.reset();
        server.holds(0);
    });
}

#[test]
fn a_target_that_refuses_ends_the_client_and_is_logged_once_a_second() {
    on_every_driver(|case| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&SockAddr::from(free)).expect("a port");
        let nobody = socket.local_addr().expect("it is bound").as_socket().expect("it is TCP");
        let server = case.start(to(&nobody.to_string()));
        let began = Instant::now();
        for _ in 0..20 {
            let mut client = server.connect();
            client.send("hello");
            assert_eq!(client.rest(), b"");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        server.holds(0);
        let said = server.log.about("cannot connect").join("; ");
        let lines = said.matches("cannot connect").count();
        assert!((1..=6).contains(&lines), "{lines} lines: {said}");
        assert!(said.contains(&nobody.to_string()), "{said}");
    });
}

#[test]
fn a_client_that_leaves_while_we_connect_is_forgotten_and_a_silent_target_is_given_up() {
    on_every_driver(|case| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&SockAddr::from(free)).expect("a port");
        socket.listen(0).expect("it can listen");
        let address = socket.local_addr().expect("it is bound");
        // They fill the backlog: who comes later has no answer.
        let before: Vec<_> = (0..4)
            .map(|_| {
                let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                other.set_nonblocking(true).expect("it need not wait");
                let _ = other.connect(&address);
                other
            })
            .collect();
        let target = address.as_socket().expect("it is TCP").to_string();
        let server = case.start(move |server| {
            let limits = Limits::new().connect_timeout(Duration::from_millis(700));
            server.limits(limits).relay(ANY, target)
        });
        let client = server.connect();
        client.send("hello");
        wait_until("it connects", || server.stats().outgoing == 1);
        client.reset();
        server.holds(0);
        let mut client = server.connect();
        let began = Instant::now();
        assert_eq!(client.rest(), b"");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(600), "{took:?}");
        drop(before);
    });
}

#[test]
fn a_drain_passes_on_what_was_sent_and_the_answer() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let server = case.start(to(&target));
        let (mut client, mut behind) = joined(&server, &listener);
        client.send("question");
        server.has_received(8);
        server.handle().drain();
        assert_eq!(behind.rest(), b"question");
        behind.send("answer");
        drop(behind);
        assert_eq!(client.rest(), b"answer");
        drop(client);
        server.ends();
    });
}

#[test]
fn the_target_hears_who_the_client_is() {
    on_every_driver(|case| {
        let (listener, target) = upstream();
        let server = case.start(move |server| {
            let relay = Relay::to(target).expect("it is a target");
            server.relay(ANY, relay.send_proxy(ProxyHeader::V1)).also_on(ANY)
        });
        for at in server.addresses() {
            let client = Client::connect(at);
            client.send("hello\n");
            let mut behind = Client::accepted(&listener);
            let from = client.socket.local_addr().expect("it is connected").as_socket();
            let from = from.expect("it is TCP").port();
            let at = at.to_string();
            let (_, at) = at.rsplit_once(':').expect("it is TCP");
            assert_eq!(behind.line(), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {at}\r"));
            assert_eq!(behind.line(), "hello");
        }
    });
}
