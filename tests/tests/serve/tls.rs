//! Connections behind TLS: the same promises, and those of TLS.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use nonforker::{
    ClientAuth, CloseReason, Conn, Handle, Handler, Limits, Outcome, Overflow, Server, Shards, Tls,
    codec::Lines,
};
use rustls::{
    ALL_VERSIONS, AlertDescription, ClientConfig, Error, HandshakeKind,
    version::{TLS12, TLS13},
};

use crate::{
    client::{Client, hear, next},
    harness::{ANY, Case, Running, on_every_driver, wait_until},
    tls_client::{Authority, TlsClient},
};

pub(crate) const NAME: &str = "server.test";

/// Answers lines, tells what happens, and begins TLS when a line says so.
pub(crate) struct Guarded {
    tell: Sender<String>,
}

impl Guarded {
    pub(crate) fn new() -> (Self, Receiver<String>) {
        let (tell, told) = channel();
        (Self { tell }, told)
    }

    fn tell(&self, what: impl Into<String>) {
        let _ = self.tell.send(what.into());
    }
}

impl Handler for Guarded {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.tell(format!("open {}", conn.tls().is_some()));
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        self.tell(format!("frame {}", String::from_utf8_lossy(line)));
        match line {
            b"starttls" => {
                conn.send("go ahead");
                conn.start_tls()?;
                // It waits until the handshake is done.
                conn.send("welcome");
            }
            b"facts" => {
                let facts = conn.tls().map(|tls| {
                    let chain = tls.peer_chain().map(<[u8]>::len).collect::<Vec<_>>();
                    let alpn = tls.alpn().map(String::from_utf8_lossy);
                    let (version, suite) = (tls.version(), tls.cipher_suite());
                    format!("{version} {suite} {alpn:?} {:?} {chain:?}", tls.server_name())
                });
                conn.send(facts.unwrap_or_else(|| "in clear".to_owned()));
            }
            b"subscribe" => {
                conn.subscribe("news", Overflow::Close)?;
                conn.send("ok");
            }
            b"publish" => {
                for length in [10, 2000, 200_000] {
                    let _ = conn.others().publish("news", &vec![b'n'; length][..]);
                }
            }
            b"close" => {
                conn.send("bye");
                conn.close();
            }
            line => conn.send(line),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(format!("closed {reason:?}"));
    }
}

pub(crate) fn guarded(case: &Case, tls: Tls, limits: Limits) -> (Running, Receiver<String>) {
    let (guarded, told) = Guarded::new();
    let server = case.start(move |server| {
        let codec = Lines::with_max(1 << 20).accept_unterminated();
        server.limits(limits).serve_with(ANY, codec, guarded).tls(tls)
    });
    (server, told)
}

pub(crate) fn connect(server: &Running, config: &Arc<ClientConfig>) -> TlsClient {
    TlsClient::connect(server.address(), config, NAME)
}

#[test]
fn lines_are_answered_behind_tls() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        for (versions, facts) in [
            (&[&TLS13][..], "TLSv1.3 TLS_AES_128_GCM_SHA256"),
            (&[&TLS12], "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
            (ALL_VERSIONS, "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ] {
            let config = Arc::new(authority.client(versions, None));
            let mut client = connect(&server, &config);
            assert_eq!(client.ask("facts"), format!("{facts} None Some(\"server.test\") []"));
            assert_eq!(next(&told), "open true", "only now is it known to the handler");
            client.send("three\nfour\nfi");
            assert_eq!((client.line(), client.line()), ("three".to_owned(), "four".to_owned()));
            client.send("ve\nthe end");
            assert_eq!(client.line(), "five");
            client.close_notify();
            assert_eq!(client.rest(), "the end\n", "its end is the end of a frame");
            hear(&told, "closed PeerFinished");
        }
    });
}

