//! What is bounded stays bounded: memory, slots, output, turns.

use std::{cell::Cell, rc::Rc, time::Duration};

use nonforker::{
    Conn, ConnId, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Ending, Faults, Net, Simulation},
};

use crate::anybody::send_to;

const LINE: usize = 1000;

/// Echoes; `give N` answers with that many bytes; lines that begin with `all` go to everybody.
#[derive(Default)]
struct Relay(Vec<ConnId>);

impl Handler for Relay {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.0.push(conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if line == b"two" {
            conn.send([b'x'; 5000]);
            conn.send([b'y'; 5000]);
        } else if let Some(count) = line.strip_prefix(b"give ") {
            conn.send(vec![b'x'; std::str::from_utf8(count)?.parse()?]);
        } else if line.starts_with(b"all") {
            self.0.retain(|&id| send_to(conn, id, line).is_ok());
        } else {
            conn.send(line);
        }
        Ok(())
    }
}

fn server(limits: Limits) -> Server {
    Server::new().limits(limits).serve_with("127.0.0.1:1", Lines::with_max(LINE), Relay::default())
}

/// The most bytes one connection may hold: a frame, the high watermark, one reply and one read;
/// twice, since a growing buffer may be twice as large as what is in it, or a warm one that is
/// larger still.
fn bound(high: usize, reply: usize, read: usize) -> u64 {
    const WARM: usize = 2 * 72 * 1024;
    (2 * (LINE + high + reply + read)).max(WARM + read) as u64
}

#[test]
fn a_client_that_never_reads_holds_no_more_than_its_bound() {
    let limits = || Limits::new().high_watermark(5000).low_watermark(1000).read_per_turn(2000);
    Simulation::new(move || server(limits())).seeds(0..300).run(|net| {
        let client = net.connect();
        client.set_window(20_000);
        client.stall();
        for _ in 0..50 {
            client.send("give 700\n".repeat(40));
            net.wait(Duration::from_millis(1));
            let held = net.stats().buffered_bytes;
            assert!(held <= bound(5000, 700, 2000), "{held} bytes are held");
        }
        client.read_all();
        client.half_close();
        let (received, ending) = client.receive_to_end();
        assert_eq!((received.len(), ending), (50 * 40 * 701, Some(Ending::Finished)));
    });
}

#[test]
fn a_flood_of_tiny_requests_is_read_no_faster_than_it_is_handled() {
    let limits = || Limits::new().frames_per_turn(1).read_per_turn(2000);
    let simulation = Simulation::new(move || server(limits())).faults(|_| Faults::none());
    simulation.seeds(0..5).run(|net| {
        let client = net.connect();
        client.send("\n".repeat(150_000));
        for _ in 0..20 {
            net.wait(Duration::from_micros(50));
            let held = net.stats().buffered_bytes;
            assert!(held <= 80_000, "{held} bytes are held");
        }
    });
}

/// An address that several clients come from.
const HOME: [u8; 4] = [192, 0, 2, 1];

#[test]
fn an_address_has_so_many_connections_and_no_more_and_they_come_back() {
    let limits = || Limits::new().max_connections_per_ip(Some(2));
    Simulation::new(move || server(limits())).seeds(0..300).run(|net| {
        for round in 1..=4 {
            let (one, two) = (net.connect_from(HOME), net.connect_from(HOME));
            for client in [&one, &two] {
                client.send("hello\n");
                client.expect("hello\n");
            }
            let three = net.connect_from(HOME);
            assert_eq!(three.receive_to_end().0, b"");
            assert_eq!(net.stats().refused, round);
            let stranger = net.connect();
            stranger.send("hello\n");
            stranger.expect("hello\n");
            stranger.reset();
            for client in [&one, &two] {
                client.half_close();
                client.expect_end();
            }
            // Until the last word about them has come.
            net.wait(Duration::from_secs(10));
        }
    });
}

#[test]
fn one_reply_may_be_larger_than_every_watermark_and_the_next_request_waits() {
    let limits = || Limits::new().high_watermark(100).low_watermark(10).output_cap(100);
    Simulation::new(move || server(limits())).seeds(0..300).run(|net| {
        let client = net.connect();
        client.send("give 100000\ntwo\ngive 50000\nlast\n");
        client.half_close();
        let (received, ending) = client.receive_to_end();
        assert_eq!(
            (received.len(), ending),
            (100_001 + 10_002 + 50_001 + 5, Some(Ending::Finished))
        );
    });
}

