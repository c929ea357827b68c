//! While buffers grow, the process takes hardly more memory than the budget: nothing is held twice.
//!
//! The only test in this process, since it measures the memory of all of it.

#![expect(clippy::disallowed_methods, reason = "clients may sleep")]

use std::{fs, io::Write, net::TcpStream, thread, time::Duration};

use nonforker::{DriverKind, Error, Limits, Outcome, Server, codec::Lines};

const MIB: usize = 1 << 20;
const BUDGET: usize = 40 * MIB;

/// Resident memory now and at most, in bytes.
fn memory() -> Option<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// What clients do until the server has cut them off.
#[derive(Clone, Copy, Debug)]
enum Growth {
    /// They send a line without an end.
    Inbound,
    /// They ask for a megabyte again and again, and read nothing.
    Outbound,
}

fn grow(driver: DriverKind, clients: usize, growth: Growth) -> nonforker::Result<()> {
    let limits = Limits::new().memory_budget(Some(BUDGET)).high_watermark(8 * BUDGET);
    let reply = vec![b'x'; MIB];
    let server = Server::new().driver(driver).limits(limits);
    // A reply in pieces: it grows within a callback too.
    let server =
        server.serve("127.0.0.1:0", Lines::with_max(8 * BUDGET), move |conn, _| -> Outcome {
            Ok(reply.chunks(10_000).try_for_each(|piece| conn.write_all(piece))?)
        });
    let bound = server.bind()?;
    let (address, handle) = (bound.addresses()[0].to_string(), bound.handle());
    let pushing = thread::spawn(move || {
        let address = address.trim_start_matches("tcp://");
        let connect = |_| TcpStream::connect(address).expect("it listens");
        let mut streams: Vec<_> = (0..clients).map(connect).collect();
        let (bytes, times) = match growth {
            Growth::Inbound => (vec![b'a'; 64 << 10], 2 * BUDGET / (64 << 10)),
            Growth::Outbound => (b"more\n".to_vec(), 2 * BUDGET / MIB),
        };
        for _ in 0..times {
            streams.retain_mut(|stream| stream.write_all(&bytes).is_ok());
            // So that a server which is slow is not stopped before anything has grown.
            thread::sleep(Duration::from_micros(500));
        }
        thread::sleep(Duration::from_millis(100));
        handle.stop();
    });
    match bound.run() {
        // A client that was not too large yet may be cut off by the stop.
        Ok(()) | Err(Error::CutOff { .. }) => {}
        Err(error) => return Err(error),
    }
    pushing.join().expect("clients do not fail");
    Ok(())
}

#[test]
fn growing_buffers_take_little_more_than_the_budget() {
    // Forgets how much memory there was at most.
    if memory().is_none() || fs::write("/proc/self/clear_refs", "5").is_err() {
        eprintln!("skipped: this system does not say how much memory a process takes");
        return;
    }
    for driver in [DriverKind::Poll, DriverKind::Uring] {
        for growth in [Growth::Inbound, Growth::Outbound] {
            for clients in [1, 2] {
                // What was freed before is not growth, and takes some time to go.
                thread::sleep(Duration::from_millis(20));
                fs::write("/proc/self/clear_refs", "5").expect("it was possible before");
                let (before, _) = memory().expect("it was possible before");
                match grow(driver, clients, growth) {
                    Err(Error::NoUring(error)) => {
                        eprintln!("skipped: {driver:?}: {error}");
                        continue;
                    }
                    result => result.expect("it serves"),
                }
                let (_, peak) = memory().expect("it was possible before");
                let (grown, most) = (peak.saturating_sub(before), BUDGET * 135 / 100 + 6 * MIB);
                let name = format!("{growth:?} of {clients} over {driver:?}");
                eprintln!("{name}: {} MiB", grown / MIB);
                assert!(grown <= most, "{name}: {} MiB", grown / MIB);
                assert!(grown >= BUDGET / 2, "{name}: only {} MiB, nothing grew", grown / MIB);
            }
        }
    }
}
