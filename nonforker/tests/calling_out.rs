//! The examples that connect to other servers: on the simulated network, and before a real Redis.

#![expect(unreachable_pub, reason = "the examples are programs of their own")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]
#![expect(clippy::disallowed_methods, reason = "a client in a test may wait")]

#[path = "../examples/tcp_proxy.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod tcp_proxy;
#[path = "../examples/upstream_pool.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod upstream_pool;

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nonforker::{
    Address, DriverKind, Server,
    sim::{Ending, Faults, Simulation},
};

const FROM: &str = "127.0.0.1:1685";
const TO: &str = "10.0.0.9:6379";

#[test]
fn a_proxy_passes_on_bytes_and_ends() {
    Simulation::new(|| tcp_proxy::server(FROM, TO)).seeds(0..200).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect();
        client.send("PING\r\n");
        client.half_close();
        let server = listener.accept();
        assert_eq!(server.receive_to_end(), (b"PING\r\n".to_vec(), Some(Ending::Finished)));
        server.send("+PONG\r\n");
        server.half_close();
        client.expect("+PONG\r\n");
        client.expect_end();
    });
}

#[test]
fn a_pool_answers_each_client_in_order() {
    Simulation::new(|| upstream_pool::server(FROM, TO)).seeds(0..200).run(|net| {
        let listener = net.listen(TO);
        let pool: Vec<_> = (0..4).map(|_| listener.accept()).collect();
        net.wait(Duration::from_secs(1));
        let clients: Vec<_> = (0..10).map(|_| net.connect()).collect();
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                client.send(format!("ECHO {number}.{round}\n"));
            }
            net.wait(Duration::from_secs(2));
            for server in &pool {
                // It answers with what it was asked.
                let asked = server.received();
                server.send(asked);
            }
            for (number, client) in clients.iter().enumerate() {
                client.expect(format!("ECHO {number}.{round}\n"));
            }
        }
    });
}

#[test]
fn a_pool_comes_back_and_loses_no_client() {
    Simulation::new(|| upstream_pool::server(FROM, TO)).seeds(0..100).run(|net| {
        let listener = net.listen(TO);
        let pool: Vec<_> = (0..4).map(|_| listener.accept()).collect();
        net.wait(Duration::from_secs(1));
        let client = net.connect();
        client.send("GET x\n");
        net.wait(Duration::from_secs(1));
        pool.iter().for_each(|server| server.reset());
        client.expect("-ERR it broke\n");
        let pool: Vec<_> = (0..4).map(|_| listener.accept()).collect();
        net.wait(Duration::from_secs(1));
        client.send("GET x\n");
        net.wait(Duration::from_secs(1));
        for server in &pool {
            let asked = server.received();
            server.send(asked);
        }
        client.expect("GET x\n");
    });
}

#[test]
fn a_pool_survives_every_fault() {
    let simulation = Simulation::new(|| upstream_pool::server(FROM, TO));
    simulation.seeds(0..300).faults(Faults::swarm).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect();
        client.send("one\ntwo\nthree\n");
        for _ in 0..20 {
            net.wait(Duration::from_millis(500));
            while let Some(server) = listener.accepted() {
                server.send("+OK\r\n");
            }
        }
        client.half_close();
        let (said, _) = client.receive_to_end();
        let lines = said.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for line in lines {
            assert!(
                b"+OK".starts_with(line)
                    || b"-ERR no connection".starts_with(line)
                    || b"-ERR it broke".starts_with(line)
            );
        }
    });
}

/// A Redis server at a port of its own, until it is dropped.
struct Redis(Child, String);

impl Redis {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let port = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("skipped: there is no redis-server");
            return None;
        };
        let redis = Self(child, format!("127.0.0.1:{port}"));
        let began = Instant::now();
        while TcpStream::connect(&redis.1).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "redis-server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `test` before a server on each driver that this system has.
fn before(server: fn(&str, &str) -> Server, test: impl Fn(&Address)) {
    let Some(redis) = Redis::start() else { return };
    for driver in [DriverKind::Poll, DriverKind::Uring] {
        let to = redis.1.clone();
        let running = Server::spawn(move || server("127.0.0.1:0", &to).driver(driver));
        let Ok(running) = running else {
            eprintln!("skipped: no {driver:?}");
            continue;
        };
        test(&running.addresses()[0]);
        running.drain_and_wait().expect("nobody is cut off");
    }
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
    client.get_mut().write_all(line.as_bytes()).expect("it takes it");
    let mut answer = String::new();
    client.read_line(&mut answer).expect("it answers");
    answer.trim_end().to_owned()
}

fn connect(address: &Address) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address.to_string()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it can wait");
    BufReader::new(stream)
}

#[test]
fn a_proxy_stands_before_redis() {
    before(tcp_proxy::server, |address| {
        let mut client = connect(address);
        assert_eq!(ask(&mut client, "PING\r\n"), "+PONG");
        assert_eq!(ask(&mut client, "DEL proxied\r\n").as_bytes()[0], b':');
        assert_eq!(ask(&mut client, "INCR proxied\r\n"), ":1");
    });
}

#[test]
fn many_clients_share_four_connections_to_redis() {
    before(upstream_pool::server, |address| {
        let mut clients: Vec<_> = (0..50).map(|_| connect(address)).collect();
        let began = Instant::now();
        while ask(&mut clients[0], "DEL pooled\n").starts_with('-') {
            assert!(began.elapsed() < Duration::from_secs(20), "the pool does not come about");
            thread::sleep(Duration::from_millis(20));
        }
        for round in 1..=20 {
            for (number, client) in clients.iter_mut().enumerate() {
                let expected = (round - 1) * 50 + number + 1;
                assert_eq!(ask(client, "INCR pooled\n"), format!(":{expected}"));
            }
        }
    });
}
