//! Whose time runs: deadlines measure what a peer does, and not what we do, and progress is what
//! has left. And which connection goes that was never used.

use std::time::Duration;

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation, work},
};

const SECOND: Duration = Duration::from_secs(1);

/// Echoes. `give` is answered with a megabyte; `last` with what fits a link, and a close. `wait`
/// pauses for a minute. `soon` works for 300 ms and then sets a timer of 200 ms.
#[derive(Default)]
struct Mixed {
    greets: bool,
}

impl Handler for Mixed {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if self.greets {
            conn.send("hello");
        }
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"give" => conn.send(vec![b'x'; 1 << 20]),
            b"last" => {
                conn.send(vec![b'x'; 60_000]);
                conn.close();
            }
            b"wait" => {
                conn.pause();
                conn.after(60 * SECOND, Self::timer)?;
            }
            b"soon" => {
                work(Duration::from_millis(300));
                let before = conn.now();
                work(Duration::from_millis(100));
                assert_eq!(conn.now() - before, Duration::from_millis(100), "time goes on");
                conn.after(Duration::from_millis(200), Self::timer)?;
            }
            line => conn.send(line),
        }
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert!(!matches!(reason, CloseReason::Defect), "a reason is always known");
    }
}

impl Mixed {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("now");
        conn.resume();
        Ok(())
    }
}

fn simulation(limits: impl Fn() -> Limits + 'static, greets: bool) -> Simulation {
    let server = move || {
        let handler = Mixed { greets };
        Server::new().limits(limits()).serve_with("127.0.0.1:1685", Lines::new(), handler)
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..24)
}

fn seconds(net: &Net) -> u64 {
    net.now().as_secs()
}

#[test]
fn a_steady_download_goes_on_however_coarse_the_steps_of_the_kernel_are() {
    simulation(Limits::new, false).run(|net| {
        let client = net.connect();
        client.set_window(100_000);
        client.send("give\n");
        client.half_close();
        // A third of the window takes longer than the deadline.
        client.read_slowly(1000, SECOND);
        let (received, ending) = client.receive_to_end();
        assert_eq!((received.len(), ending), ((1 << 20) + 1, Some(Ending::Finished)));
        assert!(seconds(net) > 1000, "it took its time");
    });
}

#[test]
fn a_peer_that_takes_nothing_more_is_cut_off_within_two_deadlines() {
    simulation(Limits::new, false).run(|net| {
        let client = net.connect();
        client.set_window(100_000);
        client.send("give\n");
        client.read_slowly(1000, SECOND);
        net.wait(100 * SECOND);
        assert_eq!(client.ending(), None);
        client.stall();
        let (_, ending) = client.receive_to_end();
        assert_eq!(ending, Some(Ending::Reset));
        assert!((129..=161).contains(&seconds(net)), "{} s", seconds(net));
    });
}

#[test]
fn a_connection_lingers_while_its_peer_goes_on_taking() {
    simulation(Limits::new, false).run(|net| {
        let client = net.connect();
        client.set_window(100_000);
        client.read_slowly(1000, SECOND);
        client.send("last\n");
        for _ in 0..10 {
            // Once the server has let go, this would reset the connection.
            net.wait(5 * SECOND);
            client.send("more\n");
        }
        let (received, ending) = client.receive_to_end();
        assert_eq!((received.len(), ending), (60_001, Some(Ending::Finished)));
    });
}

#[test]
fn what_had_arrived_in_time_counts_however_many_turns_it_takes() {
    let limits = || Limits::new().read_per_turn(16).frame_timeout(Some(SECOND));
    simulation(limits, false).run(|net| {
        let line = format!("{}\n", "x".repeat(5000));
        let clients: Vec<Client> = (0..40).map(|_| net.connect()).collect();
        clients.iter().for_each(|client| client.send("x"));
        net.wait(SECOND / 2);
        clients.iter().for_each(|client| client.send(&line));
        net.away(3 * SECOND);
        clients.iter().for_each(|client| client.expect(format!("x{line}")));
    });
}

#[test]
fn a_peer_that_trickles_does_not_move_its_deadline() {
    let limits = || Limits::new().read_per_turn(16).frame_timeout(Some(SECOND));
    simulation(limits, false).run(|net| {
        let client = net.connect();
        client.send("x");
        net.wait(SECOND / 2);
        client.send("y".repeat(100));
        net.away(SECOND);
        for _ in 0..1000 {
            client.send("z");
            net.wait(Duration::from_micros(100));
        }
        assert_eq!(net.stats().frames, 0);
        assert!(client.ending().is_some(), "what came after its deadline does not count");
    });
}

#[test]
fn the_time_in_which_a_client_waits_for_us_is_not_idle() {
    let limits = || Limits::new().idle_timeout(Some(10 * SECOND));
    simulation(limits, false).run(|net| {
        let client = net.connect();
        client.send("wait\n");
        client.expect("now\n");
        assert_eq!(seconds(net), 60);
        client.expect_end();
        assert_eq!(seconds(net), 70, "from then on it runs");
    });
}

