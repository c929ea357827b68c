//! A server that has stopped ends, whatever its handlers would begin.

use std::time::Duration;

use nonforker::{
    CloseReason, Conn, ConnectError, Connections, Handler, Limits, Outcome, Server, codec::Lines,
    sim::Simulation,
};

const TARGET: &str = "10.9.9.9:7";

/// Connects as it starts, and again whenever that connection ends: at once, or a moment later.
struct Clinging {
    at_once: bool,
}

fn again(all: &mut Connections<'_, Clinging>) -> Outcome {
    match all.connect::<Clinging>(TARGET, true) {
        Err(ConnectError::Ending) => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

impl Handler for Clinging {
    type Codec = Lines;
    /// It was asked for.
    type Session = bool;

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        again(all)
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        conn.close();
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        if *conn.session() && self.at_once {
            again(&mut conn.others()).expect("the service is there");
        } else if *conn.session() {
            let moment = Duration::from_millis(100);
            conn.others().after(moment, |_, all| again(all)).expect("one timer");
        }
    }
}

#[test]
fn what_is_asked_for_again_keeps_no_server_that_drains() {
    let server = || {
        let handler = Clinging { at_once: true };
        Server::new().serve_with("127.0.0.1:1685", Lines::new(), handler)
    };
    Simulation::new(server).seeds(0..50).run(|net| {
        let listener = net.listen(TARGET);
        let back = listener.accept();
        net.drain();
        back.half_close();
        net.wait(Duration::from_secs(60));
        assert!(net.has_ended());
    });
}

#[test]
fn what_is_asked_for_again_and_has_no_place_keeps_nobody_waiting() {
    let server = || {
        let limits = Limits::new().max_connections(Some(2)).unused_timeout(None);
        let handler = Clinging { at_once: true };
        Server::new().limits(limits).serve_with("127.0.0.1:1685", Lines::new(), handler)
    };
    Simulation::new(server).seeds(0..50).run(|net| {
        let listener = net.listen(TARGET);
        let back = listener.accept();
        let (first, second) = (net.connect(), net.connect());
        net.wait(Duration::from_secs(1));
        back.reset();
        net.wait(Duration::from_secs(1));
        for client in [first, second] {
            client.send("bye\n");
            client.expect("bye\n");
            client.half_close();
        }
    });
}

#[test]
fn what_is_asked_for_again_keeps_no_server_that_has_stopped() {
    for at_once in [true, false] {
        let server = move || {
            let handler = Clinging { at_once };
            Server::new().serve_with("127.0.0.1:1685", Lines::new(), handler)
        };
        Simulation::new(server).seeds(0..50).run(|net| {
            let listener = net.listen(TARGET);
            let _back = listener.accept();
            // It has its reply, does not finish, and is waited for.
            let lingering = net.connect();
            lingering.send("bye\n");
            lingering.expect("bye\n");
            net.wait(Duration::from_millis(500));
            net.stop();
            net.wait(Duration::from_secs(10));
            assert!(net.has_ended(), "at once: {at_once}");
        });
    }
}
