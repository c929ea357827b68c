//! TLS over networks that cut, lose and end as they like: what is decrypted in order is handled once, what
//! is not whole never, and nobody learns anything in clear.

use std::{cell::Cell, time::Duration};

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Overflow, Server,
    codec::Lines,
    sim::{
        Client, Faults, Net, Simulation,
        tls::{self, TlsClient},
    },
};

use crate::tickets;

/// Answers lines, which have to be `line 0`, `line 1` and so on. Panics if anything is out of order.
#[derive(Default)]
struct Witness {
    subscribed: usize,
}

#[derive(Default)]
struct Seen {
    is_open: bool,
    lines: usize,
    started: bool,
}

impl Handler for Witness {
    type Codec = Lines;
    type Session = Seen;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.session_mut().is_open = true;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        assert!(conn.session().is_open, "frames come behind open");
        let line = String::from_utf8_lossy(line).into_owned();
        match line.as_str() {
            "starttls" => {
                assert!(conn.tls().is_none(), "a client says it once");
                conn.session_mut().started = true;
                conn.send("go ahead");
                conn.start_tls()?;
                conn.send("welcome");
                return Ok(());
            }
            "subscribe" => {
                conn.subscribe("news", Overflow::DropOldest)?;
                self.subscribed += 1;
                return Ok(());
            }
            "publish" => {
                let _ = conn.others().publish("news", &[b'n'; 3000][..]);
                return Ok(());
            }
            "pause" => {
                conn.pause();
                conn.after(Duration::from_millis(50), |_, conn| conn.resume())?;
                return Ok(());
            }
            "big" => {
                conn.send(vec![b'b'; 300_000]);
                return Ok(());
            }
            _ => {}
        }
        assert!(conn.tls().is_some(), "{line}: nothing else comes in clear");
        let seen = conn.session_mut();
        assert_eq!(line, format!("line {}", seen.lines), "in order, once, whole");
        seen.lines += 1;
        conn.send(line);
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _: &CloseReason) {
        assert!(conn.session().is_open, "closed comes only behind open");
    }
}

fn limits() -> Limits {
    Limits::new().handshakes_max(3).high_watermark(64 << 10).frames_per_turn(8)
}

fn server() -> Server {
    let tls = || tls::server().expect("it is always the same");
    let codec = || Lines::with_max(4096).accept_unterminated();
    Server::new()
        .limits(limits())
        .serve_with("127.0.0.1:1", codec(), Witness::default())
        .tls(tls())
        .serve_with("127.0.0.1:2", codec(), Witness::default())
        .start_tls_with(tls())
}

/// The replies to the first `count` lines.
fn replies(count: usize) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

/// What came is the beginning of the replies to so many lines.
fn is_beginning(client: &TlsClient, count: usize) -> bool {
    replies(count).as_bytes().starts_with(&client.plain())
}

fn secured(net: &Net, client: Client) -> TlsClient {
    let client =
        if net.rng().chance(300) { TlsClient::older(client) } else { TlsClient::new(client) };
    for _ in 0..100 {
        client.go_on();
        if !client.shakes() {
            break;
        }
        net.wait(Duration::from_millis(100));
    }
    client
}

/// What a client does that a server has to bear.
const DEEDS: usize = 11;

