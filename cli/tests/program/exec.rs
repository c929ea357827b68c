//! `--exec`: a program for each client, what it leaves unread, and what it takes.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::{
    support::{Server, command, run},
    workers::{Client, DRIVERS},
};

#[test]
fn what_a_program_wrote_arrives_although_it_did_not_read_all() {
    for driver in DRIVERS {
        let mut line = command(&format!("serve --listen 127.0.0.1:0 --driver {driver}"));
        let server = Server::from(line.args(["--exec", "head -c 300000 /dev/zero"]), 1);
        for _ in 0..20 {
            let mut client = server.connect();
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it is connected");
            std::thread::sleep(Duration::from_millis(20));
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).expect("an end, and no reset");
            assert_eq!(heard.len(), 300_000, "{driver}");
        }
        server.end();
    }
}

#[test]
fn clients_of_programs_wait_for_both_of_their_places() {
    for driver in DRIVERS {
        let flags = format!("serve --listen 127.0.0.1:0 --driver {driver} --max-connections 8");
        let server = Server::from(command(&flags).args(["--exec", "cat"]), 1);
        let clients: Vec<_> = (0..12).map(|_| Client::of(&server)).collect();
        for (nth, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.ask(&format!("hello {nth}")), format!("hello {nth}"), "{driver}");
        }
        server.end();
    }
}

#[test]
fn a_program_for_each_client_that_is_not_there_is_named() {
    for program in ["/no/such/program", "no-such-program-anywhere", "/etc/passwd", "/tmp"] {
        let output = run(command("serve --listen 127.0.0.1:0").args(["--exec", program]));
        assert_eq!(output.status, 1, "{program}: {}", output.stderr);
        assert_complains_of(&output.stderr, program);
    }
}

fn assert_complains_of(stderr: &str, part: &str) {
    let last = stderr.lines().last().expect("a line");
    assert!(last.contains(part) && last.contains("cannot be started"), "{stderr}");
}
