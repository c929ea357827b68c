//! Peers that break the rules of TLS, or stop in the middle: an alert, the end of that connection, and
//! nothing else.

use std::{sync::Arc, time::Duration};

use nonforker::{Conn, Error, Handler, Limits, Outcome, Server, Tls, Urgent, codec::Lines};
use rustls::{
    ALL_VERSIONS, AlertDescription,
    version::{TLS12, TLS13},
};

use crate::{
    client::{Client, hear, next},
    harness::{ANY, on_every_driver, wait_until},
    tls::{Guarded, NAME, connect, guarded},
    tls_client::{Authority, TlsClient},
};

/// The record of a fatal alert, in clear.
const ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];

#[test]
fn what_is_no_hello_is_answered_with_an_alert() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let hellos = [
            &b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n"[..],
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
            b"\x17\x03\x03\x00\x05hello",
            &[0; 64],
        ];
        for (refused, bytes) in (1..).zip(hellos) {
            let mut client = Client::connect(server.address());
            client.send(bytes);
            client.half_close();
            let answer = client.rest();
            assert!(answer.starts_with(&ALERT), "{bytes:?}: {answer:?}");
            wait_until("it is counted", || server.stats().refused == refused);
        }
        assert!(told.try_recv().is_err(), "the handler hears of none");
    });
}

#[test]
fn half_a_hello_and_silence_end_in_time() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let limits = Limits::new().handshake_timeout(Duration::from_millis(150));
        let (server, told) = guarded(case, authority.tls(&[NAME]), limits);
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut client = connect(&server, &config);
        let hello = client.records();
        for part in [0, 3, 5, 100, hello.len()] {
            let mut client = Client::connect(server.address());
            client.send(&hello[..part]);
            assert!(client.try_rest().is_err() || part == hello.len(), "it is reset");
        }
        wait_until("all are counted", || server.stats().refused >= 5);
        drop(client);
        assert!(told.try_recv().is_err(), "the handler hears of none");
    });
}

#[test]
fn of_too_many_handshakes_the_oldest_ends() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let limits = Limits::new().handshakes_max(2);
        let (server, _told) = guarded(case, authority.tls(&[NAME]), limits);
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut silent: Vec<_> = (0..2).map(|_| Client::connect(server.address())).collect();
        server.has_accepted(2);
        let mut client = connect(&server, &config);
        assert_eq!(client.ask("x"), "x");
        silent.remove(0).is_reset();
        let mut another = connect(&server, &config);
        assert_eq!(another.ask("y"), "y", "the one that is done does not count");
        silent[0].hears_nothing_for(Duration::from_millis(50));
        assert_eq!(server.stats().refused, 1);
    });
}

#[test]
fn a_stream_that_is_cut_off_has_no_last_request() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let config = Arc::new(authority.client(versions, None));
            let mut client = connect(&server, &config);
            client.shake().expect("they agree");
            client.send("complete\ndelete /tmp");
            client.raw.half_close();
            assert_eq!(client.rest(), "complete\n");
            hear(&told, "frame complete");
            assert_eq!(next(&told), "closed Truncated");

            // In the middle of a record, too.
            let mut client = connect(&server, &config);
            assert_eq!(client.ask("x"), "x");
            let records = client.seal("delete /tmp\n");
            client.raw.send(&records[..records.len() - 1]);
            client.raw.half_close();
            assert_eq!(client.rest(), "");
            hear(&told, "frame x");
            assert_eq!(next(&told), "closed Truncated");
        }
    });
}

#[test]
fn replies_to_frames_that_had_to_wait_go_before_the_alert_and_before_a_cut() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let limits = Limits::new().frames_per_turn(2);
        let (server, told) = guarded(case, authority.tls(&[NAME]), limits);
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        for is_cut in [false, true] {
            let mut client = connect(&server, &config);
            client.shake().expect("they agree");
            let lines: String = (0..9).map(|line| format!("{line}\n")).collect();
            let records = client.seal(&lines);
            let more = client.seal("nine\nten\neleven\nhalf");
            let mut broken = client.seal("twelve\n");
            *broken.last_mut().expect("there is a record") ^= 1;
            if is_cut {
                broken.clear();
            }
            client.raw.send([records, more, broken].concat());
            if is_cut {
                client.raw.half_close();
            }
            for line in 0..9 {
                assert_eq!(client.line(), line.to_string(), "cut: {is_cut}");
            }
            for line in ["nine", "ten", "eleven"] {
                assert_eq!(client.line(), line, "cut: {is_cut}");
            }
            if is_cut {
                assert_eq!(client.rest(), "", "the half line is none");
                hear(&told, "closed Truncated");
            } else {
                let error = client.try_rest().expect_err("the third record is broken");
                let alert = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
                assert_eq!(error.to_string(), alert.to_string());
            }
        }
    });
}

#[test]
fn who_is_refused_hears_no_busy_word_in_clear() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]);
        let server = case.start(move |server| {
            let limits = Limits::new().max_connections_per_ip(Some(1));
            let server = server.limits(limits);
            let server = server.serve(ANY, Lines::new(), |conn, line| conn.send(line));
            server.refuse_with(b"busy\r\n").tls(tls)
        });
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut client = connect(&server, &config);
        assert_eq!(client.ask("x"), "x");
        for _ in 0..3 {
            let mut another = Client::connect(server.address());
            let said = another.try_rest().unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&said), "", "nothing is said in clear");
        }
        assert_eq!(server.stats().refused, 3);
        client.close_notify();
        assert_eq!(client.rest(), "");
    });
}

