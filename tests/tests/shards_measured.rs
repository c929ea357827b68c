//! What shards cost and how well they spread clients: numbers, for people.
//!
//! `cargo test --release -p nonforker-tests --test shards_measured -- --ignored --nocapture`

#![expect(clippy::disallowed_methods, reason = "this is a measurement")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use nonforker::{
    Address, Conn, DriverKind, Handler, Limits, Outcome, Running, Server, Shards, codec::Lines,
};
use socket2::{Domain, Socket, Type};

const DRIVERS: [DriverKind; 2] = [DriverKind::Poll, DriverKind::Uring];

struct Echo;

impl Handler for Echo {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }
}

fn start(driver: DriverKind, shards: usize) -> (Running, SocketAddr) {
    let make = move || {
        let limits = Limits::new().unused_timeout(None).backlog(4096);
        Server::new().driver(driver).limits(limits).serve_with("127.0.0.1:0", Lines::new(), Echo)
    };
    let running = Shards::new(shards, make).bind().expect("a free port");
    let Address::Tcp(address) = running.addresses()[0] else { unreachable!() };
    (running, address)
}

/// How often the threads of shards have gone to sleep.
fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("this is Linux");
    let of_shards = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        value("Name:")?.contains("nonforker-").then_some(())?;
        value("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok()
    });
    of_shards.sum()
}

/// Processor time of this process so far.
fn processor_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is known");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

#[test]
#[ignore = "a measurement"]
fn balance_and_wakeups() {
    nonforker::raise_descriptor_limit().expect("it can be raised");
    for driver in DRIVERS {
        for shards in [2, 4, 8] {
            let (running, address) = start(driver, shards);
            let slept = sleeps();
            let mut clients = Vec::new();
            for number in 0..8000 {
                clients.push(TcpStream::connect(address).expect("it listens"));
                // So that shards sleep in between; and bursts, too.
                if number % 3 == 0 {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            while running.handle().stats().accepted < 8000 {
                thread::sleep(Duration::from_millis(5));
            }
            let woken = sleeps() - slept;
            let of_each = (0..).map_while(|shard| running.handle().shard_stats(shard));
            let most = of_each.map(|stats| stats.accepted).max().unwrap_or(0);
            let balance = most as f64 * shards as f64 / 8000.0;
            let wakeups = woken as f64 / 8000.0;
            println!(
                "{driver:?}, {shards} shards: max / mean {balance:.3}, wake-ups per accept {wakeups:.2}"
            );
            assert!(balance <= 1.1, "{balance}");
            drop(clients);
            running.drain_and_wait().expect("it ends in order");
        }
    }
}

/// Connections per second that two threads can make.
fn connect_rate(addresses: &[SocketAddr]) -> f64 {
    let (count, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ends.load(Relaxed) {
                    let mut client = TcpStream::connect(addresses[0]).expect("it listens");
                    client.write_all(b"x\n").expect("it takes that");
                    client.read_exact(&mut [0; 2]).expect("it answers");
                    let _ = Socket::from(client).set_linger(Some(Duration::ZERO));
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_millis(700));
        ends.store(true, Relaxed);
    });
    count.load(Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn reuse_port(driver: DriverKind, count: usize) -> (Vec<Running>, SocketAddr) {
    let open = |address: SocketAddr| -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("an option");
        socket.bind(&address.into()).expect("a port");
        socket.listen(4096).expect("it listens");
        socket.into()
    };
    let first = open(([127, 0, 0, 1], 0).into());
    let address = first.local_addr().expect("it is bound");
    let rest = (1..count).map(|_| open(address));
    let listeners: Vec<_> = std::iter::once(first).chain(rest).collect();
    let spawn = |listener: TcpListener| {
        let make = move || Server::new().driver(driver).serve_on(listener, Lines::new(), Echo);
        Server::spawn(make).expect("it listens")
    };
    (listeners.into_iter().map(spawn).collect(), address)
}

#[test]
#[ignore = "a measurement"]
fn accept_rate_against_reuse_port() {
    for driver in DRIVERS {
        for shards in [2, 8] {
            let (ours, address) = start(driver, shards);
            let (theirs, other) = reuse_port(driver, shards);
            let mut ratios: Vec<f64> =
                (0..5).map(|_| connect_rate(&[address]) / connect_rate(&[other])).collect();
            ratios.sort_by(f64::total_cmp);
            println!("{driver:?}, {shards} shards: accept rate {:.2} of SO_REUSEPORT's", ratios[2]);
            drop((ours, theirs));
        }
    }
}

/// Processor time per message, in microseconds, of the server and its clients.
fn cost(address: SocketAddr, clients: usize, pipelined: usize) -> f64 {
    let line = [&[b'x'; 63][..], b"\n"].concat().repeat(pipelined);
    let messages = AtomicU64::new(0);
    let before = processor_time();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let connect = |_| TcpStream::connect(address).expect("it listens");
                let mut clients: Vec<_> = (0..clients / 2).map(connect).collect();
                let (until, mut reply) =
                    (Instant::now() + Duration::from_millis(500), line.clone());
                while Instant::now() < until {
                    for client in &mut clients {
                        client.write_all(&line).expect("it takes that");
                    }
                    for client in &mut clients {
                        client.read_exact(&mut reply).expect("it answers");
                    }
                    messages.fetch_add((clients.len() * pipelined) as u64, Relaxed);
                }
            });
        }
    });
    (processor_time() - before) * 1e6 / messages.load(Relaxed) as f64
}

#[test]
#[ignore = "a measurement"]
fn processor_time_of_two_shards_and_of_one() {
    for driver in DRIVERS {
        for (clients, pipelined) in [(64, 1), (64, 16)] {
            let ((one, at_one), (two, at_two)) = (start(driver, 1), start(driver, 2));
            let round = |_| cost(at_two, clients, pipelined) / cost(at_one, clients, pipelined);
            let mut ratios: Vec<f64> = (0..7).map(round).collect();
            ratios.sort_by(f64::total_cmp);
            println!(
                "{driver:?}, {clients}x{pipelined}x64: processor time {:.3} of one shard's",
                ratios[3]
            );
            drop((one, two));
        }
    }
}
