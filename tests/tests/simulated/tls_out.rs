//! Connections behind TLS that the server makes, over networks that cut, lose and end as they like.

use std::{cell::Cell, time::Duration};

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server, Target,
    codec::Lines,
    sim::{
        Faults, Net, Simulation,
        tls::{self, TlsClient},
    },
};

const FROM: &str = "127.0.0.1:1";
const RELAY: &str = "127.0.0.1:2";
const TO: &str = "10.9.9.9:7";

/// Connects for each line of a client.
struct Front;

impl Handler for Front {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _: &[u8]) -> Outcome {
        conn.connect::<Caller>(target(), ())?;
        Ok(())
    }
}

/// Says `hello` and then each line that it hears, which have to be `line 0`, `line 1` and so on.
/// Panics if anything is out of order.
struct Caller;

impl Handler for Caller {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        assert!(conn.tls().is_some_and(|tls| tls.peer_certificate().is_some()), "it is verified");
        conn.send("hello");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        assert!(line.starts_with(b"line "), "whole lines");
        conn.send(line);
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let has_failed = matches!(reason, CloseReason::ConnectFailed(_));
        assert_eq!(has_failed, conn.tls().is_none(), "{reason}");
    }
}

fn target() -> Target {
    let target: Target = TO.parse().expect("a target");
    target.tls(tls::client().expect("it is always the same")).expect("it has a name")
}

fn server() -> Server {
    let limits = Limits::new().connect_timeout(Duration::from_secs(5)).write_timeout(None);
    let server = Server::new().limits(limits).serve_with(FROM, Lines::new(), Front);
    server
        .service(Lines::with_max(4096), Caller)
        .relay(RELAY, target())
        .tls(tls::server().expect("it is always the same"))
}

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

/// The handshake, as far as it comes.
fn shake(net: &Net, peer: &TlsClient) {
    for _ in 0..100 {
        peer.go_on();
        if !peer.shakes() || peer.client().ending().is_some() {
            break;
        }
        net.wait(Duration::from_millis(100));
    }
}

fn deed(net: &Net, deed: usize) {
    let (rng, listener) = (net.rng(), net.listen(TO));
    let client = net.connect_to(0);
    client.send("go\n");
    net.wait(Duration::from_secs(2));
    let Some(raw) = listener.accepted() else { return };
    let peer = TlsClient::accepting(raw);
    let count = 1 + rng.magnitude(40);
    if deed < 3 {
        // Silence behind its hello, no TLS at all, an end in the middle of the handshake.
        match deed {
            0 => {}
            1 => peer.client().send("HTTP/1.1 400 Bad Request\r\n\r\n"),
            _ => {
                net.wait(Duration::from_secs(1));
                let _ = peer.go_on();
                peer.client().half_close();
            }
        }
        net.wait(Duration::from_secs(20));
        assert!(deed == 2 || peer.client().ending().is_some(), "it goes in time");
        return;
    }
    shake(net, &peer);
    if peer.shakes() {
        return;
    }
    let said = "hello\n".to_owned() + &lines(count);
    match deed {
        // Lines in many records, and new keys.
        3 => {
            for number in 0..count {
                if rng.chance(200) {
                    peer.update_keys();
                }
                peer.send(format!("line {number}\n"));
            }
            peer.close_notify();
        }
        // Cut off within a record or behind one.
        4 => {
            let mut records = peer.seal(lines(count) + "line");
            if rng.chance(500) {
                records.truncate(records.len().saturating_sub(rng.between(1, 20)));
            }
            peer.client().send(records);
            peer.client().half_close();
        }
        // A byte is flipped in the last record.
        5 => {
            let mut records = peer.seal(lines(count));
            let broken = peer.seal("line x\n");
            let at = records.len() + rng.between(5, broken.len() - 1);
            records.extend(broken);
            records[at] ^= 1 << rng.between(0, 7);
            peer.client().send(records);
        }
        // It finishes in the middle of a line, and says so.
        _ => {
            peer.send(lines(count) + "half");
            peer.close_notify();
        }
    }
    peer.settle(net);
    assert!(said.as_bytes().starts_with(&peer.plain()), "in order, once, whole");
    let is_whole = peer.plain() == said.as_bytes();
    assert!(!peer.has_ended() || is_whole || deed == 4, "all was answered before the end");
}

#[test]
fn whatever_servers_do_behind_tls_the_caller_is_told_the_truth() {
    let answered = Cell::new(0);
    Simulation::new(server).seeds(0..400).run(|net| {
        deed(net, net.rng().between(0, 6));
        answered.set(answered.get() + net.stats().frames);
        assert_eq!(net.stats().panics, 0, "the caller has seen nothing wrong");
        net.drain_in(Duration::from_secs(20));
    });
    assert!(answered.get() > 1500, "most of it works: {}", answered.get());
}

#[test]
fn what_is_relayed_is_sealed_on_both_sides_and_its_end_is_said() {
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..60).run(|net| {
        let rng = net.rng();
        let listener = net.listen(TO);
        let client = TlsClient::new(net.connect_to(1));
        shake(net, &client);
        let behind = TlsClient::accepting(listener.accept());
        shake(net, &behind);
        let (up, down) = (lines(rng.magnitude(3000)), lines(rng.magnitude(3000)));
        client.send(&up);
        behind.send(&down);
        let is_said = rng.chance(500);
        if is_said {
            client.close_notify();
        } else {
            client.client().half_close();
        }
        behind.settle(net);
        client.settle(net);
        assert!(behind.plain() == up.as_bytes() && client.plain() == down.as_bytes());
        assert_eq!(behind.has_ended(), is_said, "a stream that was cut off is one there, too");
        behind.close_notify();
        client.settle(net);
        assert!(client.has_ended());
    });
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    let server = || {
        let tls = tls::client().expect("it is always the same");
        let tls = tls.server_name("other.test").expect("it is a name");
        let target: Target = TO.parse().expect("a target");
        Server::new().relay(FROM, target.tls(tls).expect("it has a name"))
    };
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..5).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect_to(0);
        client.send("a secret");
        let behind = TlsClient::accepting(listener.accept());
        behind.settle(net);
        let why = behind.failure().expect("an alert came");
        assert!(why.contains("alert"), "{why}");
        assert_eq!(behind.plain(), b"");
        client.expect_end();
    });
}