#[test]
fn a_client_that_does_not_take_what_others_push_is_cut_off_and_nobody_else() {
    let limits = || {
        let narrow = Limits::new().high_watermark(1000).low_watermark(100).output_cap(3000);
        narrow.write_timeout(None)
    };
    Simulation::new(move || server(limits())).seeds(0..300).run(|net| {
        let (deaf, ears, mouth) = (net.connect(), net.connect(), net.connect());
        for client in [&deaf, &ears, &mouth] {
            client.send("hello\n");
            client.expect("hello\n");
        }
        deaf.stall();
        for client in [&deaf, &ears, &mouth] {
            client.set_window(50_000);
        }
        // More than the window and all watermarks together.
        let line = format!("all {}\n", "x".repeat(900));
        for _ in 0..100 {
            mouth.send(&line);
            mouth.expect(&line);
            ears.expect(&line);
        }
        assert_eq!(deaf.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
    });
}

/// Sends far more than anybody may push, a moment after it was asked to, and notes how much of it
/// was taken.
struct Pours(Rc<Cell<usize>>);

impl Handler for Pours {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        conn.after(Duration::from_millis(1), Self::timer)?;
        Ok(())
    }
}

impl Pours {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        for _ in 0..1000 {
            conn.send([b'x'; 999]);
            self.0.set(self.0.get().max(conn.queued()));
        }
        Ok(())
    }
}

#[test]
fn what_a_timer_says_is_a_push_and_ends_at_the_cap() {
    let taken = Rc::<Cell<usize>>::default();
    let pours = Rc::clone(&taken);
    let server = move || {
        let limits = Limits::new().high_watermark(2000).low_watermark(0).output_cap(3000);
        Server::new().limits(limits).serve_with(
            "127.0.0.1:1",
            Lines::new(),
            Pours(Rc::clone(&pours)),
        )
    };
    Simulation::new(server).run(|net| {
        let client = net.connect();
        client.send("pour\n");
        assert_eq!(client.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        assert_eq!(taken.take(), 6000, "high watermark, cap, and what was too much");
    });
}

#[test]
fn when_memory_runs_out_the_fattest_goes_and_the_rest_are_served() {
    let limits = || {
        let roomy = Limits::new().high_watermark(1 << 20).output_cap(1 << 20);
        roomy.memory_budget(Some(600_000)).write_timeout(None)
    };
    Simulation::new(move || server(limits())).seeds(0..200).faults(|_| Faults::none()).run(|net| {
        let fat: Vec<_> = (0..6).map(|_| net.connect()).collect();
        for (index, client) in fat.iter().enumerate() {
            client.stall();
            client.send(format!("give {}\n", 1_100_000 + index * 100_000));
            net.wait(Duration::from_millis(10));
        }
        net.wait(Duration::from_secs(1));
        assert!(net.stats().buffered_bytes <= 600_000, "{:?}", net.stats());
        let thin = net.connect();
        thin.send("hello\n");
        thin.expect("hello\n");
    });
}

#[test]
fn a_client_that_comes_when_all_slots_are_taken_waits_and_is_served() {
    let limits = || Limits::new().max_connections(Some(2));
    Simulation::new(move || server(limits())).seeds(0..500).run(|net: &Net| {
        let clients: Vec<_> = (0..6).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("hello\n");
        }
        net.wait(Duration::from_secs(5));
        assert!(net.stats().accepted <= 2, "{:?}", net.stats());
        let mut left: Vec<_> = clients.iter().collect();
        // They come in the order in which the network brought them.
        while !left.is_empty() {
            net.wait(Duration::from_secs(5));
            let before = left.len();
            left.retain(|client| {
                let served = client.received() == b"hello\n";
                if served {
                    client.half_close();
                }
                !served
            });
            assert!(left.len() < before, "nobody is served any more: {:?}", net.stats());
        }
    });
}

#[test]
fn every_client_has_an_address_of_its_own() {
    for (address, first, second) in [
        ("127.0.0.1:1", "10.0.0.1:1024", "10.0.0.2:1025"),
        ("[::1]:1", "[fd00::1]:1024", "[fd00::2]:1025"),
        ("unix:/x", "unix", "unix"),
    ] {
        let server = move || {
            Server::new().serve(address, Lines::new(), |conn, _| conn.send(conn.peer().to_string()))
        };
        Simulation::new(server).seeds(0..5).run(|net| {
            for expected in [first, second] {
                let client = net.connect();
                assert_eq!(client.peer().to_string(), expected);
                client.send("who am I?\n");
                client.expect(format!("{expected}\n"));
            }
            let told = net.connect_from([192, 0, 2, 1]);
            let ports = told.peer().to_string().replace("192.0.2.1", "");
            assert!([":1026", "unix"].contains(&ports.as_str()), "{ports}");
        });
    }
}
