//! Timers of handlers, of a connection and of a whole service: each is called when it is due, in
//! order, and not after it was cancelled.

use std::{
    cell::RefCell,
    panic::resume_unwind,
    rc::Rc,
    time::{Duration, Instant},
};

use nonforker::{
    Conn, Connections, Handler, Limits, Outcome, Server, TimerId,
    codec::Lines,
    sim::{Ending, Faults, Simulation, work},
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const HOUR: Duration = Duration::from_secs(3600);

/// What timers said, and at which millisecond.
type Log = Rc<RefCell<Vec<(String, u128)>>>;

/// What is done as the server begins, and as a connection opens.
type Started = fn(&mut Does, &mut Connections<'_, Does>) -> Outcome;
type Open = fn(&mut Does, &mut Conn<'_, Does>) -> Outcome;

/// Echoes, works so many milliseconds for a line `work 350`, and sets the timers that it is given. A
/// line `later` is answered by a timer of the service.
struct Does {
    started: Started,
    open: Open,
    began: Option<Instant>,
    timers: Vec<TimerId>,
    log: Log,
}

impl Does {
    fn note(&self, what: impl ToString, now: Instant) {
        let since = self.began.map_or(Duration::MAX, |began| now - began);
        self.log.borrow_mut().push((what.to_string(), since.as_millis()));
    }
}

impl Handler for Does {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        self.began = Some(all.now());
        (self.started)(self, all)
    }

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        (self.open)(self, conn)
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if line == b"later" {
            let answer = |_: &mut Self, all: &mut Connections<'_, Self>| {
                all.for_each(|other| other.send("now"));
            };
            conn.others().after(millis(10), answer)?;
            return Ok(());
        }
        if let Some(time) = line.strip_prefix(b"work ") {
            work(millis(std::str::from_utf8(time)?.parse()?));
        }
        conn.send(line);
        Ok(())
    }
}

/// A server with these timers, on a network on which nothing goes wrong, and what they say.
fn simulation(started: Started, open: Open) -> (Simulation, Log) {
    let log = Log::default();
    let told = Rc::clone(&log);
    let server = move || {
        told.borrow_mut().clear();
        let log = Rc::clone(&told);
        let does = Does { started, open, began: None, timers: Vec::new(), log };
        let limits = Limits::new().unused_timeout(None);
        Server::new().limits(limits).serve_with("127.0.0.1:1", Lines::new(), does)
    };
    (Simulation::new(server).faults(|_| Faults::none()).seeds(0..10), log)
}

fn said(log: &Log) -> Vec<(String, u128)> {
    log.borrow().clone()
}

/// Takes what was said, as it was said: without the time.
fn words(log: &Log) -> Vec<String> {
    log.take().into_iter().map(|(what, _)| what).collect()
}

