//! Deadlines, in virtual time: what takes an hour takes a microsecond.

use std::{collections::BTreeMap, panic::resume_unwind, time::Duration};

use nonforker::{
    CloseReason, Conn, ConnId, Handler, Limits, Outcome, Server, TimerId, Urgent,
    codec::Lines,
    sim::{Ending, Faults, Net, Simulation},
};

/// The session of a connection at whose end the handler panics.
const CURSED: u32 = 13;

/// Echoes, ticks, and tells in its log why connections ended.
#[derive(Default)]
struct Clock {
    ticks: u32,
    timers: BTreeMap<ConnId, TimerId>,
}

impl Clock {
    fn forget(&mut self, conn: &mut Conn<'_, Self>) {
        if let Some(timer) = self.timers.remove(&conn.id()) {
            conn.cancel(timer);
        }
    }

    fn set(&mut self, conn: &mut Conn<'_, Self>, after: Duration) -> Outcome {
        self.forget(conn);
        self.timers.insert(conn.id(), conn.after(after, Self::timer)?);
        Ok(())
    }

    fn urgent(&mut self, conn: &mut Conn<'_, Self>, byte: u8) -> Outcome {
        if byte == b'!' { self.frame(conn, b"wait") } else { Ok(()) }
    }
}

impl Handler for Clock {
    type Codec = Lines;
    type Session = u32;
    const URGENT: Option<Urgent<Self>> = Some(Self::urgent);

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"flood" => conn.send(vec![b'x'; 4 << 20]),
            b"later" => self.set(conn, Duration::from_secs(3600))?,
            b"never" => self.forget(conn),
            b"soon" => self.set(conn, Duration::from_millis(3))?,
            b"bye" => conn.close(),
            b"curse" => {
                *conn.session_mut() = CURSED;
                conn.close();
            }
            b"silent" => {}
            b"wait" => {
                conn.pause();
                self.set(conn, Duration::from_secs(100))?;
            }
            line => conn.send(line),
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert!(!matches!(reason, CloseReason::Defect), "a reason is always known");
        if *conn.session() == CURSED {
            // Unlike `panic!` it does not fill the output of the test.
            resume_unwind(Box::new("the handler's fault"));
        }
    }
}

impl Clock {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.ticks += 1;
        conn.resume();
        conn.send("now");
        Ok(())
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
    let limits =
        || Limits::new().idle_timeout(Some(Duration::from_secs(3600))).unused_timeout(None);
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
fn bytes_in_one_direction_are_enough_not_to_be_idle() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(5)));
    Simulation::new(move || server(limits())).faults(|_| Faults::none()).run(|net| {
        let (talks, listens) = (net.connect(), net.connect());
        listens.set_window(1);
        listens.read_slowly(1, Duration::from_secs(4));
        listens.send("ten bytes\n");
        for _ in 0..9 {
            talks.send("silent\n");
            net.wait(Duration::from_secs(4));
            assert_eq!((talks.ending(), listens.ending()), (None, None));
        }
        listens.send("hello\n");
        talks.expect_end();
        assert_eq!(seconds(net), 8 * 4 + 5);
        listens.read_all();
        listens.expect("ten bytes\nhello\n");
    });
}

#[test]
fn a_connection_becomes_idle_though_the_kernel_once_had_no_buffer_for_it() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(5)));
    Simulation::new(move || server(limits())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        net.set_faults(Faults { send_exhausted: 1000, ..Faults::none() });
        client.send("hello\n");
        net.wait(Duration::from_secs(9));
        assert_eq!(client.ending(), None, "it has something to be sent");
        net.set_faults(Faults::none());
        client.expect("hello\n");
        let began = net.now();
        client.expect_end();
        let took = net.now() - began;
        assert!((4900..=5100).contains(&took.as_millis()), "it took {took:?}");
    });
}

#[test]
fn an_urgent_byte_is_enough_not_to_be_idle() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(5)));
    Simulation::new(move || server(limits())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        for _ in 0..5 {
            net.wait(Duration::from_secs(4));
            client.send_urgent(b'?');
        }
        client.expect_end();
        assert_eq!(seconds(net), 5 * 4 + 5);
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
        assert!((31..=32).contains(&seconds(net)), "{} s", seconds(net));

        slow.half_close();
        let (received, ending) = slow.receive_to_end();
        assert_eq!((received.len(), ending), ((4 << 20) + 1, Some(Ending::Finished)));
        assert!(seconds(net) > 60, "it took its time: {} s", seconds(net));
    });
}

