//! Every operation that can fail is made to fail, one after the other, once and for ever. The
//! simulation checks that nothing is forgotten and that nothing is left in the end.

use std::time::Duration;

use nonforker::{Limits, Server, codec::Lines, sim::Simulation};

fn echo() -> Server {
    let limits = Limits::new().high_watermark(100).low_watermark(10).frames_per_turn(2);
    let idle = limits.idle_timeout(Some(Duration::from_secs(60)));
    Server::new().limits(idle).serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
}

#[test]
fn whatever_fails_costs_a_connection_and_no_more() {
    let operations = Simulation::new(echo).torture(|net| {
        let clients: Vec<_> = (0..4).map(|_| net.connect()).collect();
        let sent = "a line\nanother line, which is longer\n\n".repeat(10);
        for client in &clients {
            client.set_window(50);
            client.send(&sent);
            net.wait(Duration::from_millis(1));
        }
        for client in &clients {
            client.half_close();
            let (received, _) = client.receive_to_end();
            assert!(sent.as_bytes().starts_with(&received), "somebody got what they did not send");
        }
    });
    assert!(operations > 50, "only {operations} operations were made to fail");
}

#[test]
fn a_drain_survives_whatever_fails_in_it() {
    Simulation::new(echo).torture(|net| {
        let clients: Vec<_> = (0..3).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("one\ntwo\nthree\n");
        }
        net.drain();
        for client in &clients {
            let (received, _) = client.receive_to_end();
            assert!(b"one\ntwo\nthree\n".starts_with(&received[..]), "{received:?}");
        }
    });
}