#[test]
fn replies_go_before_the_alert() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let config = Arc::new(authority.client(versions, None));
            let mut client = connect(&server, &config);
            client.shake().expect("they agree");
            let mut records = client.seal("one\n");
            records.extend(client.seal("two\n"));
            let mut broken = client.seal("three\n");
            *broken.last_mut().expect("there is a record") ^= 1;
            client.raw.send([records, broken].concat());
            assert_eq!((client.line(), client.line()), ("one".into(), "two".into()));
            let error = client.try_rest().expect_err("the third record is broken");
            let alert = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
            assert_eq!(error.to_string(), alert.to_string());
            hear(&told, "frame two");
            assert!(next(&told).starts_with("closed Tls("), "and the third is no frame");
        }
    });
}

#[test]
fn what_lies_behind_the_command_for_tls_is_no_request() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]);
        let (guarded, told) = Guarded::new();
        let server = case
            .start(move |server| server.serve_with(ANY, Lines::new(), guarded).start_tls_with(tls));
        let config = Arc::new(authority.client(ALL_VERSIONS, None));

        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("facts"), "in clear");
        client.send("starttls\n");
        assert_eq!(client.line(), "go ahead");
        let mut client = TlsClient::over(client, &config, NAME);
        client.shake().expect("they agree");
        assert_eq!(client.line(), "welcome");
        assert!(client.ask("facts").starts_with("TLSv1.3"));
        client.send("starttls\n");
        assert_eq!(client.line(), "go ahead", "it is encrypted already");
        assert!(client.rest().is_empty(), "and to ask for it again is an error");
        hear(&told, "frame starttls");

        // The hello may come in the same segment as the command.
        let mut pipelined = TlsClient::over(Client::connect(server.address()), &config, NAME);
        let hello = pipelined.records();
        pipelined.raw.send([b"starttls\n".to_vec(), hello].concat());
        assert_eq!(pipelined.raw.line(), "go ahead");
        pipelined.shake().expect("they agree");
        assert_eq!(pipelined.line(), "welcome");

        // A request that somebody put there.
        let mut injected = Client::connect(server.address());
        injected.send("starttls\ninjected\n");
        assert_eq!(injected.line(), "go ahead");
        assert!(injected.rest().starts_with(&ALERT));
        drop(pipelined);
        let mut heard = Vec::new();
        while let Ok(what) = told.recv_timeout(Duration::from_millis(200)) {
            heard.push(what);
        }
        assert!(!heard.iter().any(|what| what.contains("injected")), "{heard:?}");
        assert!(heard.iter().any(|what| what.starts_with("closed Tls(")), "{heard:?}");
    });
}

#[test]
fn a_header_of_a_proxy_comes_before_the_handshake() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]);
        let server = case.start(move |server| {
            server
                .serve(ANY, Lines::new(), |conn, _| conn.send(conn.peer().to_string()))
                .proxy_protocol("127.0.0.1")
                .tls(tls)
        });
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let header = b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 443\r\n".to_vec();
        for is_together in [true, false] {
            let mut client = connect(&server, &config);
            let mut first = header.clone();
            if is_together {
                first.extend(client.records());
            }
            for part in first.chunks(if is_together { usize::MAX } else { 7 }) {
                client.raw.send(part);
            }
            assert_eq!(client.ask("who am I"), "10.1.2.3:4000");
        }
    });
}

struct Hasty;

impl Handler for Hasty {
    type Codec = Lines;
    type Session = ();

    const URGENT: Option<Urgent<Self>> = Some(|_, _, _| Ok(()));

    fn frame(&mut self, _: &mut Conn<'_, Self>, _: &[u8]) -> Outcome {
        Ok(())
    }
}

#[test]
fn what_makes_no_sense_is_refused_when_it_is_bound() {
    let authority = Authority::new();
    let tls = || authority.tls(&[NAME]);
    let lines = |server: Server| server.serve(ANY, Lines::new(), |_, _| {});
    for (server, what) in [
        (
            Server::new().serve_with(ANY, Lines::new(), Hasty).tls(tls()),
            "urgent bytes are not encrypted, and a handler wants them",
        ),
        (lines(Server::new().tls(tls())), "tls: give the server a service first"),
        (
            lines(Server::new()).tls(tls()).start_tls_with(tls()),
            "a service is encrypted from the start, or begins in clear, but not both",
        ),
    ] {
        match server.bind() {
            Err(Error::Tls(error)) => assert_eq!(error.to_string(), what),
            other => panic!("{what}: {other:?}"),
        }
    }
    let pem = |pair: &crate::tls_client::Pair| pair.pem();
    let (one, other) =
        (pem(&authority.signs(&["a"], |_| ())), pem(&authority.signs(&["a"], |_| ())));
    for (certificate, key, what) in [
        (&one.0, &other.1, "this private key does not belong to the certificate"),
        (&one.1, &one.1, "there is no certificate in PEM"),
        (&one.0, &one.0, "there is no private key in PEM"),
    ] {
        let error = Tls::from_pem(certificate.as_bytes(), key.as_bytes()).expect_err(what);
        assert_eq!(error.to_string(), what);
    }
    let error = Tls::from_files("/nowhere/a.pem", "/nowhere/b.pem").expect_err("no such file");
    assert!(error.to_string().starts_with("cannot read /nowhere/a.pem: "), "{error}");
}
