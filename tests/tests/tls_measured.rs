//! What handshakes do to those who want none: numbers, for people. It needs two cores.
//!
//! `cargo test --release -p nonforker-tests --test tls_measured -- --ignored --nocapture`

#![cfg(all(target_os = "linux", feature = "_rustls"))]
#![expect(clippy::disallowed_methods, reason = "this is a measurement")]

#[path = "../../nonforker/tests/own_certificate/mod.rs"]
mod own_certificate;
mod pinging;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nonforker::{Address, DriverKind, Running, Server, Tls, codec::Lines};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::{ClientConfig, ClientConnection, client::Resumption, pki_types::ServerName};

/// Who speaks in clear, by turns.
const CLIENTS: usize = 64;

/// Handshakes a second, and the threads that make them.
const HANDSHAKES: f64 = 2000.0;
const THREADS: u32 = 8;

fn run_on_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("there are two cores");
}

struct Certificate {
    folder: PathBuf,
    config: Arc<ClientConfig>,
}

impl Certificate {
    fn make() -> Self {
        let folder =
            std::env::temp_dir().join(format!("nonforker-measured-{}", std::process::id()));
        let mut config = own_certificate::make(&folder);
        // Full handshakes only.
        config.resumption = Resumption::disabled();
        Self { folder, config: Arc::new(config) }
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server on the first core: where it speaks in clear, and where it encrypts.
fn start(driver: DriverKind, files: &Certificate) -> (Running, SocketAddr, SocketAddr) {
    let (certificate, key) = (files.folder.join("cert.pem"), files.folder.join("key.pem"));
    let make = move || {
        run_on_core(0);
        let tls = Tls::from_files(&certificate, &key).expect("a certificate");
        Server::new()
            .driver(driver)
            .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
            .serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
            .tls(tls)
    };
    let running = Server::spawn(make).expect("a free port");
    let [Address::Tcp(plain), Address::Tcp(encrypted)] = *running.addresses() else {
        unreachable!()
    };
    (running, plain, encrypted)
}

/// A handshake, a line, an end.
fn shake_hands(address: SocketAddr, config: &Arc<ClientConfig>) {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).expect("good");
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_nodelay(true).expect("an option");
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(b"hello\n").expect("it takes that");
    stream.read_exact(&mut [0; 6]).expect("it answers");
}

/// Makes handshakes at their rate, on the second core, whenever nobody else wants it.
fn keep_shaking(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    made: &AtomicU64,
    ends: &AtomicBool,
) {
    run_on_core(1);
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19).expect("allowed");
    let (begun, pause) = (Instant::now(), f64::from(THREADS) / HANDSHAKES);
    let mut own = 0.0;
    while !ends.load(Relaxed) {
        shake_hands(address, config);
        made.fetch_add(1, Relaxed);
        own += 1.0;
        thread::sleep(Duration::from_secs_f64(own * pause).saturating_sub(begun.elapsed()));
    }
}

/// The 99th percentile of 20,000 round trips, one every 100 µs, in microseconds.
fn ping(address: SocketAddr) -> f64 {
    pinging::p99(address, CLIENTS, 20_000, Duration::from_micros(100))
}

#[test]
#[ignore = "a measurement"]
fn clients_in_clear_beside_two_thousand_handshakes_a_second() {
    let certificate = Certificate::make();
    for driver in [DriverKind::Poll, DriverKind::Uring] {
        let (running, plain, encrypted) = start(driver, &certificate);
        run_on_core(1);
        let round = || {
            let alone = ping(plain);
            let (ends, made) = (AtomicBool::new(false), AtomicU64::new(0));
            let (beside, rate) = thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| keep_shaking(encrypted, &certificate.config, &made, &ends));
                }
                thread::sleep(Duration::from_millis(200));
                let (before, begun) = (made.load(Relaxed), Instant::now());
                let beside = ping(plain);
                let more = (made.load(Relaxed) - before) as f64;
                ends.store(true, Relaxed);
                (beside, more / begun.elapsed().as_secs_f64())
            });
            println!(
                "{driver:?}: p99 {alone:.0} µs alone, {beside:.0} µs beside {rate:.0} handshakes/s"
            );
            beside / alone
        };
        let mut ratios: Vec<f64> = (0..5).map(|_| round()).collect();
        ratios.sort_by(f64::total_cmp);
        println!("{driver:?}: beside them the p99 is {:.2} of that alone", ratios[2]);
        drop(running);
    }
}
