//! What a script waits for when it lets the network settle.

use std::time::Duration;

use nonforker::{
    Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Faults, Simulation},
};

const SECOND: Duration = Duration::from_secs(1);

/// Echoes. Each connection ticks, so often as it says in its first line, and says so.
struct Ticks;

impl Handler for Ticks {
    type Codec = Lines;
    type Session = Duration;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if let Some(seconds) = line.strip_prefix(b"every ") {
            *conn.session_mut() = SECOND * std::str::from_utf8(seconds)?.parse()?;
            conn.after(*conn.session(), Self::timer)?;
        }
        conn.send(line);
        Ok(())
    }

    fn half_closed(&mut self, _conn: &mut Conn<'_, Self>) -> Outcome {
        // It ticks for ever, until the server drains.
        Ok(())
    }
}

impl Ticks {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("tick");
        conn.after(*conn.session(), Self::timer)?;
        Ok(())
    }
}

fn simulation(idle: Option<Duration>) -> Simulation {
    let server = move || {
        let limits = Limits::new().idle_timeout(idle);
        Server::new().limits(limits).serve_with("127.0.0.1:1", Lines::new(), Ticks)
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20)
}

#[test]
fn a_server_that_ticks_is_settled_between_two_ticks() {
    for idle in [None, Some(60 * SECOND)] {
        simulation(idle).run(|net| {
            let client = net.connect();
            client.send("every 1\n");
            for ticks in 0..5 {
                net.settle();
                assert_eq!(net.now().as_secs(), ticks);
                net.wait(SECOND);
            }
            net.wait(SECOND / 2);
            assert_eq!(client.received(), b"every 1\ntick\ntick\ntick\ntick\ntick\n");
        });
    }
}

#[test]
fn what_comes_before_a_tick_is_waited_for() {
    simulation(Some(60 * SECOND)).run(|net| {
        let (idle, slow) = (net.connect(), net.connect());
        slow.set_window(2);
        slow.read_slowly(1, 3 * SECOND);
        slow.send("every 3600\n");
        net.settle();
        assert_eq!(slow.received(), b"every 3600\n");
        assert_eq!((idle.ending(), slow.ending()), (None, None), "who is silent stays");
        // It takes a byte every three seconds.
        assert!((30..40).contains(&net.now().as_secs()), "{:?}", net.now());
    });
}

#[test]
fn a_server_that_is_asked_to_drain_is_settled_when_it_has_ended() {
    simulation(None).run(|net| {
        let client = net.connect();
        client.send("every 3600\n");
        net.settle();
        assert!(!net.has_ended());
        net.drain();
        net.settle();
        assert!(net.has_ended());
        client.expect("every 3600\n");
        client.expect_end();
    });
}
