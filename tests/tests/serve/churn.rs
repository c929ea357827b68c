//! Clients that come and go, in order or not, leave nothing behind.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nonforker::{Address, Limits, Server, codec::Lines};

use crate::{
    harness::{ANY, is_in_its_own_process, on_every_driver},
    probe::Probe,
};

/// How many there are in a crowd, where a process may have so many descriptors.
const CROWD: usize = 10_000;

/// Connects so many times, asks once on each, says so, and leaves when told: all at once.
const CROWD_SCRIPT: &str = r#"
    use Socket;
    my ($port, $count) = @ARGV;
    my @all;
    for (1..$count) {
        socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
        connect($socket, sockaddr_in($port, INADDR_LOOPBACK)) or die "connect: $!";
        syswrite($socket, "hello\n") == 6 or die "write: $!";
        push @all, $socket;
    }
    for my $socket (@all) { sysread($socket, my $reply, 6) == 6 or die "read: $!" }
    $| = 1;
    print "all are here\n";
    <STDIN>;
"#;

/// A process with a crowd of clients. `None` where there is no perl.
fn crowd(at: &Address, count: usize) -> Option<Child> {
    let Address::Tcp(at) = at else { panic!("a crowd comes over TCP") };
    let mut command = Command::new("perl");
    command.args(["-e", CROWD_SCRIPT, "--", &at.port().to_string(), &count.to_string()]);
    let mut crowd = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut line = String::new();
    let mut said = BufReader::new(crowd.stdout.take().expect("it is piped"));
    said.read_line(&mut line).expect("a pipe can be read");
    assert_eq!(line, "all are here\n");
    Some(crowd)
}

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| conn.send(line))
}

#[test]
fn two_thousand_come_and_go() {
    on_every_driver(|case| {
        let server = case.start(echo);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..500 {
                        let mut client = server.connect();
                        match round % 5 {
                            0 => drop(client),
                            1 => client.send("not waiting for the answer\n"),
                            2 => client.reset(),
                            3 => assert_eq!(client.exchange(b"all of it\n"), b"all of it\n"),
                            _ => assert_eq!(client.ask("hello"), "hello"),
                        }
                    }
                });
            }
        });
        assert_eq!(server.connect().ask("and on it goes"), "and on it goes");
        // Who was reset before it was accepted may not be counted.
        server.settles();
        assert!(server.stats().accepted > 1001, "{:?}", server.stats());
    });
}

#[test]
fn resets_in_the_middle_of_requests_and_replies_leave_nothing_behind() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        let mut bystander = server.connect();
        let streams = ["half a requ", "whole\n", "big 500000\nbig 500000\n", "a\nb\nc\nand a ha"];
        for round in 0..400 {
            let mut client = server.connect();
            client.send(streams[round % streams.len()]);
            if round % 3 == 0 {
                // Until the reply is under way.
                client.hears_something_for(Duration::from_millis(2));
            }
            client.reset();
            if round % 50 == 0 {
                assert_eq!(bystander.ask("undisturbed"), "undisturbed");
            }
        }
        server.settles();
        server.holds(1);
        let told: Vec<_> = told.try_iter().collect();
        let count = |word: &str| told.iter().filter(|what| what.starts_with(word)).count() as u64;
        // Who was reset before it was accepted may not be counted.
        let accepted = server.stats().accepted;
        assert!(accepted > 100, "{accepted} were accepted");
        assert_eq!((count("open"), count("closed")), (accepted, accepted - 1));
        assert_eq!(bystander.ask("still here"), "still here");
    });
}

#[test]
fn five_hundred_at_once_are_served() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut clients: Vec<_> = (0..500).map(|_| server.connect()).collect();
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                client.send(format!("{round} {number}\n"));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.line(), format!("{round} {number}"));
            }
        }
        for client in clients.drain(..250) {
            client.reset();
        }
        server.holds(250);
        for client in &mut clients {
            assert_eq!(client.ask("I stay"), "I stay");
        }
    });
}

#[test]
fn ten_thousand_leave_at_once_or_are_left() {
    if !is_in_its_own_process("churn::ten_thousand_leave_at_once_or_are_left") {
        return;
    }
    let limit = nonforker::raise_descriptor_limit().expect("the limit can be raised");
    let count = CROWD.min(usize::try_from(limit).unwrap_or(CROWD) - 200);
    if count < CROWD {
        eprintln!("SKIPPED in part: descriptors for {count} of {CROWD}");
    }
    on_every_driver(|case| {
        for they_leave in [true, false] {
            let limits = Limits::new().max_connections(Some(CROWD + 10));
            let server = case.start(|server| echo(server).limits(limits));
            let Some(mut crowd) = crowd(server.address(), count) else {
                eprintln!("SKIPPED: there is no perl");
                return;
            };
            assert_eq!(server.connect().ask("a last guest"), "a last guest");
            if they_leave {
                crowd.kill().expect("it is there");
            } else {
                server.handle().drain();
            }
            server.holds(0);
            // It ends when its input does.
            drop(crowd.stdin.take());
            crowd.wait().expect("a child can be waited for");
            if !they_leave {
                server.ends();
            }
        }
    });
}
