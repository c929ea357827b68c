//! Which driver serves: what `auto` falls back to, and what is said where a driver cannot be had.

use std::{net::TcpStream, path::Path, process::Command};

use nix::sys::signal::Signal::SIGKILL;

use crate::support::{PROGRAM, Server, command, is_there, run, via};

/// Forbids a system call to the program that it then becomes, with this error number: a filter of
/// four instructions (load the call's number; is it that one? fail; allow).
const FORBID: &str = r#"
    my ($call, $error, @program) = @ARGV;
    my $filter = pack("SCCL" x 4, 0x20, 0, 0, 0, 0x15, 0, 1, $call,
                      0x06, 0, 0, 0x50000 | $error, 0x06, 0, 0, 0x7fff0000);
    my $filters = pack("S x6 P", 4, $filter);
    syscall(157, 38, 1, 0, 0, 0) == 0 or die "no new privileges: $!";
    syscall(157, 22, 2, $filters, 0, 0) == 0 or die "filter: $!";
    exec @program or die "exec: $!";
"#;

/// The calls of io_uring, each of which a filter may forbid alone: setup, enter and register.
const URING_CALLS: [u32; 3] = [425, 426, 427];

/// The program with these flags, in a process to which `call` is forbidden. `None` where it cannot
/// be forbidden that way.
fn without(call: u32, error: i32, flags: &str) -> Option<Command> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("skipped: the test knows the numbers of system calls for Linux on x86_64 only");
        return None;
    }
    let wrapper = ["perl", "-e", FORBID, "--", &call.to_string(), &error.to_string()];
    is_there("perl").then(|| via(&wrapper, Path::new(PROGRAM), flags))
}

/// Whether io_uring can be used here. If not, that is said.
fn has_uring() -> bool {
    let has = Server::start("--driver auto").end().contains("the driver is uring");
    if !has {
        eprintln!("skipped: io_uring cannot be used here");
    }
    has
}

#[test]
fn a_line_says_which_driver_it_is() {
    let server = Server::start("--driver poll");
    server.assert_answers();
    assert_eq!(server.end().matches("the driver is poll\n").count(), 1);
    if has_uring() {
        let server = Server::start("--driver uring");
        server.assert_answers();
        assert_eq!(server.end().matches("the driver is uring\n").count(), 1);
    }
}

#[test]
fn the_environment_chooses_what_is_left_open() {
    let poll = |flags: &str| {
        let mut command = command(&format!("--listen 127.0.0.1:0 {flags}"));
        Server::from(command.env("NONFORKER_DRIVER", "poll"), 1).end()
    };
    assert!(poll("").contains("the driver is poll"));
    if has_uring() {
        assert!(poll("--driver uring").contains("the driver is uring"));
    }
}

