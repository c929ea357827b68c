//! Programs behind a server, real ones, on every driver: as workers, and one for each client.

#![expect(clippy::disallowed_methods, reason = "the test waits, not a server")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use nonforker::{Address, DriverKind, Error, Program, Running, Server, Workers, codec::Lines};

const DRIVERS: [DriverKind; 2] = [DriverKind::Poll, DriverKind::Uring];

const ERROR: &str = "error: the worker ended\n";

/// Runs a server, unless this machine does not have the driver.
fn run(
    driver: DriverKind,
    make: impl FnOnce(Server) -> Server + Send + 'static,
) -> Option<Running> {
    match Server::spawn(move || make(Server::new().driver(driver))) {
        Err(Error::NoUring(_)) => None,
        running => Some(running.expect("it listens")),
    }
}

fn connect(running: &Running) -> BufReader<TcpStream> {
    let Address::Tcp(address) = running.addresses()[0] else { unreachable!("it is TCP") };
    let client = TcpStream::connect(address).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    BufReader::new(client)
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
    client.get_mut().write_all(line.as_bytes()).expect("it is connected");
    let mut reply = String::new();
    client.read_line(&mut reply).expect("a reply");
    reply
}

fn shell(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

/// Whether no process has this in its command line: it takes a moment until one that was killed is gone.
fn are_gone(part: &str) -> bool {
    (0..100).any(|_| {
        let are_gone = processes_with(part) == 0;
        if !are_gone {
            std::thread::sleep(Duration::from_millis(20));
        }
        are_gone
    })
}

/// How many processes have this in their command line.
fn processes_with(part: &str) -> usize {
    let Ok(all) = fs::read_dir("/proc") else { return 0 };
    let lines = all.flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(part)).count()
}

#[test]
fn workers_answer_and_one_that_ends_or_hangs_is_replaced() {
    let script = "while read -r x; do case $x in exit) exit 1;; hang) sleep 4321;; \
                  *) echo \"got $x\";; esac; done";
    for driver in DRIVERS {
        let running = run(driver, move |server| {
            let workers = Workers::to(shell(script), Lines::new());
            let workers = workers.timeout(Some(Duration::from_secs(1)));
            server.workers("127.0.0.1:0", Lines::new(), workers)
        });
        let Some(running) = running else { continue };
        let mut client = connect(&running);
        let began = Instant::now();
        assert_eq!(ask(&mut client, "one\n"), "got one\n");
        assert!(began.elapsed() < Duration::from_secs(5), "it is started at once");
        assert_eq!(ask(&mut client, "exit\n"), ERROR);
        assert_eq!(ask(&mut client, "two\n"), "got two\n");
        assert_eq!(ask(&mut client, "hang\n"), ERROR);
        assert_eq!(ask(&mut client, "three\n"), "got three\n");
        drop(client);
        running.drain_and_wait().expect("it drains");
        assert!(are_gone("4321"), "the whole group has ended");
    }
}

#[test]
fn what_cannot_be_started_or_does_not_stay_ends_the_server() {
    for driver in DRIVERS {
        for (program, said) in [
            (Program::new("/no/such/program"), "No such file"),
            (shell("echo no licence >&2; exit 3"), "no licence; exit status: 3"),
        ] {
            let running = run(driver, move |server| {
                let workers = Workers::to(program, Lines::new());
                server.workers("127.0.0.1:0", Lines::new(), workers)
            });
            let Some(running) = running else { continue };
            let error = running.wait().expect_err("it has no workers").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}

#[test]
fn each_client_has_a_program_and_its_end_is_the_end_of_both() {
    for driver in DRIVERS {
        let script = "echo $REMOTE_ADDR; read -r x; echo got $x; sleep 8765 & exit 3";
        let running = run(driver, move |server| {
            server.relay("127.0.0.1:0", nonforker::Target::from(shell(script)))
        });
        let Some(running) = running else { continue };
        let (mut one, two) = (connect(&running), connect(&running));
        assert_eq!(ask(&mut one, "hello\n"), "127.0.0.1\n");
        let mut rest = String::new();
        one.read_to_string(&mut rest).expect("the end, although a child holds the output");
        assert_eq!(rest, "got hello\n");
        two.get_ref().shutdown(Shutdown::Both).expect("it is connected");
        drop((one, two));
        running.drain_and_wait().expect("it drains");
        assert!(are_gone("8765"), "the whole group has ended");
    }
}
