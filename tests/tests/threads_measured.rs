//! What it costs that other threads speak to a server: numbers, for people.
//!
//! `cargo test --release -p nonforker-tests --test threads_measured -- --ignored --nocapture`

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "this is a measurement")]

mod pinging;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use nonforker::{
    Address, Conn, Connections, DriverKind, Handler, Outcome, PostError, Remote, Running, Server,
    codec::Lines,
};

const DRIVERS: [DriverKind; 2] = [DriverKind::Poll, DriverKind::Uring];

/// `sleep` is answered after 200 ms in which a thread has slept, everything else at once.
struct Desk;

impl Handler for Desk {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if line == b"sleep" {
            let sleep = || thread::sleep(Duration::from_millis(200));
            conn.offload(sleep, |_, conn, ()| conn.send("slept"));
        } else {
            conn.send(line);
        }
        Ok(())
    }
}

fn start(driver: DriverKind) -> (Running, SocketAddr) {
    let make = move || {
        let server = Server::new().driver(driver).offload_threads(64);
        server.serve_with("127.0.0.1:0", Lines::new(), Desk)
    };
    let running = Server::spawn(make).expect("a free port");
    let Address::Tcp(address) = running.addresses()[0] else { unreachable!() };
    (running, address)
}

/// Processor time of this process so far, in microseconds.
fn processor_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is known");
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    micros(usage.user_time()) + micros(usage.system_time())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The 99th percentile of 1,500 pings, in microseconds.
fn ping(address: SocketAddr) -> f64 {
    pinging::p99(address, 1, 1500, Duration::from_micros(500))
}

#[test]
#[ignore = "a measurement"]
fn a_ping_beside_64_clients_that_ask_for_what_blocks() {
    for driver in DRIVERS {
        let (running, address) = start(driver);
        let round = || {
            let alone = ping(address);
            let ends = AtomicBool::new(false);
            let beside = thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        let mut client = TcpStream::connect(address).expect("it listens");
                        while !ends.load(Relaxed) {
                            client.write_all(b"sleep\n").expect("it takes that");
                            client.read_exact(&mut [0; 6]).expect("it answers");
                        }
                    });
                }
                thread::sleep(Duration::from_millis(100));
                let beside = ping(address);
                ends.store(true, Relaxed);
                beside
            });
            println!("{driver:?}: p99 {alone:.0} µs alone, {beside:.0} µs beside them");
            beside / alone
        };
        let ratio = median((0..5).map(|_| round()).collect());
        println!("{driver:?}: beside them the p99 is {ratio:.2} of that alone");
        drop(running);
    }
}

const POSTS: u64 = 500_000;
const THREADS: u64 = 4;

/// Processor time of a post in microseconds, if four threads make a million a second.
fn cost_of_posts(post: impl Fn() + Sync, done: impl Fn() -> u64) -> f64 {
    let (before, had, begun) = (processor_time(), done(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for number in 0..POSTS / THREADS {
                    if number % 250 == 0 {
                        let due = Duration::from_micros(number * THREADS);
                        thread::sleep(due.saturating_sub(begun.elapsed()));
                    }
                    post();
                }
            });
        }
    });
    while done() - had < POSTS {
        thread::sleep(Duration::from_millis(1));
    }
    (processor_time() - before) / POSTS as f64
}

type Job = Box<dyn FnOnce(&mut u64) + Send>;

/// A channel and an eventfd, as one would write it by hand: the loop is woken once for many.
struct ByHand {
    jobs: mpsc::SyncSender<Job>,
    event: Arc<rustix::fd::OwnedFd>,
    asleep: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl ByHand {
    fn start() -> Self {
        let (jobs, come) = mpsc::sync_channel::<Job>(10_000);
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        let event = Arc::new(event.expect("a descriptor"));
        let (asleep, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let hand = Self { jobs, event, asleep, done };
        let (event, asleep, done) = (hand.event.clone(), hand.asleep.clone(), hand.done.clone());
        thread::spawn(move || {
            let mut state = 0;
            loop {
                while let Ok(job) = come.try_recv() {
                    job(&mut state);
                }
                done.store(state, Relaxed);
                asleep.store(true, SeqCst);
                match come.try_recv() {
                    Ok(job) => {
                        asleep.store(false, SeqCst);
                        job(&mut state);
                    }
                    Err(mpsc::TryRecvError::Empty) => {
                        rustix::io::read(&*event, &mut [0; 8]).expect("it is an eventfd");
                    }
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
        });
        hand
    }

    fn post(&self) {
        self.jobs.send(Box::new(|state| *state += 1)).expect("it is there");
        if self.asleep.swap(false, SeqCst) {
            rustix::io::write(&*self.event, &1_u64.to_ne_bytes()).expect("it is an eventfd");
        }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let (jobs, _) = mpsc::sync_channel(1);
        self.jobs = jobs;
        rustix::io::write(&*self.event, &1_u64.to_ne_bytes()).expect("it is an eventfd");
    }
}

fn post(remote: &Remote<Desk>, done: &Arc<AtomicU64>) {
    let done = Arc::clone(done);
    // Only the loop counts.
    let mut job = move |_: &mut Desk, _: &mut Connections<'_, Desk>| {
        done.store(done.load(Relaxed) + 1, Relaxed);
    };
    while let Err((back, error)) = remote.try_post(job) {
        assert_eq!(error, PostError::Full);
        job = back;
        thread::yield_now();
    }
}

#[test]
#[ignore = "a measurement"]
fn posts_beside_a_channel_and_an_eventfd() {
    for driver in DRIVERS {
        let (running, _) = start(driver);
        let remote = running.remote::<Desk>().expect("it is served");
        let (by_hand, done) = (ByHand::start(), Arc::new(AtomicU64::new(0)));
        let round = || {
            let ours = cost_of_posts(|| post(&remote, &done), || done.load(Relaxed));
            let theirs = cost_of_posts(|| by_hand.post(), || by_hand.done.load(Relaxed));
            println!("{driver:?}: a post costs {ours:.3} µs, by hand {theirs:.3} µs");
            ours / theirs
        };
        let ratio = median((0..5).map(|_| round()).collect());
        println!("{driver:?}: a post costs {ratio:.2} of one by hand");
        drop(running);
    }
}
