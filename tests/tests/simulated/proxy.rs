//! The PROXY protocol: who the client is, who may say so, and what comes before that is true.

use std::time::Duration;

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation},
};

/// Answers with the client, the proxy, and the line. Panics if it is told of what never opened.
#[derive(Default)]
struct Who {
    open: usize,
}

impl Handler for Who {
    type Codec = Lines;
    type Session = bool;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.open += 1;
        *conn.session_mut() = true;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let via = conn.via().ok_or("it came through no proxy")?;
        let line = String::from_utf8_lossy(line);
        let same = if via == conn.peer() { "the same" } else { "a proxy" };
        conn.send(format!("{} via {same}: {line}", conn.peer()));
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        assert!(*conn.session(), "closed comes only after open");
        self.open -= 1;
    }
}

fn server(limits: Limits) -> Server {
    Server::new()
        .limits(limits)
        .serve_with("127.0.0.1:1", Lines::new().accept_unterminated(), Who::default())
        .proxy_protocol("10.0.0.0/8,127.0.0.0/8,::1")
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51324 443\r\n";
const TIMEOUT: Duration = Duration::from_secs(10);

/// A header of version 2 over TCP and IPv4, from 192.0.2.9:80, with an extension.
fn v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12 + 7]);
    header.extend([192, 0, 2, 9, 198, 51, 100, 1, 0, 80, 1, 187]);
    header.extend([0x04, 0, 4, 1, 2, 3, 4]);
    header
}

fn from_proxy(net: &Net) -> Client {
    net.connect_from([10, 1, 2, 3])
}

#[test]
fn the_client_is_the_one_that_the_proxy_names_however_the_header_is_cut() {
    let headers: [(Vec<u8>, &str); 4] = [
        (V1.to_vec(), "192.0.2.7:51324 via a proxy: "),
        (b"PROXY UNKNOWN whatever\r\n".to_vec(), " via the same: "),
        (v2(1), "192.0.2.9:80 via a proxy: "),
        (v2(0), " via the same: "),
    ];
    // The simulated network cuts what is sent as it likes.
    Simulation::new(|| server(Limits::new())).run(move |net| {
        for (header, answer) in &headers {
            let together = from_proxy(net);
            together.send([&header[..], b"one\ntwo"].concat());
            together.half_close();
            let (received, ending) = together.receive_to_end();
            let received = String::from_utf8(received).expect("text");
            assert_eq!(ending, Some(Ending::Finished), "{received}");
            let lines: Vec<&str> = received.lines().collect();
            assert!(lines[0].ends_with(&format!("{answer}one")), "{received}");
            assert!(lines[1].ends_with(&format!("{answer}two")), "{received}");

            let apart = from_proxy(net);
            for byte in header {
                apart.send([*byte]);
                net.wait(Duration::from_millis(1));
            }
            apart.send("three\n");
            net.wait(Duration::from_secs(5));
            let received = String::from_utf8(apart.received()).expect("text");
            assert!(received.ends_with(&format!("{answer}three\n")), "{received}");
        }
    });
}

#[test]
fn what_is_no_header_is_refused_and_the_handler_never_hears_of_it() {
    let simulation = Simulation::new(|| server(Limits::new().handshake_timeout(TIMEOUT)));
    simulation.faults(|_| Faults::none()).run(|net| {
        let begins: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n",
            b"hello\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x01",
        ];
        for begin in begins {
            let client = from_proxy(net);
            client.send(begin);
            client.send("and a request\n");
            let (received, ending) = client.receive_to_end();
            assert_eq!((received, ending), (Vec::new(), Some(Ending::Reset)), "{begin:?}");
        }
        // Nobody else may say who a client is, and no one does without a header.
        let stranger = net.connect_from([192, 0, 2, 1]);
        stranger.send([V1, b"hello\n"].concat());
        assert_eq!(stranger.receive_to_end().0, b"");
        let begun = net.now();
        let silent = from_proxy(net);
        silent.send(&V1[..20]);
        assert_eq!(silent.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        let took = net.now() - begun;
        assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
        let gone = from_proxy(net);
        gone.send(&V1[..20]);
        gone.half_close();
        assert_eq!(gone.receive_to_end().0, b"");
        net.wait(Duration::from_secs(1));
        // Who leaves by itself was not refused.
        assert_eq!(net.stats().refused, 7);
    });
}

#[test]
fn the_limit_per_address_counts_clients_and_not_their_proxy() {
    let simulation = Simulation::new(|| server(Limits::new().max_connections_per_ip(Some(2))));
    simulation.faults(|_| Faults::none()).run(|net| {
        let client = |ip: u8| {
            let client = from_proxy(net);
            client.send(format!("PROXY TCP4 192.0.2.{ip} 198.51.100.1 5000 443\r\nhello\n"));
            net.wait(Duration::from_secs(1));
            client
        };
        let clients: Vec<Client> = [1, 1, 2, 2, 3].map(client).into();
        assert!(clients.iter().all(|client| client.ending().is_none()), "all of one proxy");
        for ip in [1, 2] {
            assert_eq!(client(ip).receive_to_end().0, b"", "one too many of {ip}");
        }
        clients[0].half_close();
        net.wait(Duration::from_secs(10));
        assert_eq!(client(1).ending(), None, "there is room again");
    });
}

#[test]
fn a_drain_does_not_wait_for_those_that_have_not_arrived() {
    Simulation::new(|| server(Limits::new().drain_timeout(Duration::from_secs(60)))).run(|net| {
        let arriving = from_proxy(net);
        arriving.send(&V1[..10]);
        let open = from_proxy(net);
        open.send([V1, b"hello\n"].concat());
        net.wait(Duration::from_secs(3));
        net.drain();
        net.wait(Duration::from_secs(20));
        assert!(net.has_ended(), "nobody was waited for");
        assert_eq!(open.received(), b"192.0.2.7:51324 via a proxy: hello\n");
    });
}