#[test]
fn a_client_that_goes_on_asking_and_never_reads_is_cut_off_all_the_same() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.set_window(1);
        client.stall();
        while client.ending().is_none() && seconds(net) < 200 {
            client.send("something\n");
            net.wait(Duration::from_secs(7));
        }
        assert_eq!(client.ending(), Some(Ending::Reset));
        assert!(seconds(net) <= 42, "30 s, seen at the next line: {} s", seconds(net));
    });
}

#[test]
fn a_request_that_waits_for_the_handler_is_not_late() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        for piece in ["wa", "it\nhel", "lo\n"] {
            client.send(piece);
            net.wait(Duration::from_secs(1));
        }
        client.expect("now\nhello\n");
        assert!(seconds(net) >= 100);
    });
}

#[test]
fn half_a_request_is_not_late_while_nobody_listens_for_its_rest() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("hel");
        net.wait(Duration::from_secs(1));
        client.send_urgent(b'!');
        net.wait(Duration::from_secs(1));
        client.send("lo\n");
        client.expect("now\nhello\n");
        assert!(seconds(net) >= 100);
    });
}

#[test]
fn the_time_that_half_a_request_waits_for_the_handler_does_not_count() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("wa");
        // Its deadline falls due right after the pause, in which the next request begins.
        net.wait(Duration::from_millis(29_900));
        client.send("it\nhel");
        net.wait(Duration::from_secs(80));
        client.send_urgent(b'!');
        net.wait(Duration::from_secs(115));
        client.send("lo\n");
        client.expect("now\nhello\n");
    });
}

#[test]
fn the_end_of_the_stream_does_not_overtake_a_pause() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send_urgent(b'!');
        client.half_close();
        client.expect("now\n");
        client.expect_end();
        assert!(seconds(net) >= 100);
    });
}

#[test]
fn a_timer_is_never_early_and_a_millisecond_late_at_most() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        for _ in 0..20 {
            net.wait(Duration::from_nanos(net.rng().below(5_000_000)));
            let began = net.now();
            client.send("soon\n");
            client.expect("now\n");
            let took = net.now() - began;
            assert!((3000..4010).contains(&took.as_micros()), "3 ms took {took:?}");
        }
    });
}

#[test]
fn a_connection_we_closed_is_let_go_though_its_client_never_closes() {
    let ends = ["bye\n", "curse\n"];
    for (end, sends, millis) in
        ends.into_iter().flat_map(|end| [(end, false, 1000), (end, true, 5000)])
    {
        Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).run(|net| {
            let client = net.connect();
            client.send(end);
            net.wait(Duration::from_millis(100));
            let began = net.now();
            while net.stats().closed == 0 && net.now() < Duration::from_secs(60) {
                if sends {
                    client.send("x".repeat(10_000));
                }
                net.wait(Duration::from_millis(50));
            }
            let took = (net.now() - began).as_millis();
            assert!((millis - 110..=millis + 110).contains(&took), "{took} ms, sends: {sends}");
        });
    }
}

#[test]
fn a_closed_client_that_sends_without_end_is_cut_off() {
    Simulation::new(|| server(Limits::new())).faults(|_| Faults::none()).seeds(0..5).run(|net| {
        let client = net.connect();
        client.set_window(1);
        client.stall();
        client.send("reply\nbye\n");
        let began = net.stats().received_bytes;
        for _ in 0..24 {
            client.send(vec![b'x'; 1 << 20]);
            net.wait(Duration::from_millis(100));
        }
        let discarded = net.stats().received_bytes - began;
        assert!(discarded <= 17 << 20, "{discarded} bytes were read for nothing");
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

/// Says something every three seconds, and nothing else.
struct Metronome;

impl Handler for Metronome {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, _: &mut Conn<'_, Self>, _: &[u8]) -> Outcome {
        Ok(())
    }

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.after(Duration::from_secs(3), Self::timer)?;
        Ok(())
    }
}

impl Metronome {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("tick");
        self.open(conn)
    }
}

#[test]
fn what_a_timer_sends_leaves_at_once_and_its_client_is_not_idle() {
    let server = || {
        let limits = Limits::new().idle_timeout(Some(Duration::from_secs(10)));
        Server::new().limits(limits).serve_with("127.0.0.1:1685", Lines::new(), Metronome)
    };
    Simulation::new(server).seeds(0..8).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        for tick in 1..=20 {
            client.expect("tick\n");
            assert_eq!(seconds(net), 3 * tick, "it leaves when it is said");
        }
        client.half_close();
        client.expect_end();
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
