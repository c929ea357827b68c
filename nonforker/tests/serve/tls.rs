//! Connections behind TLS: the same promises, and those of TLS.

use std::{sync::Arc, time::Duration};

use nonforker::{CloseReason, Conn, Handler, Limits, Outcome, Server, Tls, codec::Lines};
use rustls::{
    ALL_VERSIONS, ClientConfig, HandshakeKind,
    version::{TLS12, TLS13},
};

use crate::{
    client::{Client, hear},
    harness::{ANY, Running, on_every_driver, wait_until},
    probe::Probe,
    tls_client::{Authority, TlsClient},
};

const NAME: &str = "server.test";

fn echo(server: Server, tls: Tls) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| conn.send(line)).tls(tls)
}

fn connect(server: &Running, config: &Arc<ClientConfig>) -> TlsClient {
    TlsClient::connect(server.address(), config, NAME)
}

#[test]
fn lines_are_answered_behind_tls() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]);
        let server = case.start(move |server| echo(server, tls));
        for versions in [&[&TLS13][..], &[&TLS12], ALL_VERSIONS] {
            let config = Arc::new(authority.client(versions, None));
            let mut client = connect(&server, &config);
            assert_eq!(client.ask("one"), "one");
            assert_eq!(client.ask("two"), "two");
            client.send("three\nfour\nfi");
            assert_eq!((client.line(), client.line()), ("three".to_owned(), "four".to_owned()));
            client.send("ve\n");
            assert_eq!(client.line(), "five");
            client.close_notify();
            assert_eq!(client.rest(), "");
        }
    });
}

#[test]
fn long_lines_cross_records_both_ways() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]);
        let server = case.start(move |server| {
            server
                .serve(ANY, Lines::with_max(1 << 20), |conn, line| conn.send(line))
                .tls(tls)
        });
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut client = connect(&server, &config);
        for length in [1, 16_000, 16_384, 16_385, 100_000, 1_000_000] {
            let line = "x".repeat(length) + "\n";
            let records = client.seal(&line);
            let twin = client.raw.twin();
            std::thread::scope(|scope| {
                scope.spawn(move || twin.send(records));
                assert_eq!(client.exactly(line.len()), line.as_bytes(), "{length} bytes");
            });
        }
        client.close_notify();
        assert_eq!(client.rest(), "");
    });
}