#[test]
fn where_io_uring_is_forbidden_poll_takes_its_place_and_says_why() {
    for call in URING_CALLS {
        for (error, why) in [(1, "filter of system calls"), (38, "the kernel has none")] {
            let Some(mut command) = without(call, error, "--listen 127.0.0.1:0") else { return };
            let server = Server::from(&mut command, 1);
            server.assert_answers();
            let log = server.end();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("driver")).collect();
            assert_eq!(lines.len(), 1, "{call}: {log}");
            assert!(lines[0].contains("the driver is poll; io_uring cannot be used: "), "{log}");
            assert!(lines[0].contains(why), "{call}: {log}");
            assert_eq!(log.matches("WARN").count(), 0, "{log}");

            let flags = "--listen 127.0.0.1:0 --driver uring";
            let output = run(&mut without(call, error, flags).expect("it was there"));
            assert_eq!(output.status, 1, "{call}: {}", output.stderr);
            assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
            assert!(output.stderr.contains("io_uring cannot be used here"), "{}", output.stderr);
            assert!(output.stderr.contains(why), "{call}: {}", output.stderr);
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn an_accept_that_is_always_refused_is_said_and_takes_no_core() {
    const ACCEPT4: u32 = 288;
    for driver in ["poll", "uring"] {
        if driver == "uring" && !has_uring() {
            continue;
        }
        let flags = format!("--listen 127.0.0.1:0 --driver {driver}");
        // EPERM, and ENETDOWN.
        for error in [1, 100] {
            let Some(mut command) = without(ACCEPT4, error, &flags) else { return };
            let server = Server::from(&mut command, 1);
            let client = TcpStream::connect(&server.addresses[0]).expect("it listens");
            server.await_log("cannot accept for now");
            let ticks = || ticks(server.process.0.id());
            let before = ticks();
            std::thread::sleep(std::time::Duration::from_millis(500));
            let used = ticks() - before;
            assert!(used <= 15, "{driver}: {used} hundredths of a second in half a second");
            drop(client);
            let log = server.end();
            assert_eq!(log.matches("cannot accept for now").count(), 1, "{driver}: {log}");
        }
    }
}

#[test]
fn the_kernel_probes_silent_tcp_clients_as_the_flags_say() {
    if !Path::new("/proc/net/tcp").exists() {
        eprintln!("skipped: this system does not show the timers of connections");
        return;
    }
    for driver in ["poll", "uring"] {
        if driver == "uring" && !has_uring() {
            continue;
        }
        for (flags, timer, seconds) in
            [("", 2, 60), ("--keepalive 90s", 2, 90), ("--keepalive off", 0, 0)]
        {
            let server = Server::start(&format!("--driver {driver} {flags}"));
            let client = TcpStream::connect(&server.addresses[0]).expect("it listens");
            server.assert_answers();
            let (is, left) = timer_of(&client);
            assert_eq!(is, timer, "{driver} {flags}: the kind of the timer");
            let expected = (seconds * 90)..=(seconds * 100);
            assert!(expected.contains(&left), "{driver} {flags}: {left} hundredths are left");
        }
    }
}

/// What the kernel waits for at the server's end of a connection: for what (2 is the next probe, 0
/// nothing) and for how long, in hundredths of a second.
fn timer_of(client: &TcpStream) -> (u64, u64) {
    let port = |address: std::net::SocketAddr| format!("0100007F:{:04X}", address.port());
    let local = port(client.peer_addr().expect("it is connected"));
    let remote = port(client.local_addr().expect("it is connected"));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("it was there");
    let fields: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields[1..3] == [local.as_str(), remote.as_str()])
        .expect("the kernel lists every connection");
    let (timer, left) = fields[5].split_once(':').expect("two numbers");
    let number = |text| u64::from_str_radix(text, 16).expect("a number");
    (number(timer), number(left))
}

/// The processor time of a process, in hundredths of a second.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // Behind the name come the state and ten fields, then what it used itself and in the kernel.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn where_too_little_memory_can_be_locked_poll_takes_its_place() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can take a privilege from the program");
        return;
    }
    if !is_there("prlimit") || !is_there("setpriv") {
        return;
    }
    // Who may lock memory without a limit does not meet it.
    let wrapper =
        ["prlimit", "--memlock=4096", "setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let mut command = via(&wrapper, Path::new(PROGRAM), "--listen 127.0.0.1:0");
    let server = Server::from(&mut command, 1);
    server.assert_answers();
    let log = server.end();
    if log.contains("the driver is uring") {
        eprintln!("skipped: this kernel does not count io_uring's memory as locked");
        return;
    }
    let why = "the driver is poll; io_uring cannot be used: the limit of locked memory is too low";
    assert!(log.contains(why), "{log}");

    let output = run(&mut via(&wrapper, Path::new(PROGRAM), "--driver uring"));
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("ulimit -l"), "{}", output.stderr);
}

#[test]
fn a_killed_server_can_be_started_again_at_once() {
    for driver in ["poll", "uring"] {
        if driver == "uring" && !has_uring() {
            continue;
        }
        let mut server = Server::start(&format!("--driver {driver}"));
        for _ in 0..5 {
            let address = server.addresses[0].clone();
            let streams: Vec<_> =
                (0..20).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
            server.assert_answers();
            server.process.signal(SIGKILL);
            // It is not waited for: who restarts a server does not know how it went.
            let flags = format!("--driver {driver} --listen {address}");
            let next = Server::from(&mut command(&flags), 1);
            drop((streams, server));
            server = next;
            server.assert_answers();
        }
    }
}