/// The timers of a service do what those of a connection do.
const fn either(started: Started, open: Open) -> [(&'static str, Started, Open); 2] {
    [("of the service", started, |_, _| Ok(())), ("of a connection", |_, _| Ok(()), open)]
}

const TICKS: [(&str, Started, Open); 2] = either(
    |_, all| {
        all.every(millis(100), |does, all| does.note("tick", all.now()))?;
        Ok(())
    },
    |_, conn| {
        conn.every(millis(100), |does, conn| does.note("tick", conn.now()))?;
        Ok(())
    },
);

#[test]
fn a_repeated_timer_keeps_in_step_and_leaves_out_what_was_missed() {
    for (whose, started, open) in TICKS {
        let (simulation, log) = simulation(started, open);
        simulation.run(|net| {
            let client = net.connect();
            net.wait(millis(220));
            client.send("work 350\n");
            client.expect("work 350\n");
            net.wait(millis(180));
            let times: Vec<_> = log.take().into_iter().map(|(_, at)| at).collect();
            assert_eq!(times, [100, 200, 570, 600, 700], "{whose}");
        });
    }
}

#[test]
fn a_service_ticks_although_nobody_is_there() {
    let (_, started, open) = TICKS[0];
    let (simulation, log) = simulation(started, open);
    simulation.run(|net| {
        net.wait(Duration::from_secs(10));
        assert_eq!(log.take().len(), 99, "and the hundredth is due");
    });
}

#[test]
fn a_timer_of_the_service_that_a_connection_sets_comes_in_time() {
    let (simulation, _) = simulation(|_, _| Ok(()), |_, _| Ok(()));
    simulation.run(|net| {
        let client = net.connect();
        client.set_window(100);
        client.send("hello\n");
        client.expect("hello\n");
        net.wait(Duration::from_secs(1));
        let began = net.now();
        client.send("later\n");
        client.expect("now\n");
        let took = net.now() - began;
        assert!((10_000..11_000).contains(&took.as_micros()), "it took {took:?}");
    });
}

#[test]
fn timers_are_called_by_their_time_and_of_the_same_time_as_they_were_set() {
    let cases = either(
        |_, all| {
            for (after, what) in [(HOUR, "late"), (millis(20), "one"), (millis(20), "two")] {
                all.after(after, move |does, all| does.note(what, all.now()))?;
            }
            all.every(millis(20), |does, all| does.note("three", all.now()))?;
            all.after(millis(10), |does, all| does.note("zero", all.now()))?;
            Ok(())
        },
        |_, conn| {
            for (after, what) in [(HOUR, "late"), (millis(20), "one"), (millis(20), "two")] {
                conn.after(after, move |does, conn| does.note(what, conn.now()))?;
            }
            conn.every(millis(20), |does, conn| does.note("three", conn.now()))?;
            conn.after(millis(10), |does, conn| does.note("zero", conn.now()))?;
            Ok(())
        },
    );
    for (whose, started, open) in cases {
        for works in [false, true] {
            let (simulation, log) = simulation(started, open);
            simulation.run(|net| {
                let client = net.connect();
                if works {
                    client.send("work 30\n");
                }
                net.wait(millis(35));
                let expected = match works {
                    false => [("zero", 10), ("one", 20), ("two", 20), ("three", 20)],
                    true => [("zero", 30), ("one", 30), ("two", 30), ("three", 30)],
                };
                let expected = expected.map(|(what, at)| (what.to_owned(), at));
                assert_eq!(said(&log), expected, "{whose}, {works}");
                client.send("hello\n");
            });
        }
    }
}

#[test]
fn a_timer_that_was_cancelled_is_not_called() {
    let cases = either(
        |does, all| {
            let cancels = all.after(millis(10), |does, all| {
                let first = does.timers[1];
                let were = [all.cancel(does.timers[0]), all.cancel(first), all.cancel(first)];
                does.note(format!("{were:?}"), all.now());
            })?;
            let cancelled = all.after(millis(10), |does, all| does.note("never", all.now()))?;
            let stops = all.every(millis(15), |does, all| {
                let calls = does.log.borrow().len();
                let is_waiting = calls > 1 && all.cancel(does.timers[2]);
                does.note(is_waiting, all.now());
            })?;
            does.timers = vec![cancels, cancelled, stops];
            Ok(())
        },
        |does, conn| {
            let cancels = conn.after(millis(10), |does, conn| {
                let first = does.timers[1];
                let were = [conn.cancel(does.timers[0]), conn.cancel(first), conn.cancel(first)];
                does.note(format!("{were:?}"), conn.now());
            })?;
            let cancelled = conn.after(millis(10), |does, conn| does.note("never", conn.now()))?;
            let stops = conn.every(millis(15), |does, conn| {
                let calls = does.log.borrow().len();
                let is_waiting = calls > 1 && conn.cancel(does.timers[2]);
                does.note(is_waiting, conn.now());
            })?;
            does.timers = vec![cancels, cancelled, stops];
            Ok(())
        },
    );
    for (whose, started, open) in cases {
        let (simulation, log) = simulation(started, open);
        simulation.run(|net| {
            let client = net.connect();
            net.wait(Duration::from_secs(1));
            client.send("hello\n");
            client.expect("hello\n");
            assert_eq!(words(&log), ["[false, true, false]", "false", "true"], "{whose}");
        });
    }
}

#[test]
fn there_may_be_so_many_timers_and_no_more() {
    let cases = either(
        |does, all| {
            while let Ok(timer) = all.after(HOUR, |_, _| ()) {
                does.timers.push(timer);
            }
            let again = [all.cancel(does.timers[3]), all.after(HOUR, |_, _| ()).is_ok()];
            does.note(does.timers.len(), all.now());
            does.note(format!("{again:?}"), all.now());
            Ok(())
        },
        |does, conn| {
            while let Ok(timer) = conn.after(HOUR, |_, _| ()) {
                does.timers.push(timer);
            }
            let again = [conn.cancel(does.timers[3]), conn.after(HOUR, |_, _| ()).is_ok()];
            does.note(does.timers.len(), conn.now());
            does.note(format!("{again:?}"), conn.now());
            Ok(())
        },
    );
    for ((whose, started, open), most) in cases.into_iter().zip(["1000", "16"]) {
        let (simulation, log) = simulation(started, open);
        simulation.run(|net| {
            let client = net.connect();
            client.send("hello\n");
            client.expect("hello\n");
            assert_eq!(words(&log), [most, "[true, true]"], "{whose}");
        });
    }
}

/// A way for a timer to end its connection, how the client sees that, and how many panics it makes.
type End = (&'static str, fn(&mut Conn<'_, Does>) -> Outcome, Ending, u64);

