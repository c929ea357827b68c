//! Deadlines, in virtual time: what takes an hour takes a microsecond.

use std::time::Duration;

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Ending, Faults, Net, Simulation},
};

/// Echoes, ticks, and tells in its log why connections ended.
#[derive(Default)]
struct Clock {
    ticks: u32,
}

impl Handler<Lines> for Clock {
    type Session = u32;

    fn frame(&mut self, conn: &mut Conn<'_, Lines, u32>, line: &[u8]) -> Outcome {
        match line {
            b"flood" => conn.send(vec![b'x'; 4 << 20]),
            b"later" => conn.set_timer(Duration::from_secs(3600)),
            b"never" => conn.clear_timer(),
            line => conn.send(line),
        }
        Ok(())
    }

    fn timer(&mut self, conn: &mut Conn<'_, Lines, u32>) -> Outcome {
        self.ticks += 1;
        conn.send("now");
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Lines, u32>, reason: &CloseReason) {
        assert!(!matches!(reason, CloseReason::Defect), "a reason is always known");
    }
}

fn server(limits: Limits) -> Server {
    Server::new().limits(limits).serve_with("127.0.0.1:1685", Lines::new(), Clock::default())
}

fn seconds(net: &Net) -> u64 {
    net.now().as_secs()
}

#[test]
fn an_idle_connection_is_closed_after_its_timeout_and_not_before() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(3600)));
    Simulation::new(move || server(limits())).faults(|_| Faults::none()).seeds(0..20).run(|net| {
        let client = net.connect();
        for _ in 0..5 {
            net.wait(Duration::from_secs(3000));
            client.send("still here\n");
            client.expect("still here\n");
        }
        client.expect_end();
        assert_eq!(seconds(net), 5 * 3000 + 3600);
    });
}

#[test]
fn a_frame_has_to_be_complete_in_time_counted_from_its_first_byte() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("one\nt");
        client.expect("one\n");
        // A byte now and then does not help.
        while client.ending().is_none() {
            client.send("x");
            net.wait(Duration::from_secs(1));
        }
        client.expect_end();
        assert_eq!(seconds(net), 31, "30 s, seen at the next byte");
    });
}

#[test]
fn a_slow_sender_whose_frames_become_complete_is_not_cut_off() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        for _ in 0..10 {
            for byte in ["a", "b", "\nc", "d\n"] {
                client.send(byte);
                net.wait(Duration::from_secs(14));
            }
            client.expect("ab\ncd\n");
        }
    });
}

#[test]
fn a_client_that_never_reads_is_cut_off_and_a_slow_one_is_not() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let never = net.connect();
        never.stall();
        never.send("flood\n");
        let slow = net.connect();
        slow.set_window(50_000);
        slow.read_slowly(100_000, Duration::from_secs(10));
        slow.send("flood\n");

        net.wait(Duration::from_secs(29));
        assert_eq!(never.ending(), None, "it has 30 s");
        let (received, ending) = never.receive_to_end();
        assert_eq!((received.len(), ending), (0, Some(Ending::Reset)));
        assert!((30..=31).contains(&seconds(net)), "{} s", seconds(net));

        slow.half_close();
        let (received, ending) = slow.receive_to_end();
        assert_eq!((received.len(), ending), ((4 << 20) + 1, Some(Ending::Finished)));
        assert!(seconds(net) > 60, "it took its time: {} s", seconds(net));
    });
}

#[test]
fn a_timer_comes_once_and_not_after_it_was_cleared() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("later\n");
        client.expect("now\n");
        assert_eq!(seconds(net), 3600);
        client.send("later\nnever\n");
        net.wait(Duration::from_secs(8000));
        assert_eq!(client.received(), b"");
    });
}

#[test]
fn a_drain_ends_at_its_deadline_even_if_somebody_never_reads() {
    Simulation::new(|| server(Limits::new().write_timeout(None))).run(|net| {
        let never = net.connect();
        never.stall();
        never.send("flood\n");
        net.wait(Duration::from_secs(60));
        net.drain();
        let began = net.now();
        let (_, ending) = never.receive_to_end();
        assert_eq!(ending, Some(Ending::Reset));
        let took = net.now().saturating_sub(began);
        assert!(took.as_millis() >= 9900 && took.as_secs() < 12, "it took {took:?}");
    });
}

#[test]
fn the_clock_may_jump() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(5)));
    let faults = |_: &_| Faults { clock_jump: 500, ..Faults::none() };
    Simulation::new(move || server(limits())).faults(faults).seeds(0..200).run(|net| {
        let client = net.connect();
        client.send("later\nx\n");
        let (received, ending) = client.receive_to_end();
        assert!(b"x\n".starts_with(&received), "{received:?}");
        assert_eq!(ending, Some(Ending::Finished));
    });
}
