//! Connections that the server makes, behind TLS.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use nonforker::{
    ClientAuth, ClientTls, CloseReason, Conn, Handler, Limits, Outcome, Target, codec::Lines,
};
use rustls::{
    ALL_VERSIONS,
    version::{TLS12, TLS13},
};

use crate::{
    client::{Client, hear, next},
    harness::{ANY, Case, Running, on_every_driver},
    relaying::upstream,
    tls::{NAME, guarded},
    tls_client::{Authority, Pair, TlsClient},
};

/// Says what becomes of its connections, and answers nothing.
struct Caller(Sender<String>);

impl Caller {
    fn tell(&self, what: String) {
        let _ = self.0.send(what);
    }
}

impl Handler for Caller {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let facts = conn.tls().map(|tls| {
            let alpn = tls.alpn().map(String::from_utf8_lossy);
            let (name, shown) = (tls.server_name(), tls.peer_chain().count());
            format!("{} {name:?} {alpn:?} {shown}", tls.version())
        });
        self.tell(format!("open {}", facts.unwrap_or_default()));
        conn.send("hello");
        Ok(())
    }

    fn frame(&mut self, _: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        self.tell(format!("frame {}", String::from_utf8_lossy(line)));
        Ok(())
    }

    fn closed(&mut self, _: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(format!("closed {reason}"));
    }
}

/// A server that connects to this target for each line that a client sends, and closes what it connected
/// when the line says so.
fn calling(case: &Case, to: Target, timeout: Duration) -> (Running, Receiver<String>) {
    let (tell, told) = channel();
    let server = case.start(move |server| {
        let limits = Limits::new().connect_timeout(timeout);
        server.limits(limits).service(Lines::new(), Caller(tell)).serve(
            ANY,
            Lines::new(),
            move |conn, line: &[u8]| -> Outcome {
                match line {
                    b"close" => {
                        let mut all = conn.service::<Caller>()?;
                        all.for_each(|other| other.close());
                    }
                    _ => {
                        conn.connect::<Caller>(to.clone(), ())?;
                    }
                }
                Ok(())
            },
        )
    });
    (server, told)
}

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn target(address: &str, tls: ClientTls) -> Target {
    address.parse::<Target>().expect("a target").tls(tls).expect("it has a host")
}

fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::from_authorities_pem(authority.pem().as_bytes()).expect("an authority")
}

pub(crate) fn named(authority: &Authority) -> ClientTls {
    trusting(authority).server_name(NAME).expect("a name")
}

#[test]
fn a_server_of_ours_is_called_by_name_protocol_and_certificate() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (certificate, key) = authority.signs(&["me"], |_| ()).pem();
        let tls = authority.tls(&[NAME]).alpn(["lines/1"]).expect("a protocol");
        let tls = tls.client_auth_pem(ClientAuth::Required, authority.pem().as_bytes());
        let (other, heard) = guarded(case, tls.expect("an authority"), Limits::new());
        let own = named(&authority).alpn(["chat/2", "lines/1"]).expect("protocols");
        let own = own.certificate_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair");
        let (server, told) = calling(case, target(&other.address().to_string(), own), SOON);
        let client = server.connect();
        for resumed in [false, true, true] {
            client.send("go\n");
            let facts = "open TLSv1.3 Some(\"server.test\") Some(\"lines/1\") 1";
            assert_eq!(next(&told), facts, "resumed: {resumed}");
            assert_eq!(next(&told), "frame hello");
            client.send("close\n");
            assert_eq!(next(&told), "closed closed by the handler");
            hear(&heard, "closed PeerFinished");
        }
        drop(client);
    });
}

#[test]
fn lines_go_both_ways_in_each_version_and_an_end_is_said() {
    on_every_driver(|case| {
        let authority = Authority::new();
        for (versions, shown) in [(&[&TLS13][..], "TLSv1.3"), (&[&TLS12], "TLSv1.2")] {
            let config = authority.signs(&["localhost"], |_| ()).server(versions);
            let (listener, address) = upstream();
            let port = address.rsplit_once(':').expect("a port").1;
            let to = target(&format!("localhost:{port}"), trusting(&authority));
            let (server, told) = calling(case, to, SOON);
            let client = server.connect();
            client.send("go\n");
            let mut peer = TlsClient::accepted(&listener, &config);
            assert_eq!(peer.line(), "hello");
            assert_eq!(next(&told), format!("open {shown} Some(\"localhost\") None 1"));
            peer.send("one\ntwo\nth");
            peer.send("ree\n");
            for line in ["frame one", "frame two", "frame three"] {
                assert_eq!(next(&told), line);
            }
            peer.close_notify();
            assert_eq!(peer.rest(), "");
            assert_eq!(next(&told), "closed the peer has finished");

            client.send("go\n");
            let mut peer = TlsClient::accepted(&listener, &config);
            assert_eq!(peer.line(), "hello");
            peer.send("a line and half\nof one");
            peer.raw.half_close();
            hear(&told, "frame a line and half");
            assert_eq!(next(&told), "closed the peer's stream was cut off: no close_notify");
            drop(client);
        }
    });
}