#[test]
fn records_and_handshakes_may_be_cut_anywhere() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, _told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let config = Arc::new(authority.client(versions, None));
            let mut client = connect(&server, &config);
            while client.tls.is_handshaking() {
                for byte in client.records() {
                    client.raw.send([byte]);
                }
                assert!(client.step().expect("the server goes on"));
            }
            for byte in client.seal("a line\nand another\n") {
                client.raw.send([byte]);
            }
            assert_eq!((client.line(), client.line()), ("a line".into(), "and another".into()));
            client.close_notify();
            assert_eq!(client.rest(), "");
        }
    });
}

#[test]
fn long_lines_cross_records_both_ways() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, _told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut client = connect(&server, &config);
        client.shake().expect("they agree");
        for length in [1, 16_000, 16_384, 16_385, 100_000, 1_000_000] {
            let line = "x".repeat(length) + "\n";
            let records = client.seal(&line);
            let twin = client.raw.twin();
            thread::scope(|scope| {
                scope.spawn(move || twin.send(records));
                assert_eq!(client.exactly(line.len()), line.as_bytes(), "{length} bytes");
            });
        }
        client.close_notify();
        assert_eq!(client.rest(), "");
    });
}

#[test]
fn what_is_published_is_encrypted_too() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, _told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut clients: Vec<_> = (0..3).map(|_| connect(&server, &config)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("subscribe"), "ok");
        }
        clients[0].send("publish\n");
        for client in &mut clients[1..] {
            for length in [10, 2000, 200_000] {
                assert_eq!(client.line(), "n".repeat(length));
            }
        }
    });
}

#[test]
fn a_client_comes_back_with_a_ticket_also_when_certificates_are_new() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, _told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let config = Arc::new(authority.client(versions, None));
            let kind = || {
                let mut client = connect(&server, &config);
                assert_eq!(client.ask("x"), "x");
                let kind = client.tls.handshake_kind().expect("it is done");
                client.close_notify();
                client.rest();
                kind
            };
            assert_eq!(kind(), HandshakeKind::Full);
            assert_eq!(kind(), HandshakeKind::Resumed);
            server.handle().set_tls(0, authority.tls(&[NAME])).expect("it is there");
            assert_eq!(kind(), HandshakeKind::Resumed);
        }
    });
}

#[test]
fn new_certificates_are_for_those_that_come() {
    on_every_driver(|case| {
        let (old, new) = (Authority::new(), Authority::new());
        let (server, _told) = guarded(case, old.tls(&[NAME]), Limits::new());
        let (of_old, of_new) = (old.client(ALL_VERSIONS, None), new.client(ALL_VERSIONS, None));
        let (of_old, of_new) = (Arc::new(of_old), Arc::new(of_new));
        let mut before = connect(&server, &of_old);
        assert_eq!(before.ask("x"), "x");
        assert!(connect(&server, &of_new).shake().is_err(), "it does not know that authority");
        server.handle().set_tls(0, new.tls(&[NAME])).expect("it is there");
        wait_until("the new ones are shown", || connect(&server, &of_new).shake().is_ok());
        assert_eq!(before.ask("still here"), "still here");
        let error =
            server.handle().set_tls(1, new.tls(&[NAME])).expect_err("there is one listener");
        assert_eq!(error.to_string(), "TLS: there is no listener 1: there are 1");
    });
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name() {
    on_every_driver(|case| {
        let (first, second) = (Authority::new(), Authority::new());
        let (certificate, key) = second.signs(&["other.test", "*.wild.test"], |_| ()).pem();
        let tls = first.tls(&[NAME]);
        let tls = tls.and_pem(certificate.as_bytes(), key.as_bytes()).expect("a good pair");
        let (server, _told) = guarded(case, tls, Limits::new());
        for (authority, name, is_shown) in [
            (&first, NAME, true),
            (&first, "other.test", false),
            (&second, "other.test", true),
            (&second, "a.wild.test", true),
            (&second, NAME, false),
        ] {
            let config = Arc::new(authority.client(ALL_VERSIONS, None));
            let mut client = TlsClient::connect(server.address(), &config, name);
            assert_eq!(client.shake().is_ok(), is_shown, "{name}");
        }
    });
}

#[test]
fn both_sides_agree_on_a_protocol_or_not_at_all() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let tls = authority.tls(&[NAME]).alpn(["h2", "lines"]).expect("good names");
        let (server, _told) = guarded(case, tls, Limits::new());
        for (offered, agreed) in
            [(&["lines", "x"][..], Some("Some(\"lines\")")), (&[], Some("None")), (&["x"], None)]
        {
            let mut config = authority.client(ALL_VERSIONS, None);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let mut client = connect(&server, &Arc::new(config));
            match agreed {
                Some(agreed) => {
                    assert!(client.ask("facts").contains(agreed), "{offered:?}");
                }
                None => {
                    let error = client.shake().expect_err("they have nothing in common");
                    let alert = AlertDescription::NoApplicationProtocol;
                    let expected = Error::AlertReceived(alert).to_string();
                    assert_eq!(error.to_string(), expected);
                }
            }
        }
    });
}

