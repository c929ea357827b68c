//! What a server leaves behind when it has ended: nothing.

use std::{fs, os::unix::process::ExitStatusExt, thread, time::Duration};

use nonforker::{Bound, Server, codec::Lines};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::raise,
};

use crate::harness::{
    ANY, Case, in_its_own_process, is_in_its_own_process, on_every_driver, open_descriptors,
    wait_until,
};

const SERVERS: usize = 300;

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn watched(server: Server) -> Bound {
    let server = server.serve(ANY, Lines::new(), |conn, line| conn.send(line));
    server.drain_on_signals().bind().expect("it can listen")
}

#[test]
fn nothing_outlives_its_server() {
    if !is_in_its_own_process("outlived::nothing_outlives_its_server") {
        return;
    }
    on_every_driver(|case| {
        let file = std::env::temp_dir().join(format!("nonforker-{}-last", std::process::id()));
        let (tasks, descriptors) = (threads(), open_descriptors());
        for round in 0..SERVERS {
            let server =
                case.server().serve(format!("unix:{}", file.display()), Lines::new(), |_, _| {});
            let bound = server.also_on(ANY).drain_on_signals().bind().expect("it can listen");
            assert!(file.exists());
            if round % 2 == 0 {
                bound.handle().drain();
                bound.run().expect("it drains");
            }
        }
        assert!(!file.exists(), "the file of a socket is left");
        // The kernel may take a moment to take a ring down.
        wait_until("no thread is left", || threads() <= tasks);
        wait_until("no descriptor is left", || open_descriptors() <= descriptors);
    });
}

/// A signal is for the servers that live, and ends the process when none does.
fn ends_the_process_after_the_last_server(test: &str, signal: i32) {
    on_every_driver(|case: &Case| {
        if let Some(status) = in_its_own_process(test) {
            assert_eq!(status.signal(), Some(signal), "{status}");
            return;
        }
        let [first, second, last] = [(); 3].map(|()| watched(case.server()));
        drop(first);
        raise(signal).expect("a signal can be raised");
        // Both drain: they need not be told by anybody else.
        second.run().expect("it drains");
        thread::sleep(Duration::from_millis(20));
        last.run().expect("it drains");
        // They have ended, and this one has not.
        let bound = watched(case.server());
        raise(signal).expect("a signal can be raised");
        bound.run().expect("it drains");
        raise(signal).expect("a signal can be raised");
        thread::sleep(Duration::from_secs(5));
        unreachable!("the process has outlived the signal");
    });
}

#[test]
fn sigterm_ends_the_process_after_the_last_server() {
    let test = "outlived::sigterm_ends_the_process_after_the_last_server";
    ends_the_process_after_the_last_server(test, SIGTERM);
}

#[test]
fn sigint_ends_the_process_after_the_last_server() {
    let test = "outlived::sigint_ends_the_process_after_the_last_server";
    ends_the_process_after_the_last_server(test, SIGINT);
}
