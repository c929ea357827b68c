//! Clients that come and go, in order or not, leave nothing behind.

use std::{thread, time::Duration};

use nonforker::{Server, codec::Lines};

use crate::{
    harness::{ANY, on_every_driver},
    probe::Probe,
};

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
