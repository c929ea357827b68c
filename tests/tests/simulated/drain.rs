//! How a server ends: what it has is answered, what does not end is cut off.

use std::time::Duration;

use nonforker::{
    Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Ending, Faults, Rng, Simulation},
};

/// Echoes each line a moment later, and takes no other meanwhile.
pub(crate) struct Ponders;

impl Handler for Ponders {
    type Codec = Lines;
    type Session = Vec<u8>;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        *conn.session_mut() = line.to_vec();
        conn.pause();
        conn.after(Duration::from_millis(3), Self::timer)?;
        Ok(())
    }
}

impl Ponders {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let line = std::mem::take(conn.session_mut());
        conn.send(line);
        conn.resume();
        Ok(())
    }
}

#[test]
fn requests_that_wait_for_the_handler_are_answered_before_the_end() {
    let server = || Server::new().serve_with("127.0.0.1:1", Lines::new(), Ponders);
    Simulation::new(server).seeds(0..500).run(|net| {
        let client = net.connect();
        let count = net.rng().between(1, 20);
        let lines: String = (0..count).map(|line| format!("line {line}\n")).collect();
        client.send(&lines);
        client.send("incomplete");
        let limit = net.now() + Duration::from_secs(2);
        while net.stats().received_bytes < lines.len() as u64 && net.now() < limit {
            net.wait(Duration::from_micros(100));
        }
        let received = net.stats().received_bytes;
        net.drain();
        if received >= lines.len() as u64 {
            client.expect(&lines);
            client.expect_end();
        }
    });
}

#[test]
fn requests_that_wait_for_the_client_are_answered_before_the_end() {
    let server = |rng: &Rng| {
        let high = 100 + rng.magnitude(10_000);
        let limits = Limits::new().high_watermark(high).low_watermark(rng.between(0, high));
        let limits = limits.frames_per_turn(1 + rng.magnitude(20));
        // A simulated network may be slower than any real one.
        let limits = limits.drain_timeout(Duration::from_secs(3600));
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
            conn.send(line);
        })
    };
    Simulation::varied(server).seeds(0..500).run(|net| {
        let client = net.connect();
        client.stall();
        let lines: String = (0..100).map(|line| format!("{line:64}\n")).collect();
        client.send(&lines);
        net.wait(Duration::from_secs(5));
        // What waits in the kernel is answered too, unless the network holds it back just then.
        let received = usize::try_from(net.stats().received_bytes).expect("it fits");
        net.drain();
        net.wait(Duration::from_millis(500));
        client.read_all();
        let (answers, ending) = client.receive_to_end();
        assert!(lines.as_bytes().starts_with(&answers), "{answers:?}");
        assert!(answers.len() >= received - received % 65, "{} of {received}", answers.len());
        assert_eq!(ending, Some(Ending::Finished));
    });
}

#[test]
fn a_client_that_never_stops_sending_does_not_keep_the_server() {
    let server = || {
        let limits = Limits::new().read_per_turn(1);
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |_conn, _line| ())
    };
    Simulation::new(server).seeds(0..2).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        // Each byte takes a turn of a microsecond.
        client.send("\n".repeat(400_000));
        net.wait(Duration::from_millis(1));
        net.drain();
        let began = net.now();
        let _ = client.receive_to_end();
        let took = net.now() - began;
        assert!(took < Duration::from_millis(150), "it took {took:?}");
    });
}

#[test]
fn a_stop_does_not_wait_for_anybody() {
    let server = || {
        Server::new()
            .serve("127.0.0.1:1", Lines::new(), |conn, _line| conn.send(vec![b'x'; 4 << 20]))
    };
    Simulation::new(server).run(|net| {
        let never = net.connect();
        never.stall();
        never.send("flood\n");
        net.wait(Duration::from_secs(5));
        net.stop();
        let began = net.now();
        assert_eq!(never.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        let took = net.now() - began;
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    });
}

#[test]
fn a_client_that_is_accepted_too_late_is_sent_away() {
    let server = |rng: &Rng| {
        let limits = Limits::new().max_connections(Some(rng.between(1, 40)));
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
            conn.send(line);
        })
    };
    let faults =
        |_: &Rng| Faults { accept_late: 1000, delay: 500, spurious: 500, ..Faults::none() };
    Simulation::varied(server).seeds(0..200).faults(faults).run(|net| {
        // More than are accepted at a time.
        let clients: Vec<_> = (0..40).map(|_| net.connect()).collect();
        net.wait(Duration::from_micros(net.rng().below(500_000)));
        net.drain();
        let began = net.now();
        for client in clients {
            let _ = client.receive_to_end();
        }
        let took = net.now() - began;
        assert!(took < Duration::from_secs(3), "it took {took:?}");
    });
}