#[test]
fn clients_show_what_they_have_to() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (good, stranger) =
            (authority.signs(&["me"], |_| ()), Authority::new().signs(&["me"], |_| ()));
        let expired = authority.signs(&["me"], |params| {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        });
        for auth in [ClientAuth::Required, ClientAuth::Optional] {
            let tls = authority.tls(&[NAME]);
            let tls = tls.client_auth_pem(auth, authority.pem().as_bytes()).expect("good");
            let (server, _told) = guarded(case, tls, Limits::new());
            let length = good.certificate.der().len();
            for (own, expected) in [
                (Some(&good), Ok(format!("[{length}]"))),
                (
                    None,
                    if auth == ClientAuth::Optional {
                        Ok("[]".to_owned())
                    } else {
                        Err(AlertDescription::CertificateRequired)
                    },
                ),
                (Some(&stranger), Err(AlertDescription::UnknownCA)),
                (Some(&expired), Err(AlertDescription::CertificateExpired)),
            ] {
                let config = Arc::new(authority.client(&[&TLS13], own));
                let mut client = connect(&server, &config);
                client.shake().expect("TLS 1.3: the client learns of it later");
                client.send("facts\n");
                match expected {
                    Ok(chain) => assert!(client.line().ends_with(&chain), "{auth:?}"),
                    Err(alert) => {
                        let error = client.try_rest().expect_err("it is refused");
                        assert_eq!(error.to_string(), Error::AlertReceived(alert).to_string());
                    }
                }
            }
        }
    });
}

#[test]
fn a_drain_says_that_nothing_more_comes() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut client = connect(&server, &config);
        assert_eq!(client.ask("x"), "x");
        let waiting = Client::connect(server.address());
        server.has_accepted(2);
        server.handle().drain();
        assert_eq!(client.rest(), "");
        hear(&told, "closed Drained");
        drop((client, waiting));
        server.ends();
    });
}

#[test]
fn tickets_are_good_in_every_shard() {
    on_every_driver(|case| {
        let authority = Arc::new(Authority::new());
        let (made, driver) = (Arc::clone(&authority), case.driver);
        let running = Shards::new(3, move || {
            Server::new()
                .driver(driver)
                .serve(ANY, Lines::new(), |conn, line| conn.send(line))
                .tls(made.tls(&[NAME]))
        });
        let running = running.bind().expect("they start");
        let address = running.addresses()[0].clone();
        let handle: Handle = running.handle();
        let config = Arc::new(authority.client(&[&TLS13], None));
        let kinds = (0..12).map(|_| {
            let mut client = TlsClient::connect(&address, &config, NAME);
            assert_eq!(client.ask("x"), "x");
            client.tls.handshake_kind()
        });
        let resumed = kinds.filter(|kind| *kind == Some(HandshakeKind::Resumed)).count();
        assert_eq!(resumed, 11, "all but the first, whatever shard they came to");
        handle.set_tls(0, authority.tls(&[NAME])).expect("in all shards");
        wait_until("all have closed", || {
            let stats = handle.stats();
            stats.accepted == stats.closed
        });
        running.drain_and_wait().expect("an orderly end");
    });
}
