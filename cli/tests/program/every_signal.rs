//! `docs/signals.md` says what every signal does: each of them is sent, and does that.

use std::{
    fs, os::unix::process::ExitStatusExt, path::Path, process::Command, thread, time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{PROGRAM, Server, until, via};

/// What the table says about one signal.
struct Row {
    number: i32,
    names: String,
    then: String,
}

/// The table, a row for each number.
fn table() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/signals.md");
    let text = fs::read_to_string(path).expect("the page is there");
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, numbers, names, _, then, _] = cells[..] else { panic!("not a row: {line}") };
        let (first, last) = numbers.split_once(" to ").unwrap_or((numbers, numbers));
        for number in first.parse().unwrap()..=last.parse().unwrap() {
            rows.push(Row { number, names: names.into(), then: then.into() });
        }
    }
    rows
}

/// A server that leaves no core, in a group of its own: in an orphaned one nothing stops a process.
fn start() -> Server {
    use std::os::unix::process::CommandExt;
    let script = "ulimit -c 0; exec \"$0\" \"$@\"";
    let mut command = via(&["sh", "-c", script], Path::new(PROGRAM), "--listen 127.0.0.1:0");
    Server::from(command.process_group(0), 1)
}

/// Sends a signal by its number: real-time ones have no name.
fn send(server: &Server, number: i32) {
    let kill = format!("kill -{number} {}", server.process.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// A line of what the kernel says about the process.
fn status_of(server: &Server, key: &str) -> String {
    let path = format!("/proc/{}/status", server.process.0.id());
    let status = fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

/// Signals that the program leaves alone, and that the parent of the tests may have ignored. Those of
/// the C library, 32 and 33, are ignored in whatever `posix_spawn` starts.
const INHERITED: u64 = bit(Signal::SIGQUIT as i32)
    | bit(Signal::SIGTSTP as i32)
    | bit(Signal::SIGTTIN as i32)
    | bit(Signal::SIGTTOU as i32)
    | bit(32)
    | bit(33);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// What the server ignores, a bit for each signal.
fn ignored_by(server: &Server) -> u64 {
    u64::from_str_radix(&status_of(server, "SigIgn:"), 16).unwrap()
}

#[test]
fn the_table_names_every_signal() {
    let rows = table();
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=64).collect::<Vec<_>>());
    for signal in Signal::iterator() {
        let row = rows.iter().find(|row| row.number == signal as i32).unwrap();
        assert!(row.names.split(", ").any(|name| name == signal.as_str()), "{signal}");
    }
}

#[test]
fn every_signal_does_what_the_table_says() {
    let mut lives = start();
    let inherited = ignored_by(&lives) & INHERITED;
    for Row { number, then, .. } in table() {
        if inherited & bit(number) != 0 {
            eprintln!("skipped: signal {number} is ignored in what the tests start");
            continue;
        }
        match then.as_str() {
            "serves" => {
                send(&lives, number);
                // Were it to kill, the client would not be answered, or the next one.
                lives.assert_answers();
                assert!(lives.process.0.try_wait().unwrap().is_none(), "signal {number}");
            }
            "stops" => {
                send(&lives, number);
                until("it stands still", || status_of(&lives, "State:").starts_with('T'));
                send(&lives, Signal::SIGCONT as i32);
                lives.assert_answers();
            }
            "drains" => {
                let mut server = start();
                send(&server, number);
                assert_eq!(server.status(), 0, "signal {number}");
                assert!(server.log().contains("draining"), "signal {number}: {}", server.log());
            }
            "dies" => assert_eq!(dies_by(number), Some(number), "signal {number}"),
            other => panic!("signal {number} does what? {other}"),
        }
    }
    // Children would inherit more than that. Rust's runtime undoes it for them.
    assert_eq!(ignored_by(&lives) & !INHERITED, bit(Signal::SIGPIPE as i32));
    assert!(lives.log().contains("SIGUSR2: nothing to do"), "{}", lives.log());
    lives.end();
}

/// Which signal kills a server that is sent this one: once, or twice if Rust's runtime took the
/// first.
fn dies_by(number: i32) -> Option<i32> {
    let mut server = start();
    for _ in 0..2 {
        send(&server, number);
        for _ in 0..100 {
            if let Some(status) = server.process.0.try_wait().unwrap() {
                return status.signal();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    None
}

#[test]
fn processor_time_that_is_used_up_and_power_that_fails_drain_once() {
    // Two of them are no reason to cut clients off, as two SIGTERM are.
    for signal in [Signal::SIGXCPU, Signal::SIGPWR] {
        let mut server = Server::start("--write-timeout off");
        let mut stream = server.connect();
        let line = [b"x".repeat(60_000).as_slice(), b"\n"].concat();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while std::io::Write::write_all(&mut stream, &line).is_ok() {}
        server.process.signal(signal);
        server.await_log("draining");
        server.process.signal(signal);
        server.await_log(&format!("{signal}: nothing to do"));
        assert!(server.process.0.try_wait().unwrap().is_none(), "{signal}");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        assert_eq!(server.status(), 0, "{signal}: {}", server.log());
    }
}