#[expect(clippy::too_many_lines, reason = "it is one list")]
fn deed(net: &Net, deed: usize) {
    let rng = net.rng();
    let lines = 1 + rng.magnitude(40);
    let client = secured(net, net.connect_to(0));
    if client.shakes() {
        // The network was too bad for a handshake.
        return;
    }
    match deed {
        // It asks, in one record or in many, and changes its keys meanwhile.
        0 | 1 => {
            for number in 0..lines {
                if deed == 1 && rng.chance(200) {
                    client.update_keys();
                }
                client.send(format!("line {number}\n"));
                if rng.chance(300) {
                    net.wait(Duration::from_millis(20));
                }
            }
            client.close_notify();
            client.client().half_close();
            client.settle(net);
            assert!(is_beginning(&client, lines));
            if client.has_ended() {
                assert_eq!(client.plain(), replies(lines).as_bytes(), "all was answered");
            }
        }
        // Its stream is cut off, within a record or behind one, within a line or behind one.
        2 => {
            let mut records = client.seal(replies(lines) + "line");
            if rng.chance(500) {
                records.truncate(records.len().saturating_sub(rng.between(1, 20)));
            }
            client.client().send(records);
            client.client().half_close();
            client.settle(net);
            assert!(is_beginning(&client, lines));
        }
        // A byte is flipped in the last record.
        3 => {
            let mut records = client.seal(replies(lines));
            let broken = client.seal(format!("line {lines}\n"));
            let at = records.len() + rng.between(5, broken.len() - 1);
            records.extend(broken);
            records[at] ^= 1 << rng.between(0, 7);
            client.client().send(records);
            client.settle(net);
            assert!(is_beginning(&client, lines));
            let is_whole = client.plain() == replies(lines).as_bytes();
            assert!(is_whole || client.failure().is_none(), "the replies come before the alert");
        }
        // Silence, before and in the middle of its hello, and behind it.
        4 => {
            let silent = TlsClient::new(net.connect_to(0));
            let hello = silent.records();
            silent.client().send(&hello[..rng.between(0, hello.len())]);
            net.wait(Duration::from_secs(30));
            assert!(silent.client().ending().is_some(), "it goes in time");
        }
        // No TLS at all.
        5 => {
            let other = net.connect_to(0);
            other.send("GET / HTTP/1.1\r\n\r\n");
            other.half_close();
            net.wait(Duration::from_secs(10));
            let answer = other.received();
            assert!(answer.is_empty() || answer[0] == 21, "an alert: {answer:?}");
        }
        // It finishes in the middle of a line, and says so: that is the end of the line.
        6 => {
            client.send(replies(lines).trim_end());
            client.close_notify();
            client.settle(net);
            assert!(is_beginning(&client, lines));
        }
        // It subscribes, and others publish what is not copied.
        7 => {
            client.send("subscribe\n");
            let other = secured(net, net.connect_to(0));
            for _ in 0..lines {
                other.send("publish\n");
            }
            client.settle(net);
            let plain = client.plain();
            assert!(plain.iter().all(|byte| b"n\n".contains(byte)), "whole messages");
        }
        // Long replies for who reads slowly, and requests that are held.
        8 => {
            client.client().read_slowly(10_000, Duration::from_millis(100));
            client.send("big\npause\nline 0\nline 1\n");
            client.send("pause\nline 2\n");
            client.settle(net);
            client.client().read_all();
            client.settle(net);
            let plain = client.plain();
            let at = plain.iter().position(|&byte| byte == b'l').unwrap_or(plain.len());
            assert!(replies(3).as_bytes().starts_with(&plain[at..]));
        }
        // It begins in clear.
        _ => {
            let clear = net.connect_to(1);
            let inner = TlsClient::behind(clear, b"go ahead\n".len());
            let mut first = b"starttls\n".to_vec();
            if deed == 9 {
                first.extend(inner.records());
            } else {
                first.extend(b"injected\n");
            }
            inner.client().send(first);
            for _ in 0..100 {
                inner.go_on();
                net.wait(Duration::from_millis(100));
            }
            if deed == 9 {
                inner.send(replies(lines));
            }
            inner.settle(net);
            let expected = "welcome\n".to_owned() + &replies(lines);
            assert!(expected.as_bytes().starts_with(&inner.plain()));
        }
    }
    drop(client);
}

#[test]
fn whatever_clients_do_behind_tls_the_server_keeps_its_promises() {
    let answered = Cell::new(0);
    Simulation::new(server).seeds(0..600).run(|net| {
        deed(net, net.rng().between(0, DEEDS - 1));
        answered.set(answered.get() + net.stats().frames);
        assert_eq!(net.stats().panics, 0, "the witness has seen nothing wrong");
        net.drain_in(Duration::from_secs(20));
    });
    assert!(answered.get() > 2000, "most of it works: {}", answered.get());
}