#[test]
fn a_certificate_has_to_be_good_and_for_the_name() {
    on_every_driver(|case| {
        let (authority, other) = (Authority::new(), Authority::new());
        let good = authority.signs(&["localhost"], |_| ());
        let expired = authority.signs(&["localhost"], |it| {
            it.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let early = authority.signs(&["localhost"], |it| {
            it.not_before = rcgen::date_time_ymd(2090, 1, 1);
        });
        let named = authority.signs(&["elsewhere.test"], |_| ());
        let unknown = other.signs(&["localhost"], |_| ());
        let (listener, address) = upstream();
        let port = address.rsplit_once(':').expect("a port").1;
        for (what, shown, host, why) in [
            ("good", &good, "localhost", None),
            ("expired", &expired, "localhost", Some("expired")),
            ("early", &early, "localhost", Some("not valid yet")),
            ("of another name", &named, "localhost", Some("not valid for name \"localhost\"")),
            ("for no address", &good, "127.0.0.1", Some("not valid for name \"127.0.0.1\"")),
            ("of another authority", &unknown, "localhost", Some("UnknownIssuer")),
        ] {
            let to = target(&format!("{host}:{port}"), trusting(&authority));
            let (server, told) = calling(case, to, SOON);
            let client = server.connect();
            client.send("go\n");
            let config = Pair::server(shown, ALL_VERSIONS);
            let mut peer = TlsClient::accepted(&listener, &config);
            let shaken = peer.shake().and_then(|()| peer.step());
            let Some(why) = why else {
                assert_eq!(peer.line(), "hello", "{what}");
                peer.close_notify();
                hear(&told, "closed the peer has finished");
                continue;
            };
            let said = next(&told);
            assert!(said.starts_with("closed cannot connect: "), "{what}: {said}");
            assert!(said.contains(why), "{what}: {said}");
            let alert = shaken.expect_err("an alert came").to_string();
            assert!(alert.contains("fatal alert"), "{what}: {alert}");
            let logged = server.log.about("cannot connect").join("; ");
            assert!(logged.contains(why) && logged.contains("tls://"), "{what}: {logged}");
            drop(client);
        }
    });
}

#[test]
fn a_server_that_says_no_hello_is_given_up_and_one_that_ends_is_at_once() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let config = authority.signs(&[NAME], |_| ()).server(ALL_VERSIONS);
        let (listener, address) = upstream();
        let to = target(&address, named(&authority));
        let (server, told) = calling(case, to, Duration::from_millis(400));
        let client = server.connect();
        for (what, why) in [
            ("silence", "not complete in time"),
            ("half", "not complete in time"),
            ("end", "in the TLS handshake: the other side has closed"),
            ("reset", "in the TLS handshake: "),
            ("clear", "corrupt message"),
            ("close_notify", "the other side has closed"),
        ] {
            let began = Instant::now();
            client.send("go\n");
            let mut peer = TlsClient::accepted(&listener, &config);
            let hello = peer.raw.exactly(200);
            assert_eq!(hello[0], 22, "{what}: a record of a handshake");
            match what {
                "half" => peer.raw.send([22, 3, 3, 0, 200, 2]),
                "end" => peer.raw.half_close(),
                "clear" => peer.raw.send("HTTP/1.1 400 Bad Request\r\n\r\n"),
                "close_notify" => {
                    peer.raw.send([21, 3, 3, 0, 2, 1, 0]);
                    peer.raw.half_close();
                }
                _ => {}
            }
            if what == "reset" {
                let TlsClient { raw, .. } = peer;
                raw.reset();
            }
            let said = next(&told);
            assert!(said.starts_with("closed cannot connect: "), "{what}: {said}");
            assert!(said.contains(why), "{what}: {said}");
            let took = began.elapsed();
            assert!((took >= Duration::from_millis(390)) == why.contains("in time"), "{took:?}");
        }
        drop(client);
    });
}

#[test]
fn who_speaks_first_is_heard_and_records_may_be_cut_anywhere() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let config = authority.signs(&[NAME], |_| ()).server(ALL_VERSIONS);
        let (listener, address) = upstream();
        let (server, told) = calling(case, target(&address, named(&authority)), SOON);
        let client = server.connect();
        client.send("go\n");
        let mut peer = TlsClient::accepted(&listener, &config);
        while peer.tls.is_handshaking() {
            for byte in peer.records() {
                peer.raw.send([byte]);
            }
            assert!(peer.step().expect("it goes on"));
        }
        for byte in peer.seal("220 welcome\n") {
            peer.raw.send([byte]);
        }
        hear(&told, "frame 220 welcome");
        assert_eq!(peer.line(), "hello");
        drop((client, peer));
        hear(&told, "closed the peer's stream was cut off: no close_notify");
    });
}

#[test]
fn a_drain_while_the_handshake_is_under_way_ends_it() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (listener, address) = upstream();
        let (server, told) = calling(case, target(&address, named(&authority)), SOON);
        let client = server.connect();
        client.send("go\n");
        let mut peer = Client::accepted(&listener);
        peer.exactly(100);
        server.handle().drain();
        drop(client);
        assert_eq!(next(&told), "closed cannot connect: the server drained");
        let _ = peer.try_rest();
        drop(peer);
        server.ends();
    });
}