#[test]
fn what_waits_in_the_kernel_behind_backpressure_is_answered() {
    let server = || {
        let limits = Limits::new().high_watermark(200).low_watermark(100).read_per_turn(100);
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
            conn.send(line);
        })
    };
    let faults = |rng: &Rng| {
        let Faults { short_read, short_write, fragment, .. } = Faults::lossless(rng);
        Faults { short_read, short_write, fragment, ..Faults::none() }
    };
    Simulation::new(server).seeds(0..300).faults(faults).run(|net| {
        let client = net.connect();
        client.set_window(500);
        client.stall();
        let lines = "a line of the request\n".repeat(200);
        client.send(&lines);
        net.wait(Duration::from_millis(10));
        assert!(net.stats().received_bytes < lines.len() as u64, "the rest is in the kernel");
        net.drain();
        net.wait(Duration::from_millis(500));
        client.read_all();
        let began = net.now();
        client.expect(&lines);
        client.expect_end();
        let took = net.now() - began;
        assert!(took < Duration::from_secs(1), "it took {took:?} to see that nothing is left");
    });
}

#[test]
fn a_client_that_reads_again_and_never_stops_sending_is_cut_at_half_of_the_deadline() {
    let server = || {
        let limits = Limits::new().read_per_turn(1).drain_timeout(Duration::from_millis(200));
        let limits = limits.high_watermark(100).low_watermark(100);
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
            if !line.is_empty() {
                conn.send(vec![b'x'; 1000]);
            }
        })
    };
    Simulation::new(server).seeds(0..2).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.set_window(10);
        client.stall();
        client.send("give\n");
        net.wait(Duration::from_millis(1));
        net.drain();
        net.wait(Duration::from_millis(10));
        client.set_window(10_000);
        client.read_all();
        // Each byte takes a turn of a microsecond.
        client.send("\n".repeat(300_000));
        let (received, ending) = client.receive_to_end();
        assert_eq!((received.len(), ending), (1001, Some(Ending::Finished)));
    });
}

/// Echoes; `silent` is not answered, `wait` pauses for so many milliseconds.
struct Waits;

impl Handler for Waits {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if let Some(millis) = line.strip_prefix(b"wait ") {
            conn.pause();
            conn.after(Duration::from_millis(std::str::from_utf8(millis)?.parse()?), Self::timer)?;
        } else if line != b"silent" {
            conn.send(line);
        }
        Ok(())
    }
}

impl Waits {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.resume();
        Ok(())
    }
}

fn waits(limits: Limits) -> Server {
    Server::new().limits(limits).serve_with("127.0.0.1:1", Lines::new(), Waits)
}

#[test]
fn a_pipeline_that_has_ended_is_answered_though_the_server_drains() {
    let server = || Server::new().serve_with("127.0.0.1:1", Lines::new(), Ponders);
    Simulation::new(server).seeds(0..300).run(|net| {
        let client = net.connect();
        let lines = "one\ntwo\nthree\nfour\nfive\n";
        client.send(lines);
        client.half_close();
        let limit = net.now() + Duration::from_secs(2);
        while net.stats().received_bytes < lines.len() as u64 && net.now() < limit {
            net.wait(Duration::from_micros(100));
        }
        let received = net.stats().received_bytes;
        net.drain();
        if received >= lines.len() as u64 {
            client.expect(lines);
            client.expect_end();
        }
    });
}

#[test]
fn a_drain_does_not_wait_for_a_client_whose_last_request_has_no_reply() {
    let simulation = Simulation::new(|| waits(Limits::new())).faults(|_| Faults::none());
    simulation.seeds(0..20).run(|net| {
        let client = net.connect();
        client.send("wait 20\nsilent\n");
        net.wait(Duration::from_millis(10));
        net.drain();
        let began = net.now();
        client.expect_end();
        let took = net.now() - began;
        assert!(took < Duration::from_millis(100), "it took {took:?} to see that nothing is left");
    });
}

#[test]
fn a_pipeline_that_waits_beyond_half_of_the_deadline_is_answered_to_its_end() {
    let server = || waits(Limits::new().frames_per_turn(1));
    Simulation::new(server).seeds(0..20).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        let lines = "one\ntwo\nthree\nfour\nfive\n";
        client.send(format!("wait 6000\n{lines}"));
        net.wait(Duration::from_millis(10));
        net.drain();
        client.expect(lines);
        client.expect_end();
        assert!(net.now().as_secs() < 7);
    });
}

#[test]
fn a_client_that_waits_behind_somebodys_large_reply_is_not_cut_meanwhile() {
    let server = || {
        let limits = Limits::new().high_watermark(1000).low_watermark(100).read_per_turn(10);
        Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, _line| {
            conn.send([b'x'; 70_000]);
        })
    };
    Simulation::new(server).seeds(0..20).faults(|_| Faults::none()).run(|net| {
        let clients: Vec<_> = (0..5).map(|_| net.connect()).collect();
        for client in &clients {
            client.set_window(10);
            client.stall();
            client.send("one\ntwo\nthree\nfour\nfive\n");
        }
        net.wait(Duration::from_millis(10));
        net.drain();
        net.wait(Duration::from_millis(10));
        for client in &clients {
            client.set_window(1 << 20);
            client.read_all();
        }
        for client in &clients {
            let (received, ending) = client.receive_to_end();
            assert_eq!((received.len(), ending), (5 * 70_001, Some(Ending::Finished)));
        }
    });
}
