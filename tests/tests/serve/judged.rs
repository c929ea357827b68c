//! Deadlines measure the peer and not us, progress is what the peer's kernel has acknowledged, and
//! silence does not shut the door.

use std::{
    io::{ErrorKind, Read},
    thread::sleep,
    time::{Duration, Instant},
};

use nonforker::{Address, CloseReason, Conn, Handler, Limits, Outcome, Server, codec::Lines};

use crate::{
    client::Client,
    harness::{ANY, Case, Running, on_every_driver},
};

const TIMEOUT: Duration = Duration::from_millis(500);

/// Every timeout is half a second.
fn impatient() -> Limits {
    let timeout = Some(TIMEOUT);
    Limits::new().idle_timeout(timeout).frame_timeout(timeout).write_timeout(timeout)
}

/// Echoes. `block` takes 1.5 s; `give` is answered with 4 MB, `last` with 200 KB and a close.
struct Works;

impl Handler for Works {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"block" => sleep(TIMEOUT * 3),
            b"give" => conn.send(vec![b'x'; 4_000_000]),
            b"last" => {
                conn.send(vec![b'x'; 200_000]);
                conn.close();
            }
            line => conn.send(line),
        }
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert!(!matches!(reason, CloseReason::Defect), "a reason is always known");
    }
}

fn start(case: &Case, limits: Limits) -> Running {
    case.start(move |server| server.limits(limits).serve_with(ANY, Lines::new(), Works))
}

#[test]
fn what_arrived_while_a_handler_blocked_was_in_time() {
    on_every_driver(|case| {
        let server = start(case, impatient().read_per_turn(4096));
        let blocks = server.connect();
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("hello"), "hello");
            client.send("half a ");
        }
        server.has_received(40 * 13);
        blocks.send("block\n");
        sleep(TIMEOUT / 5);
        // More than one turn brings.
        let rest = "x".repeat(56_000);
        for client in &clients {
            client.send(format!("line {rest}\n"));
        }
        for client in &mut clients {
            assert_eq!(client.line().len(), "half a line ".len() + rest.len());
        }
    });
}

#[test]
fn a_client_that_reads_all_the_time_gets_all_although_a_handler_blocks() {
    on_every_driver(|case| {
        let server = start(case, impatient());
        let (mut reads, blocks) = (server.connect(), server.connect());
        reads.send("give\n");
        blocks.send("block\n");
        assert_eq!(reads.exactly(4_000_001).len(), 4_000_001);
    });
}

/// A client whose kernel acknowledges in small steps.
fn small(server: &Running) -> Option<Client> {
    let is_tcp = matches!(server.address(), Address::Tcp(_));
    is_tcp
        .then(|| Client::connect_with(server.address(), |socket| socket.set_recv_buffer_size(4096)))
}

/// Reads 2 KiB every 50 ms for as long. Returns how much that was, and whether it ended.
fn read_slowly(client: &Client, time: Duration) -> (usize, bool) {
    let began = Instant::now();
    let mut bytes = 0;
    while began.elapsed() < time {
        match (&client.socket).read(&mut [0; 2048]) {
            Ok(count) if count > 0 => bytes += count,
            // A wait with a timeout is not begun again by the kernel when something interrupts it.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return (bytes, true),
        }
        sleep(TIMEOUT / 10);
    }
    (bytes, false)
}

#[test]
fn a_slow_but_steady_download_is_not_cut_off() {
    on_every_driver(|case| {
        let server = start(case, Limits::new().write_timeout(Some(TIMEOUT)));
        let Some(client) = small(&server) else { return };
        client.send("give\n");
        let (bytes, has_ended) = read_slowly(&client, TIMEOUT * 6);
        assert!(!has_ended, "it was cut off after {bytes} bytes");
        assert!(bytes > 20_000, "it went on: {bytes} bytes");
        let began = Instant::now();
        while server.stats().closed == 0 && began.elapsed() < TIMEOUT * 8 {
            sleep(TIMEOUT / 10);
        }
        let took = began.elapsed();
        assert!(took < TIMEOUT * 3, "it takes nothing more, and stayed for {took:?}");
    });
}

#[test]
fn a_connection_lingers_while_its_peer_goes_on_taking() {
    on_every_driver(|case| {
        let server = start(case, Limits::new().linger_timeout(TIMEOUT));
        let Some(mut client) = small(&server) else { return };
        client.send("last\n");
        let (bytes, has_ended) = read_slowly(&client, TIMEOUT * 4);
        assert!(!has_ended, "after {bytes} bytes");
        // Had the server let go, this would reset the connection and the rest would be lost.
        client.send("more\n");
        sleep(TIMEOUT / 10);
        assert_eq!(bytes + client.rest().len(), 200_001);
    });
}

#[test]
fn silence_does_not_block_accepting() {
    on_every_driver(|case| {
        let server = start(case, Limits::new().max_connections(Some(5)));
        let mut user = server.connect();
        assert_eq!(user.ask("first"), "first");
        let silent: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        server.has_accepted(5);
        let began = Instant::now();
        for _ in 0..3 {
            let mut new = server.connect();
            assert_eq!(new.ask("let me in"), "let me in");
        }
        let took = began.elapsed();
        assert!(took > Duration::from_millis(800), "a silent one has a second: {took:?}");
        assert!(took < Duration::from_secs(5), "and not much more: {took:?}");
        assert_eq!(user.ask("still here"), "still here");
        drop(silent);
    });
}

#[test]
fn a_client_that_never_asks_is_closed_and_one_that_listens_stays() {
    on_every_driver(|case| {
        let limits = Limits::new().unused_timeout(Some(TIMEOUT));
        let silent = case.start({
            let limits = limits.clone();
            move |server: Server| server.limits(limits).serve_with(ANY, Lines::new(), Works)
        });
        let mut client = silent.connect();
        let began = Instant::now();
        client.send("half");
        assert_eq!(client.rest_text(), "");
        let took = began.elapsed();
        assert!(took >= TIMEOUT.mul_f32(0.9) && took < TIMEOUT * 8, "it took {took:?}");
        let mut used = silent.connect();
        assert_eq!(used.ask("hello"), "hello");
        used.hears_nothing_for(TIMEOUT * 2);
    });
}
