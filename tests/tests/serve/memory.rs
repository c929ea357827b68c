//! The budget for all buffers: who holds little is served, then nobody is let in, then the fattest
//! goes.

use std::{
    io::ErrorKind,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use nonforker::{DriverKind, Limits, Server, codec::Lines};

use crate::{
    client::{Client, hear},
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    probe::Probe,
};

const BUDGET: u64 = 4 << 20;

fn start(case: &Case) -> (Running, Receiver<String>) {
    start_with(case, Limits::new())
}

fn start_with(case: &Case, limits: Limits) -> (Running, Receiver<String>) {
    let (probe, told) = Probe::new();
    let limits = limits.memory_budget(usize::try_from(BUDGET).ok());
    let limits = limits.frame_timeout(Some(Duration::from_secs(1)));
    let build = move |server: Server| {
        server.limits(limits).serve_with(ANY, Lines::with_max(1 << 20), probe)
    };
    (case.start(build), told)
}

/// A client that holds about so many bytes of output.
fn holder(server: &Running, bytes: u64) -> Client {
    let client = Client::connect_with(server.address(), |socket| socket.set_recv_buffer_size(4096));
    // What the kernel takes comes on top.
    let before = server.stats().buffered_bytes;
    client.send(format!("big {bytes}\n"));
    wait_until("the reply is queued", || server.stats().buffered_bytes >= before + bytes / 2);
    client
}

#[test]
fn when_memory_is_scarce_a_client_that_holds_little_is_served_and_it_recovers_by_itself() {
    on_every_driver(|case| {
        // With backpressure and without, which ends scarcity in different ways.
        for high in [64 * 1024, 64 * 1024 * 1024] {
            scarce_for_a_while(case, high);
        }
    });
}

fn scarce_for_a_while(case: &Case, high: usize) {
    let (server, _told) = start_with(case, Limits::new().high_watermark(high));
    let mut client = server.connect();
    assert_eq!(client.ask("before"), "before");
    let mut fat = holder(&server, BUDGET * 85 / 100);
    server.settles();
    let held = server.stats().buffered_bytes;
    assert!((BUDGET * 80 / 100..BUDGET * 90 / 100).contains(&held), "held {held}");

    assert_eq!(client.ask("one"), "one");
    assert_eq!(server.connect().ask("two"), "two");
    // It is in nobody's way, so it stays.
    std::thread::sleep(Duration::from_millis(2200));
    server.is_idle();
    assert_eq!(server.log.about("for buffers: who holds more").len(), 1, "it is said once");

    assert_eq!(fat.line().len() as u64, BUDGET * 85 / 100);
    wait_until("it is said that memory is ample", || {
        server.log.about("for buffers: it is ample again").len() == 1
    });
}

#[test]
fn when_memory_is_scarce_a_client_that_holds_more_than_its_share_waits_a_second_at_most() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        let mut thin = server.connect();
        assert_eq!(thin.ask("before"), "before");
        let fat: Vec<_> = (0..10).map(|_| holder(&server, BUDGET * 82 / 1000)).collect();
        server.settles();
        let (began, before) = (Instant::now(), server.stats().received_bytes);
        let mut large = server.connect();
        let writer = large.twin();
        let line = [vec![b'y'; 900_000], b"\n".to_vec()].concat();
        let sent = line.clone();
        let writes = std::thread::spawn(move || writer.send(sent));
        std::thread::sleep(Duration::from_millis(200));
        let received = server.stats().received_bytes - before;
        assert_eq!(thin.ask("meanwhile"), "meanwhile");
        // It may have waited long enough, on a machine that has other work.
        if began.elapsed() < Duration::from_millis(600) {
            assert!((50_000..700_000).contains(&received), "{received} bytes were read");
        }
        let received = large.line_bytes();
        assert!(received == line, "{} bytes of {}", received.len(), line.len());
        writes.join().expect("it could send all");
        assert!(server.stats().closed > 0, "those who do not read made room");
        drop(fat);
    });
}

#[test]
fn when_memory_is_scarcer_no_connection_is_accepted_until_clients_without_progress_have_gone() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut fat = holder(&server, BUDGET * 95 / 100);
        let began = Instant::now();
        let mut late = server.connect();
        late.send("let me in\n");
        late.hears_nothing_for(Duration::from_millis(150));
        if began.elapsed() < Duration::from_millis(600) {
            assert_eq!(server.stats().accepted, 1);
        }
        assert_eq!(late.line(), "let me in");
        hear(&told, "closed 0: evicted: it held the most memory");
        fat.is_reset();
        let said = server.log.about("for buffers: who comes has to wait");
        assert_eq!(said.len(), 1, "{said:?}");
    });
}

