//! How much memory the process takes, as the system sees it: after a burst, and while buffers grow.

use std::{fs, io::Write, net::TcpStream, thread, time::Duration};

use crate::support::{Server, command, until};

const MIB: usize = 1 << 20;

/// A field of what the system says of the server's memory, in bytes.
fn memory(server: &Server, field: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.0.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

/// A server over each driver, if the system says how much memory it takes.
fn on_every_driver(flags: &str, test: impl Fn(&Server)) {
    for driver in ["poll", "uring"] {
        let flags = format!("--listen 127.0.0.1:0 --driver {driver} {flags}");
        if driver == "uring" && !Server::start("").end().contains("the driver is uring") {
            eprintln!("skipped: there is no io_uring");
            continue;
        }
        let server = Server::from(&mut command(&flags), 1);
        server.assert_answers();
        if memory(&server, "VmRSS").is_none() {
            eprintln!("skipped: this system does not say how much memory a process takes");
            return;
        }
        test(&server);
    }
}

#[test]
fn memory_goes_back_after_a_burst() {
    // Half requests that have to be kept. Each burst a size that buffers are kept at hand in, or not.
    for (clients, bytes) in [(600, 60_000), (2000, 15_000), (100, 700_000)] {
        on_every_driver("--max-frame 1MiB --log warn", |server| {
            let resident = || memory(server, "VmRSS").expect("it runs");
            let before = resident();
            let half = vec![b'a'; bytes];
            let mut streams: Vec<TcpStream> = Vec::new();
            for _ in 0..clients {
                let mut stream = server.connect();
                stream.write_all(&half).unwrap();
                streams.push(stream);
            }
            until("all of it is kept", || resident() >= before + clients * bytes * 9 / 10);
            let peak = resident();
            drop(streams);
            let most = before + (peak - before) / 10;
            // Ten seconds are allowed, and tests are in a hurry.
            let mut after = 0;
            for _ in 0..50 {
                thread::sleep(Duration::from_millis(100));
                after = resident();
                if after <= most {
                    return;
                }
            }
            panic!("{clients} of {bytes}: {before} before, {peak} at most, {after} after");
        });
    }
}

#[test]
fn while_buffers_grow_little_more_than_the_budget_is_taken() {
    const BUDGET: usize = 48 * MIB;
    // A frame that does not end, and replies that nobody reads.
    for (what, piece) in [
        ("frames", "a".repeat(64 << 10)),
        ("replies", format!("{}\n", "a".repeat(1000)).repeat(64)),
    ] {
        for clients in [1, 2, 5] {
            let flags = "--max-frame 1GiB --memory-budget 48MiB --high-watermark 1GiB --log off";
            on_every_driver(flags, |server| {
                let before = memory(server, "VmHWM").expect("it runs");
                let mut streams: Vec<_> = (0..clients).map(|_| server.connect()).collect();
                for _ in 0..2 * BUDGET / piece.len() {
                    streams.retain_mut(|stream| stream.write_all(piece.as_bytes()).is_ok());
                }
                let grown = memory(server, "VmHWM").expect("it runs") - before;
                let most = BUDGET * 135 / 100 + 6 * MIB;
                let said = format!("{what} of {clients}: {} MiB", grown / MIB);
                eprintln!("{said}");
                assert!(grown <= most, "{said}");
                assert!(grown >= BUDGET / 2, "{said}: nothing grew");
            });
        }
    }
}
