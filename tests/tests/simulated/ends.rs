//! How a handler ends its server.

use std::time::Duration;

use nonforker::{
    Conn, Connections, Handler, Outcome, Server,
    codec::Lines,
    sim::{Ending, Simulation},
};

/// Drains its server when it is asked to, and after an hour.
struct Drains;

impl Handler for Drains {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        all.after(Duration::from_secs(3599), |_, all| all.server().drain())?;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"drain" => conn.server().drain(),
            b"stop" => conn.server().stop(),
            b"frames" => conn.send(conn.server().stats().frames.to_string()),
            line => conn.send(line),
        }
        Ok(())
    }
}

fn server() -> Server {
    Server::new().serve_with("127.0.0.1:1", Lines::new(), Drains)
}

#[test]
fn a_handler_drains_or_stops_its_server() {
    for (line, ending) in [("drain\n", Ending::Finished), ("stop\n", Ending::Reset)] {
        Simulation::new(server).seeds(0..100).run(move |net| {
            let (one, other) = (net.connect(), net.connect());
            other.send("hello\n");
            other.expect("hello\n");
            one.send(line);
            assert_eq!(other.receive_to_end().1, Some(ending), "{line}");
            // A drain waits until it has finished too.
            other.half_close();
            one.half_close();
            net.settle();
            assert!(net.has_ended());
        });
    }
}

#[test]
fn a_timer_of_a_service_drains_its_server() {
    Simulation::new(server).seeds(0..20).run(|net| {
        net.wait(Duration::from_secs(3600));
        assert!(net.has_ended());
    });
}

#[test]
fn a_handler_reads_the_counters() {
    Simulation::new(server).seeds(0..20).run(|net| {
        let client = net.connect();
        client.send("one\n");
        client.expect("one\n");
        client.send("frames\n");
        client.expect("1\n");
    });
}

#[test]
fn a_drain_that_was_asked_for_before_the_server_runs_ends_it_at_once() {
    let server = || {
        let server = server();
        server.handle().drain();
        server
    };
    Simulation::new(server).seeds(0..100).run(|net| {
        net.settle();
        assert!(net.has_ended());
    });
}