const ENDS: [End; 4] = [
    (
        "closes",
        |conn| {
            conn.close();
            Ok(())
        },
        Ending::Finished,
        0,
    ),
    (
        "aborts",
        |conn| {
            conn.abort();
            Ok(())
        },
        Ending::Reset,
        0,
    ),
    ("fails", |_| Err("the handler's fault".into()), Ending::Finished, 0),
    ("panics", |_| panics(), Ending::Finished, 1),
];

/// Unlike `panic!` it does not fill the output of the test.
fn panics() -> ! {
    resume_unwind(Box::new("the handler's fault"))
}

#[test]
fn behind_a_timer_that_ends_its_connection_no_other_is_called() {
    let opens: [Open; 4] = [
        |_, conn| ends(conn, 0),
        |_, conn| ends(conn, 1),
        |_, conn| ends(conn, 2),
        |_, conn| ends(conn, 3),
    ];
    for (open, (how, _, ending, panics)) in opens.into_iter().zip(ENDS) {
        let (simulation, log) = simulation(|_, _| Ok(()), open);
        simulation.run(|net| {
            let client = net.connect();
            assert_eq!(client.receive_to_end(), (Vec::new(), Some(ending)), "{how}");
            client.half_close();
            net.wait(Duration::from_secs(1));
            assert_eq!(words(&log), ["before"], "{how}");
            assert_eq!(net.stats().panics, panics, "{how}");
        });
    }
}

fn ends(conn: &mut Conn<'_, Does>, way: usize) -> Outcome {
    conn.after(millis(10), |does, conn| does.note("before", conn.now()))?;
    conn.after(millis(10), move |_, conn| (ENDS[way].1)(conn))?;
    conn.after(millis(10), |does, conn| does.note("behind", conn.now()))?;
    conn.every(millis(10), |does, conn| does.note("and again", conn.now()))?;
    Ok(())
}

#[test]
fn a_timer_of_a_service_that_fails_or_panics_harms_nobody() {
    let started: Started = |_, all| {
        all.after(millis(10), |_, _| -> Outcome { Err("the handler's fault".into()) })?;
        all.after(millis(20), |_, _| -> Outcome { panics() })?;
        all.every(millis(100), |does, all| -> Outcome {
            does.note("tick", all.now());
            panics()
        })?;
        Ok(())
    };
    let (simulation, log) = simulation(started, |_, _| Ok(()));
    simulation.run(|net| {
        let client = net.connect();
        net.wait(millis(350));
        client.send("hello\n");
        client.expect("hello\n");
        assert_eq!(words(&log), ["tick", "tick", "tick"]);
        assert_eq!(net.stats().panics, 4);
    });
}

#[test]
fn timers_do_not_hold_up_a_drain_and_are_not_called_after_it() {
    for (whose, started, open) in TICKS {
        let (simulation, log) = simulation(started, open);
        simulation.run(|net| {
            let client = net.connect();
            net.wait(millis(350));
            net.drain();
            client.expect_end();
            client.half_close();
            net.settle();
            assert!(net.has_ended() && net.now() < millis(600), "{whose}: {:?}", net.now());
            log.borrow_mut().clear();
            net.wait(Duration::from_secs(10));
            assert_eq!(said(&log), [], "{whose}");
        });
    }
}
