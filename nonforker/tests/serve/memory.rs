//! The budget for all buffers: first nothing is read, then nobody is let in, then the fattest goes.

use std::{io::ErrorKind, sync::mpsc::Receiver, time::Duration};

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
fn when_memory_is_scarce_nothing_is_read_and_it_recovers_by_itself() {
    on_every_driver(|case| {
        // With backpressure and without, which ends scarcity in different ways.
        for high in [64 * 1024, 64 * 1024 * 1024] {
            scarce_for_a_while(case, high);
        }
    });
}

fn scarce_for_a_while(case: &Case, high: usize) {
    let (server, _told) = start_with(case, Limits::new().high_watermark(high));
    let (mut client, _second) = (server.connect(), server.connect());
    assert_eq!(client.ask("before"), "before");
    let mut fat = holder(&server, BUDGET * 85 / 100);
    server.settles();
    let held = server.stats().buffered_bytes;
    assert!((BUDGET * 80 / 100..BUDGET * 90 / 100).contains(&held), "held {held}");

    // The first read may be on its way already; what follows it is not read.
    client.send("one\n");
    client.send("two\n");
    client.send(vec![b'\n'; 200_000]);
    std::thread::sleep(Duration::from_millis(100));
    let received = server.stats().received_bytes;
    assert!(received < 200_000, "{received} bytes were read");
    server.is_idle();
    assert_eq!(server.log.about("memory for buffers").len(), 1, "it is said once");

    assert_eq!(fat.line().len() as u64, BUDGET * 85 / 100);
    assert_eq!(client.line(), "one");
    assert_eq!(client.line(), "two");
    assert_eq!(client.exactly(200_000), vec![b'\n'; 200_000]);
}

#[test]
fn when_memory_is_scarcer_nobody_is_let_in_until_it_recovers() {
    on_every_driver(|case| {
        let (server, _told) = start(case);
        let mut fat = holder(&server, BUDGET * 95 / 100);
        server.settles();
        let mut late = server.connect();
        late.send("let me in\n");
        late.hears_nothing_for(Duration::from_millis(150));
        assert_eq!(server.stats().accepted, 1);
        server.is_idle();
        assert_eq!(fat.line().len() as u64, BUDGET * 95 / 100);
        assert_eq!(late.line(), "let me in");
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
            assert!(held <= BUDGET + (2 << 20), "{held} bytes are held");
        }
        // The fattest go. Nothing more is read from the rest, so none of them becomes whole until
        // their deadline.
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
        let scarce = !server.log.about("StopReading").is_empty();
        assert_eq!(scarce, case.driver != DriverKind::Poll, "memory was scarce");
    });
}
