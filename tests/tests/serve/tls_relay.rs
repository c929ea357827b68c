//! Relays between what is encrypted and what is not.

use std::thread;

use nonforker::Server;
use rustls::ALL_VERSIONS;

use crate::{
    client::Client,
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    relaying::upstream,
    tls::NAME,
    tls_client::{Authority, TlsClient},
    tls_out::{named, target},
};

/// What a relay between these two is, and both ends of a connection through it.
fn joined(case: &Case, secured: (bool, bool), authority: &Authority) -> (Running, End, End) {
    let (listener, address) = upstream();
    let config = authority.signs(&[NAME], |_| ()).server(ALL_VERSIONS);
    let to = match secured.1 {
        true => target(&address, named(authority)),
        false => address.parse().expect("a target"),
    };
    let tls = secured.0.then(|| authority.tls(&[NAME]));
    let server = case.start(move |server| {
        let server = server.relay(ANY, to);
        match tls {
            Some(tls) => server.tls(tls),
            None => server,
        }
    });
    let client_config = std::sync::Arc::new(authority.client(ALL_VERSIONS, None));
    let client = match secured.0 {
        true => {
            let mut client = TlsClient::connect(server.address(), &client_config, NAME);
            client.shake().expect("they agree");
            End::Tls(Box::new(client))
        }
        false => End::Clear(server.connect()),
    };
    let behind = match secured.1 {
        true => {
            let mut behind = TlsClient::accepted(&listener, &config);
            behind.shake().expect("they agree");
            End::Tls(Box::new(behind))
        }
        false => End::Clear(Client::accepted(&listener)),
    };
    (server, client, behind)
}

/// An end of a relayed connection.
enum End {
    Clear(Client),
    Tls(Box<TlsClient>),
}

impl End {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Clear(client) => client.send(bytes),
            Self::Tls(client) => client.send(bytes),
        }
    }

    fn exactly(&mut self, count: usize) -> Vec<u8> {
        match self {
            Self::Clear(client) => client.exactly(count),
            Self::Tls(client) => client.exactly(count),
        }
    }

    /// It sends no more.
    fn finish(&mut self) {
        match self {
            Self::Clear(client) => client.half_close(),
            Self::Tls(client) => client.close_notify(),
        }
    }

    /// Its stream ends, and it was not said that it would.
    fn is_cut(&mut self) {
        match self {
            Self::Clear(client) => client.half_close(),
            Self::Tls(client) => client.raw.half_close(),
        }
    }

    /// Everything to the end, and whether that was said.
    fn rest(&mut self) -> (Vec<u8>, bool) {
        match self {
            Self::Clear(client) => (client.rest(), true),
            Self::Tls(client) => client.try_rest().expect("an end"),
        }
    }

    fn raw(&self) -> &Client {
        match self {
            Self::Clear(client) => client,
            Self::Tls(client) => &client.raw,
        }
    }
}

const WAYS: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

#[test]
fn a_relay_joins_what_is_encrypted_with_what_is_not() {
    on_every_driver(|case| {
        let authority = Authority::new();
        for secured in WAYS {
            let (server, mut client, mut behind) = joined(case, secured, &authority);
            for round in 0..20 {
                let (up, down) = (format!("up {round}"), format!("down {round}"));
                client.send(up.as_bytes());
                assert_eq!(behind.exactly(up.len()), up.as_bytes());
                behind.send(down.as_bytes());
                assert_eq!(client.exactly(down.len()), down.as_bytes());
            }
            client.finish();
            assert_eq!(behind.rest(), (Vec::new(), true), "{secured:?}");
            behind.send(b"the last");
            assert_eq!(client.exactly(8), b"the last", "{secured:?}");
            behind.finish();
            assert_eq!(client.rest(), (Vec::new(), true), "{secured:?}");
            drop((client, behind));
            server.holds(0);
        }
    });
}

#[test]
fn an_end_that_was_not_said_is_passed_on_as_one() {
    on_every_driver(|case| {
        let authority = Authority::new();
        for secured in WAYS {
            for by_client in [true, false] {
                let (server, client, behind) = joined(case, secured, &authority);
                let (mut one, mut other) =
                    if by_client { (client, behind) } else { (behind, client) };
                let is_encrypted = matches!(one, End::Tls(_));
                one.send(b"half of it");
                assert_eq!(other.exactly(10), b"half of it");
                one.is_cut();
                let is_said = !is_encrypted || matches!(other, End::Clear(_));
                assert_eq!(other.rest(), (Vec::new(), is_said), "{secured:?}, {by_client}");
                other.send(b"still");
                assert_eq!(one.exactly(5), b"still", "{secured:?}, {by_client}");
                other.finish();
                assert_eq!(one.rest(), (Vec::new(), true), "{secured:?}, {by_client}");
                drop((one, other));
                server.holds(0);
            }
        }
    });
}

#[test]
fn megabytes_go_both_ways_encrypted_and_who_does_not_read_holds_them_up() {
    on_every_driver(|case| {
        const COUNT: usize = 2 << 20;
        let authority = Authority::new();
        for secured in WAYS {
            let (server, client, behind) = joined(case, secured, &authority);
            let ends = [(client, 7, 11), (behind, 11, 7)];
            let pattern = |seed: usize| -> Vec<u8> {
                (0..COUNT).map(|at| ((at / 3).wrapping_mul(seed) >> 5).to_le_bytes()[0]).collect()
            };
            let threads = ends.map(|(mut end, own, other)| {
                thread::spawn(move || {
                    let records = match &mut end {
                        End::Clear(_) => pattern(own),
                        End::Tls(client) => client.seal(pattern(own)),
                    };
                    let twin = end.raw().twin();
                    let sender = thread::spawn(move || twin.send(records));
                    let got = end.exactly(COUNT);
                    assert!(got == pattern(other), "{} of {COUNT} bytes", got.len());
                    sender.join().expect("everything is taken");
                    end.finish();
                    assert_eq!(end.rest(), (Vec::new(), true));
                })
            });
            for thread in threads {
                thread.join().expect("everything arrives");
            }
            server.holds(0);

            let (server, client, behind) = joined(case, secured, &authority);
            let mut client = client;
            let bytes = vec![b'x'; 24 << 20];
            let records = match &mut client {
                End::Clear(_) => bytes,
                End::Tls(client) => client.seal(&bytes),
            };
            let sent = client.raw().stuff(&records);
            assert!(sent < 16 << 20, "{sent} bytes were taken for a peer that reads none");
            let held = server.stats().buffered_bytes;
            assert!(held < 512 << 10, "{held} bytes are held");
            let End::Clear(raw) = client else {
                drop((client, behind));
                server.holds(0);
                continue;
            };
            raw.reset();
            drop(behind);
            server.holds(0);
        }
    });
}

#[test]
fn the_system_trusts_nobody_that_it_does_not_know() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let config = authority.signs(&["localhost"], |_| ()).server(ALL_VERSIONS);
        let (listener, address) = upstream();
        let port = address.rsplit_once(':').expect("a port").1;
        let server = {
            let to = format!("tls://localhost:{port}");
            case.start(move |server: Server| server.relay(ANY, to))
        };
        let mut client = server.connect();
        let mut peer = TlsClient::accepted(&listener, &config);
        let shaken = peer.shake().and_then(|()| peer.step());
        assert!(shaken.is_err(), "it is refused");
        assert_eq!(client.rest(), b"", "the client is closed in order");
        wait_until("it is logged", || !server.log.about("cannot connect").is_empty());
    });
}
