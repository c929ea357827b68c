//! Urgent (out-of-band) bytes reach the handler and never disturb the stream.

use std::{
    fs,
    io::ErrorKind,
    sync::mpsc::Receiver,
    thread::sleep,
    time::{Duration, Instant},
};

use nonforker::{Server, codec::Lines};

use crate::{
    client::{Client, hear},
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    probe::Probe,
};

fn start(case: &Case) -> (Running, Receiver<String>) {
    let (probe, told) = Probe::new();
    let build = |server: Server| server.serve_with(ANY, Lines::new(), probe);
    (case.start(build), told)
}

#[test]
fn an_urgent_byte_between_data_is_delivered_and_the_stream_is_intact() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut client = server.connect();
        for round in 0..20 {
            client.send("before ");
            client.urgent(b'!').expect("TCP has urgent data");
            client.send("behind\n");
            assert_eq!(client.line(), "before behind", "round {round}");
            hear(&told, "urgent 0 !");
        }
    });
}

/// Between two looks of the server at a socket, one of which is for the urgent byte, the next one
/// may arrive: so it is sent after each of many short times.
#[test]
fn an_urgent_byte_is_delivered_at_whatever_moment_it_comes() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut client = server.connect();
        for round in 0..4000 {
            client.send("before ");
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_nanos(25 * (round % 2000)) {
                std::hint::spin_loop();
            }
            client.urgent(b'!').expect("TCP has urgent data");
            client.send("behind\n");
            assert_eq!(client.line(), "before behind", "round {round}");
            hear(&told, "urgent 0 !");
        }
    });
}

#[test]
fn an_urgent_byte_in_one_go_with_data_stalls_nothing() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut blocker = server.connect();
        hear(&told, "open 0");
        for round in 1..=10 {
            // The server is kept busy, so that all of it has arrived when it looks.
            let mut client = server.connect();
            hear(&told, &format!("open {round}"));
            blocker.send("sleep 30\n");
            sleep(Duration::from_millis(5));
            client.send("one\ntwo ");
            client.urgent(b'1').expect("TCP has urgent data");
            client.send("parts\n");
            client.urgent(b'2').expect("TCP has urgent data");
            client.send("three\n");
            client.half_close();
            let all = client.rest_text();
            // Only the newest urgent byte stays out of the stream: a kernel's habit.
            assert!(
                ["one\ntwo parts\nthree\n", "one\ntwo 1parts\nthree\n"].contains(&all.as_str()),
                "round {round}: {all:?}"
            );
            hear(&told, &format!("urgent {round} 2"));
            assert_eq!(blocker.line(), "slept");
        }
    });
}

#[test]
fn an_urgent_byte_first_or_last_or_alone_is_delivered() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut first = server.connect();
        hear(&told, "open 0");
        first.urgent(b'f').expect("TCP has urgent data");
        assert_eq!(first.ask("data"), "data");
        hear(&told, "urgent 0 f");

        let last = server.connect();
        hear(&told, "open 1");
        last.send("data\n");
        last.urgent(b'l').expect("TCP has urgent data");
        hear(&told, "urgent 1 l");
        drop(last);

        let alone = server.connect();
        hear(&told, "open 2");
        alone.urgent(b'a').expect("TCP has urgent data");
        hear(&told, "urgent 2 a");
        server.is_idle();
    });
}

#[test]
fn a_flood_of_urgent_bytes_neither_spins_nor_stalls() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let (mut client, mut other) = (server.connect(), server.connect());
        assert_eq!(other.ask("hello"), "hello");
        let began = Instant::now();
        for round in 0..10_000 {
            client.urgent(b'!').expect("TCP has urgent data");
            if round % 1000 == 0 {
                assert_eq!(other.ask("I live"), "I live");
            }
        }
        client.send("\nand data\n");
        // Some of them were overtaken and have become part of the stream: a kernel's habit.
        assert!(client.line().bytes().all(|byte| byte == b'!'));
        assert_eq!(client.line(), "and data");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        hear(&told, "urgent 0 !");
        server.settles();
        server.is_idle();
    });
}

#[test]
fn urgent_bytes_from_a_client_that_is_held_back_or_closing_are_no_trouble() {
    on_every_driver(|case| {
        let (server, told) = start(case);
        let mut held = server.connect();
        hear(&told, "open 0");
        held.send("big 5000000\n");
        server.settles();
        for _ in 0..100 {
            held.urgent(b'!').expect("TCP has urgent data");
        }
        hear(&told, "urgent 0 !");
        server.is_idle();
        assert_eq!(held.exactly(5_000_001).len(), 5_000_001);
        assert!(held.ask("\nnext").is_empty() || held.line().ends_with("next"));

        let mut closing = server.connect();
        hear(&told, "open 1");
        assert_eq!(closing.ask("close"), "bye");
        for _ in 0..100 {
            // It is refused once the server has gone.
            let _ = closing.urgent(b'!');
        }
        assert_eq!(closing.try_rest().unwrap_or_default(), b"");
    });
}

#[test]
fn urgent_bytes_on_a_unix_socket_do_not_stall_its_stream() {
    on_every_driver(|case| {
        let folder = std::env::temp_dir().join(format!("nonforker-{}-urgent", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let address = format!("unix:{}/socket", folder.display());
        let (probe, told) = Probe::new();
        let server = case.start(move |server| server.serve_with(address, Lines::new(), probe));
        let probe = server.connect();
        hear(&told, "open 0");
        match probe.urgent(b'?') {
            Ok(()) => hear(&told, "urgent 0 ?"),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) =>
            {
                eprintln!("SKIPPED: this kernel has no urgent data on Unix sockets");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let mut blocker = server.connect();
        hear(&told, "open 1");
        for round in 2..12 {
            let mut client: Client = server.connect();
            hear(&told, &format!("open {round}"));
            // Once with the server at rest, once with everything there when it looks.
            if round % 2 == 0 {
                blocker.send("sleep 30\n");
                sleep(Duration::from_millis(5));
            }
            client.send("before ");
            client.urgent(b'!').expect("this kernel has it");
            client.send("behind\nand more\n");
            let first = client.line();
            assert!(["before behind", "before !behind"].contains(&first.as_str()), "{first:?}");
            assert_eq!(client.line(), "and more");
            client.urgent(b'x').expect("this kernel has it");
            client.half_close();
            match client.try_rest() {
                Ok(rest) => assert!(rest.is_empty() || rest.starts_with(b"rejected"), "{rest:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
            }
            if round % 2 == 0 {
                assert_eq!(blocker.line(), "slept");
            }
        }
        drop((probe, blocker));
        wait_until("they are gone", || server.stats().accepted == server.stats().closed);
        server.handle().drain();
        server.ends();
        fs::remove_dir(&folder).expect("nothing is left in it");
    });
}