/// Asks for much and reads nothing.
fn hog(server: &Running) -> Client {
    let hog = Client::connect_with(server.address(), |socket| socket.set_recv_buffer_size(4096));
    hog.send("big 30000\n".repeat(100));
    hog
}

#[test]
fn a_dozen_clients_that_never_read_and_come_again_keep_nobody_waiting() {
    const SMALL: usize = 1 << 20;
    on_every_driver(|case| {
        let (probe, _told) = Probe::new();
        let server = case.start(|server| {
            let limits = Limits::new().memory_budget(Some(SMALL));
            server.limits(limits).serve_with(ANY, Lines::new(), probe)
        });
        let mut good = server.connect();
        let mut hogs: Vec<_> = (0..12).map(|_| hog(&server)).collect();
        let (began, mut slowest, mut slowest_new, mut most) =
            (Instant::now(), Duration::ZERO, Duration::ZERO, 0);
        let time = |client: &mut Client| {
            let began = Instant::now();
            assert_eq!(client.ask("hello"), "hello");
            began.elapsed()
        };
        for round in 1.. {
            slowest = slowest.max(time(&mut good));
            most = most.max(server.stats().buffered_bytes);
            if round % 20 == 0 {
                slowest_new = slowest_new.max(time(&mut server.connect()));
            }
            for gone in hogs.iter_mut().filter(|hog| hog.try_send(b"\n").is_err()) {
                *gone = hog(&server);
            }
            if began.elapsed() > Duration::from_secs(4) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(slowest < Duration::from_secs(1), "who was there waited {slowest:?}");
        assert!(slowest_new < Duration::from_secs(3), "who came waited {slowest_new:?}");
        assert!(most >= SMALL as u64 * 8 / 10, "memory was not scarce: {most} bytes");
        assert!(most <= (SMALL + (512 << 10)) as u64, "{most} bytes were held");
        let lines_max = began.elapsed().as_secs() + 2;
        for about in ["closed a connection", "for buffers:"] {
            let lines = server.log.about(about);
            assert!((1..=lines_max).contains(&(lines.len() as u64)), "{lines:#?}");
        }
    });
}

#[test]
fn when_memory_runs_out_the_fattest_goes() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut thin = holder(&server, BUDGET * 10 / 100);
        let mut fat = holder(&server, BUDGET * 60 / 100);
        let last =
            Client::connect_with(server.address(), |socket| socket.set_recv_buffer_size(4096));
        last.send(format!("big {}\n", BUDGET * 45 / 100));
        hear(&told, "closed 1: evicted: it held the most memory");
        fat.is_reset();
        assert_eq!(thin.line().len() as u64, BUDGET * 10 / 100);
        let mut last = last;
        assert_eq!(last.line().len() as u64, BUDGET * 45 / 100);
        assert_eq!(server.connect().ask("all is well"), "all is well");
    });
}

#[test]
fn half_requests_of_many_cannot_take_all_memory() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        let begun = vec![b'x'; 300_000];
        let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
        for client in &clients {
            client.socket.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            match client.try_send(&begun) {
                Ok(()) => {}
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ),
                    "{error}"
                ),
            }
            let held = server.stats().buffered_bytes;
            assert!(held <= BUDGET + (512 << 10), "{held} bytes are held");
        }
        // The fattest go, or whoever holds more than its share once somebody waits.
        assert_eq!(server.connect().ask("all is well"), "all is well");
        drop(clients);
    });
}

#[test]
fn a_reply_that_is_sent_at_once_does_not_leave_memory_scarce() {
    on_every_driver(|case| {
        let (probe, _told) = Probe::new();
        let server = case.start(|server| {
            // One reply of 60,000 bytes is more than 80 % of it, and less than all.
            let limits = Limits::new().memory_budget(Some(85_000));
            server.limits(limits).serve_with(ANY, Lines::new(), probe)
        });
        let mut client = server.connect();
        for _ in 0..20 {
            assert_eq!(client.ask("big 60000").len(), 60_000);
        }
        // A driver that sends at once gives the memory back before it is judged. Where the end of a
        // send is told of later, memory is scarce until then, and then it is not.
        let scarce = !server.log.about("for buffers:").is_empty();
        assert_eq!(scarce, case.driver != DriverKind::Poll, "memory was scarce");
    });
}
