//! TLS: an echo behind it, and a relay with TLS on both sides. What each side gets is a beginning of what
//! was said to it, and whole where its end was said, whatever is done to the records.

use std::time::Duration;

use nonforker::{
    RelayFaults, Server, Target,
    codec::Lines,
    sim::{
        Client, Net, Rng,
        tls::{self, TlsClient},
    },
};

use super::{line, narrow_for_relays};

/// Where the relay is, and its target.
const RELAY: &str = "127.0.0.1:1686";
const TARGET: &str = "10.0.0.1:1";

/// An echo and a relay with limits that differ from seed to seed. The relay is slow on purpose in some.
pub(super) fn server(rng: &Rng) -> Server {
    let limits = narrow_for_relays(rng);
    let server = Server::new().limits(limits.handshakes_max(rng.between(2, 9)));
    let made = (tls::server(), tls::client(), TARGET.parse::<Target>());
    let (Ok(tls), Ok(own), Ok(target)) = made else { return server };
    let Ok(relay) = target.tls(own).map(nonforker::Relay::from) else { return server };
    let relay = match rng.chance(300) {
        true => {
            let latency = Duration::from_millis(rng.below(50));
            let faults = RelayFaults::new().latency(Duration::ZERO, latency).seed(rng.next());
            relay.faults(faults.slice(1, 1 + rng.magnitude(4000)))
        }
        false => relay,
    };
    server
        .serve(super::ADDRESS, Lines::new(), |conn, line| conn.send(line))
        .tls(tls.clone())
        .relay(RELAY, relay)
        .tls(tls)
}

/// One end of TLS, what it has said, and whether that is all that it says.
struct End {
    tls: TlsClient,
    said: Vec<u8>,
    has_ended: bool,
    is_broken: bool,
}

impl End {
    fn of(tls: TlsClient) -> Self {
        Self { tls, said: Vec::new(), has_ended: false, is_broken: false }
    }

    fn client(net: &Net, client: Client) -> Self {
        let old = net.rng().chance(200);
        Self::of(if old { TlsClient::older(client) } else { TlsClient::new(client) })
    }

    /// Does one of the things that a peer does, good and bad.
    fn act(&mut self, net: &Net) {
        let rng = net.rng();
        self.tls.go_on();
        if self.tls.shakes() || self.has_ended || self.is_broken {
            return;
        }
        let (tls, client) = (&self.tls, self.tls.client());
        match rng.below(40) {
            0 => tls.update_keys(),
            // The end, in the middle of a line.
            1 => {
                let half = &line(&rng)[..1];
                self.said.extend_from_slice(half);
                tls.send(half);
                tls.close_notify();
                self.has_ended = true;
            }
            2 => {
                tls.close_notify();
                self.has_ended = true;
            }
            // A stream that is cut off, within a record.
            3 => {
                let lost = line(&rng);
                let mut records = tls.seal(&lost);
                records.truncate(records.len() - 1);
                client.send(records);
                client.half_close();
                self.is_broken = true;
            }
            // A flipped bit.
            4 => {
                let lost = line(&rng);
                let mut records = tls.seal(&lost);
                let at = rng.between(5, records.len() - 1);
                records[at] ^= 1 << rng.between(0, 7);
                client.send(records);
                self.is_broken = true;
            }
            5 if rng.chance(250) => {
                client.reset();
                self.is_broken = true;
            }
            // Records cut anywhere.
            6..10 => {
                let next = line(&rng);
                let records = tls.seal(&next);
                let (first, second) = records.split_at(rng.between(0, records.len()));
                client.send(first);
                let pause = rng.below(50);
                net.wait(Duration::from_millis(pause));
                client.send(second);
                self.said.extend(next);
            }
            10..20 => {
                let next = line(&rng);
                tls.send(&next);
                self.said.extend(next);
            }
            _ => {}
        }
    }
}

/// Peers that are none: silence behind half a hello, and another protocol.
fn strangers(net: &Net, to: usize) {
    let rng = net.rng();
    if rng.chance(300) {
        let silent = TlsClient::new(net.connect_to(to));
        let hello = silent.records();
        silent.client().send(&hello[..rng.between(0, hello.len())]);
    }
    if rng.chance(300) {
        net.connect_to(to).send("GET / HTTP/1.1\r\n\r\n");
    }
}

/// They come, talk, and leave in all ways; then all that each of them got has to be what was said to it.
pub(super) fn script(net: &Net) {
    let rng = net.rng();
    let listener = net.listen(TARGET);
    let mut echoed: Vec<End> =
        (0..rng.between(1, 3)).map(|_| End::client(net, net.connect_to(0))).collect();
    let mut joined: Vec<End> =
        (0..rng.between(0, 2)).map(|_| End::client(net, net.connect_to(1))).collect();
    let mut behind: Vec<End> = Vec::new();
    let mut has_drained = false;
    strangers(net, 0);
    strangers(net, 1);
    for _ in 0..rng.between(5, 40) {
        let pause = rng.below(200);
        net.wait(Duration::from_millis(pause));
        while let Some(client) = listener.accepted() {
            behind.push(End::of(TlsClient::accepting(client)));
        }
        for end in echoed.iter_mut().chain(&mut joined).chain(&mut behind) {
            end.act(net);
        }
        if rng.below(100) == 0 {
            net.drain();
            has_drained = true;
        }
    }
    for _ in 0..120 {
        net.wait(Duration::from_secs(1));
        for end in echoed.iter().chain(&joined).chain(&behind) {
            end.tls.go_on();
        }
    }
    for End { tls, .. } in echoed.iter().chain(&joined).chain(&behind) {
        let failure = tls.failure().unwrap_or_default();
        assert!(!failure.contains("behind the end"), "{failure}");
    }
    for End { tls, said, .. } in &echoed {
        let got = tls.plain();
        // The last line may have had no end.
        let is_beginning = got.iter().zip(said).all(|(got, said)| got == said);
        assert!(is_beginning && got.len() <= said.len() + 1, "an echo says what it did not hear");
    }
    let is_of = |end: &End, ends: &[End]| {
        let got = end.tls.plain();
        got.is_empty() || ends.iter().any(|other| other.said.starts_with(&got))
    };
    assert!(joined.iter().all(|end| is_of(end, &behind)), "a client got what nobody sent");
    assert!(behind.iter().all(|end| is_of(end, &joined)), "a server got what nobody sent");
    for end in joined.iter().chain(&behind).filter(|end| end.tls.has_ended()) {
        let others =
            if joined.iter().any(|other| std::ptr::eq(other, end)) { &behind } else { &joined };
        let got = end.tls.plain();
        let is_whole = others.iter().any(|other| other.has_ended && other.said == got);
        assert!(is_whole || got.is_empty() || has_drained, "an end was said that was none");
    }
}