#[test]
fn a_timer_and_the_time_count_from_the_call() {
    simulation(Limits::new, false).run(|net| {
        let client = net.connect();
        client.send("soon\n");
        client.expect("now\n");
        let took = net.now().as_micros();
        assert!((600_000..601_000).contains(&took), "{took} µs");
    });
}

#[test]
fn a_connection_that_is_never_used_is_closed() {
    type Case = (&'static str, bool, fn(&Net, &Client), Option<u64>);
    let cases: [Case; 6] = [
        ("silent", false, |_, _| (), Some(60)),
        ("half a request", false, |_, client| client.send("hel"), Some(30)),
        ("one request", false, |_, client| client.send("hello\n"), None),
        ("greeted", true, |_, _| (), None),
        ("a byte now and then", false, trickles, Some(60)),
        ("paused", false, |_, client| client.send("wait\n"), None),
    ];
    for (name, greets, does, closed_at) in cases {
        let limits = move || {
            let frame = if name == "a byte now and then" { 90 * SECOND } else { 30 * SECOND };
            Limits::new().frame_timeout(Some(frame))
        };
        simulation(limits, greets).run(|net| {
            let client = net.connect();
            does(net, &client);
            net.wait((100 * SECOND).saturating_sub(net.now()));
            assert_eq!(client.ending().is_some(), closed_at.is_some(), "{name}");
        });
        simulation(limits, greets).run(|net| {
            let client = net.connect();
            does(net, &client);
            let Some(closed_at) = closed_at else { return };
            let _ = client.receive_to_end();
            assert!((closed_at..=closed_at + 1).contains(&seconds(net)), "{name}");
        });
    }
}

fn trickles(net: &Net, client: &Client) {
    for _ in 0..12 {
        client.send("x");
        net.wait(5 * SECOND - Duration::from_millis(1));
    }
}

#[test]
fn silence_does_not_block_accepting() {
    for greets in [false, true] {
        let limits = || Limits::new().max_connections(Some(5));
        simulation(limits, greets).run(|net| {
            let user = net.connect();
            user.send("a user\n");
            net.wait(SECOND / 100);
            let silent: Vec<Client> = (0..4)
                .map(|_| {
                    net.wait(SECOND / 10);
                    net.connect()
                })
                .collect();
            net.wait(SECOND / 10);
            let new = net.connect();
            new.send("let me in\n");
            net.wait(SECOND / 2);
            assert_eq!(silent[0].ending(), None, "it has a second");
            net.wait(SECOND / 2);
            assert!(new.received().ends_with(b"let me in\n"), "the oldest silent one has gone");
            assert_eq!(silent[0].ending(), Some(Ending::Reset));
            assert!(silent[1..].iter().all(|client| client.ending().is_none()), "the others stay");
            user.send("still here\n");
            net.wait(SECOND);
            assert!(user.received().ends_with(b"still here\n"), "who asks has its place");
        });
    }
}

#[test]
fn the_clock_may_jump() {
    let limits = || Limits::new().idle_timeout(Some(Duration::from_secs(5)));
    let faults = |_: &_| Faults { clock_jump: 500, ..Faults::none() };
    simulation(limits, false).faults(faults).seeds(0..200).run(|net| {
        let client = net.connect();
        client.send("x\n");
        let (received, ending) = client.receive_to_end();
        assert!(b"x\n".starts_with(&received), "{received:?}");
        assert_eq!(ending, Some(Ending::Finished));
    });
}

#[test]
fn a_script_waits_until_bytes_have_come_and_takes_no_more() {
    let server = || {
        Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| {
            if line == b"close" { conn.close() } else { conn.send(line) }
        })
    };
    let simulation = || Simulation::new(server).seeds(0..100);
    simulation().run(|net| {
        let client = net.connect();
        assert!(client.receive_until("").is_empty(), "nothing is waited for at no time");
        client.send("aab\naaab\nrest\n");
        assert_eq!(client.receive_until("aaab\n"), b"aab\naaab\n");
        assert_eq!(client.receive_until("s"), b"res", "in the middle of a line");
        client.send("more\nclose\n");
        assert_eq!(client.receive_until("more"), b"t\nmore");
        assert_eq!(client.receive_to_end().0, b"\n");
    });
    for (sent, expected) in [
        (
            "one\nclose\n",
            "expected \"two\" (3 bytes) at last, and got \"one\\n\" (4 bytes) (the server has finished)",
        ),
        ("one\n", "got \"one\\n\" (4 bytes) (the server waits for somebody, nothing is under way)"),
    ] {
        let ran = simulation().run_one(0, |net| {
            let client = net.connect();
            client.send(sent);
            client.receive_until("two");
        });
        let failure = ran.expect_err("it never comes").to_string();
        assert!(failure.contains(expected), "{failure}");
    }
}