#[test]
fn without_faults_everything_is_answered() {
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..30).run(|net| {
        let client = secured(net, net.connect_to(0));
        client.send(replies(50));
        client.close_notify();
        client.settle(net);
        assert_eq!(client.failure(), None);
        assert_eq!(client.plain(), replies(50).as_bytes());
        assert!(client.has_ended(), "a close_notify answers its own");

        let client = secured(net, net.connect_to(0));
        client.send(replies(3) + "line");
        client.client().half_close();
        client.settle(net);
        assert_eq!(client.plain(), replies(3).as_bytes(), "the rest is no request");
        assert!(client.has_ended());

        let begun = TlsClient::behind(net.connect_to(1), b"go ahead\n".len());
        begun.client().send([b"starttls\n".to_vec(), begun.records()].concat());
        begun.settle(net);
        begun.send(replies(2));
        begun.settle(net);
        assert_eq!(begun.plain(), ("welcome\n".to_owned() + &replies(2)).as_bytes());

        assert_eq!(net.stats().panics, 0, "the witness has seen nothing wrong");

        // Of four handshakes the oldest ends, and the newest is served.
        let silent: Vec<_> = (0..4)
            .map(|_| {
                let client = net.connect_to(0);
                net.wait(Duration::from_millis(10));
                client
            })
            .collect();
        net.wait(Duration::from_secs(1));
        assert!(silent[0].ending().is_some() && silent[1].ending().is_none());
    });
}

#[test]
fn many_handshakes_at_once_wait_for_their_turn_and_all_are_made() {
    let server = || server().limits(Limits::new());
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..30).run(|net| {
        let clients: Vec<_> = (0..20).map(|_| TlsClient::new(net.connect_to(0))).collect();
        for _ in 0..5 {
            for client in &clients {
                client.go_on();
            }
            net.wait(Duration::from_secs(1));
        }
        clients.iter().for_each(|client| client.send("line 0\n"));
        for client in clients {
            client.settle(net);
            assert_eq!(client.plain(), b"line 0\n");
        }
    });
}

#[test]
fn a_hello_may_come_in_many_records_and_they_may_be_cut_anywhere() {
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..300).run(|net| {
        let rng = net.rng();
        let client = net.connect_to(0);
        let client =
            if rng.chance(500) { TlsClient::older(client) } else { TlsClient::new(client) };
        let hello = client.records();
        let (header, mut message) = hello.split_at(5);
        let most = [1, 3, 40, 300][rng.between(0, 3)];
        let mut records = Vec::new();
        while !message.is_empty() {
            let (part, rest) = message.split_at(rng.between(1, most).min(message.len()));
            records.extend_from_slice(&header[..3]);
            records.extend_from_slice(&u16::try_from(part.len()).expect("short").to_be_bytes());
            records.extend_from_slice(part);
            message = rest;
        }
        let most = [7, 50, 2000][rng.between(0, 2)];
        let mut bytes = &records[..];
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(rng.between(1, most).min(bytes.len()));
            client.client().send(part);
            if rng.chance(700) {
                net.wait(Duration::from_millis(1));
            }
            bytes = rest;
        }
        client.send("line 0\n");
        client.settle(net);
        assert_eq!(client.failure(), None);
        assert_eq!(client.plain(), b"line 0\n");
    });
}

#[test]
fn a_broken_record_ends_a_connection_behind_the_answer_to_an_open_ticket() {
    let server = || tickets::server().tls(tls::server().expect("it is always the same"));
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..100).run(|net| {
        // While a ticket without a place is open, records are opened. An alert takes the next number, so
        // nothing can be sealed to go before it.
        for (ticket, replies, is_answered) in
            [("defer", "one\nanswer\ntwo\n", true), ("loose", "one\ntwo\n", false)]
        {
            let client = secured(net, net.connect());
            let first = client.seal(format!("one\n{ticket}\n"));
            let held = client.seal("two\n");
            let mut broken = client.seal("three\n");
            *broken.last_mut().expect("there is a record") ^= 1;
            for records in [first, held, broken] {
                client.client().send(records);
                if net.rng().chance(500) {
                    net.wait(Duration::from_secs(1));
                }
            }
            net.wait(Duration::from_secs(1));
            let answered = tickets::later().ticket().send("answer");
            client.settle(net);
            assert_eq!(answered.is_ok(), is_answered, "{ticket}");
            assert_eq!(String::from_utf8_lossy(&client.plain()), replies, "{ticket}");
            let failure = client.failure().unwrap_or_default();
            assert!(failure.contains("BadRecordMac"), "{ticket}: {failure}");
        }
    });
}
