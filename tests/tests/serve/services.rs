//! Addresses, codecs and handlers, several of them in one loop.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, time::Duration};

use nonforker::{
    Address, Conn, Handler, Limits, Outcome, Server, ServiceLimits,
    codec::{Codec, Decoded, Delimited, Encode, EncodeError, FrameError, Lines, Raw},
};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver},
};

/// One length byte and that many bytes, as in the documentation of `Codec`.
#[derive(Clone)]
struct Short;

impl Codec for Short {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let size = 1 + usize::from(input[0]);
        Ok(match input.get(1..size) {
            Some([]) => Decoded::Skip(1),
            Some(frame) => Decoded::Frame { frame, consumed: size },
            None => Decoded::Incomplete { need: size - input.len() },
        })
    }
}

impl Encode<&[u8]> for Short {
    fn encode(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(0);
        let size = u8::try_from(reply.len())
            .map_err(|_| EncodeError::TooLong { len: reply.len(), max: 255 })?;
        *out.last_mut().expect("just pushed") = size;
        out.extend_from_slice(reply);
        Ok(())
    }
}

/// Counts the requests of everybody and of each.
#[derive(Default)]
struct Counter {
    total: usize,
}

impl Handler for Counter {
    type Codec = Lines;
    type Session = usize;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        self.total += 1;
        *conn.session_mut() += 1;
        let (own, total) = (*conn.session(), self.total);
        writeln!(conn, "{own} of {total}")?;
        Ok(())
    }
}

/// A folder that goes with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nonforker-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn socket(&self) -> String {
        format!("unix:{}/socket", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a failed test leaves behind is in the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn services_with_codecs_of_their_own_share_one_loop() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            let blank_line = Delimited::new(b"\n\n").expect("not empty");
            let mut calls = 0;
            server
                .serve(ANY, Lines::new(), |conn, line| conn.send(line))
                .also_on(ANY)
                .serve_with(ANY, Short, Backwards)
                .serve(ANY, blank_line, |conn, text| conn.send(text.to_ascii_uppercase()))
                .serve(ANY, Raw::new(), move |conn, bytes| -> Outcome {
                    calls += bytes.len();
                    Ok(writeln!(conn, "{calls}")?)
                })
        });
        let exchanges: [(&[u8], &[u8]); 5] = [
            (b"one\n", b"one\n"),
            (b"two\n", b"two\n"),
            (b"\0\x03abc\0\0\x01z", b"\x03cba\x01z"),
            (b"a\nb\n\n", b"A\nB\n\n"),
            (b"four", b"4\n"),
        ];
        let mut clients: Vec<_> = server.addresses().iter().map(Client::connect).collect();
        assert_eq!(clients.len(), exchanges.len());
        for (client, (request, _)) in clients.iter().zip(exchanges) {
            client.send(request);
            client.half_close();
        }
        for (client, (request, reply)) in clients.iter_mut().zip(exchanges) {
            assert_eq!(client.rest(), reply, "to {request:?}");
        }
    });
}

/// Echoes backwards; a lone `!` is answered with more than the codec can frame.
struct Backwards;

impl Handler for Backwards {
    type Codec = Short;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, frame: &[u8]) -> Outcome {
        let reply: Vec<u8> = frame.iter().rev().copied().collect();
        if frame == b"!" {
            conn.send([0; 256].as_slice());
        }
        conn.send(reply.as_slice());
        Ok(())
    }
}

#[test]
fn a_reply_that_cannot_be_framed_is_taken_back_and_ends_its_connection() {
    on_every_driver(|case| {
        let server = case.start(|server| server.serve_with(ANY, Short, Backwards));
        let mut client = server.connect();
        client.send(b"\x02ab\x01!\x02cd");
        assert_eq!(client.rest(), b"\x02ba");
    });
}

#[test]
fn a_handler_keeps_state_for_all_and_for_each() {
    on_every_driver(|case| {
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), Counter::default()));
        let (mut first, mut second) = (server.connect(), server.connect());
        assert_eq!(first.ask(""), "1 of 1");
        assert_eq!(first.ask(""), "2 of 2");
        assert_eq!(second.ask(""), "1 of 3");
        assert_eq!(first.ask(""), "3 of 4");
    });
}

#[test]
fn a_unix_socket_serves_its_owner_and_leaves_no_file() {
    on_every_driver(|case| {
        let folder = Folder::new("unix");
        let path = folder.0.join("socket");
        // A stale socket is left over by a server that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let address = folder.socket();
        let server = case
            .start(move |server| server.serve(address, Lines::new(), |conn, line| conn.send(line)));
        let mode = fs::symlink_metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = server.connect();
        let lines = b"over a file\n".repeat(50_000);
        assert!(client.exchange(&lines) == lines, "other bytes came back");
        drop(client);
        server.handle().drain();
        server.ends();
        assert!(!path.exists(), "the file is still there");
    });
}

#[test]
fn a_unix_socket_never_replaces_another_file_or_a_living_server() {
    on_every_driver(|case| {
        let folder = Folder::new("file");
        let path = folder.0.join("socket");
        fs::write(&path, "precious").expect("a file can be written");
        let address = folder.socket();
        let refused = |case: &crate::harness::Case| {
            let server = case.server().serve(address.as_str(), Lines::new(), |_, _| ());
            server.bind().expect_err("something is there").to_string()
        };
        assert!(refused(case).contains("not a socket"), "{}", refused(case));
        assert_eq!(fs::read(&path).expect("it exists"), b"precious");
        fs::remove_file(&path).expect("it exists");

        let at = folder.socket();
        let server =
            case.start(|server| server.serve(at, Lines::new(), |conn, line| conn.send(line)));
        assert!(refused(case).contains("in use"), "{}", refused(case));
        assert_eq!(server.connect().ask("alive"), "alive");
    });
}

#[test]
fn both_internet_protocols_share_a_port() {
    on_every_driver(|case| {
        let first =
            case.start(|server| server.serve("0.0.0.0:0", Lines::new(), |conn, _| conn.send("4")));
        let Address::Tcp(address) = *first.address() else { panic!("TCP was asked for") };
        let second = format!("[::]:{}", address.port());
        let second =
            case.start(move |server| server.serve(second, Lines::new(), |conn, _| conn.send("6")));
        for (host, answer) in [("127.0.0.1", "4"), ("[::1]", "6")] {
            let address = format!("{host}:{}", address.port()).parse().expect("an address");
            assert_eq!(Client::connect(&address).ask("which"), answer, "{host}");
        }
        drop(second);
    });
}

#[test]
fn a_second_server_on_the_same_port_fails_and_says_why() {
    on_every_driver(|case| {
        let server =
            case.start(|server| server.serve(ANY, Lines::new(), |conn, line| conn.send(line)));
        let address = server.address().to_string();
        let second = case.server().serve(address.as_str(), Lines::new(), |_, _| ()).bind();
        let error = second.expect_err("the port is taken").to_string();
        assert!(error.contains(&address) && error.contains("in use"), "{error}");
        assert_eq!(server.connect().ask("undisturbed"), "undisturbed");
    });
}

#[test]
fn a_server_can_be_started_again_on_the_same_port_at_once() {
    on_every_driver(|case| {
        let serve = |address: String| {
            move |server: Server| server.serve(address, Lines::new(), |conn, line| conn.send(line))
        };
        let mut server = case.start(serve(ANY.to_owned()));
        for _ in 0..3 {
            let address = server.address().to_string();
            // It is the server that closes first, so its side stays in TIME_WAIT.
            let mut client = server.connect();
            assert_eq!(client.ask("first"), "first");
            server.handle().drain();
            assert_eq!(client.rest_text(), "");
            drop(client);
            server.ends();
            server = case.start(serve(address));
            assert_eq!(server.connect().ask("second"), "second");
        }
    });
}

#[test]
fn what_cannot_be_served_is_said_before_anything_is_opened() {
    on_every_driver(|case| {
        for (address, part) in [
            ("localhost:1685", "not resolved"),
            ("192.0.2.1:0", "no such address"),
            ("unix:/no/such/folder/socket", "directory"),
            ("[::ffff:127.0.0.1]:1685", "write 127.0.0.1:1685"),
            ("[fe80::1]:1685", "the interface is missing"),
            ("[fe80::1%4000000000]:0", "no interface of that number"),
        ] {
            let error = case.server().serve(address, Lines::new(), |_, _| ()).bind();
            let error = error.expect_err(address).to_string();
            assert!(error.contains(part), "{address}: {error}");
        }
        assert!(case.server().bind().expect_err("no address").to_string().contains("nothing"));
    });
}

#[test]
fn an_address_that_is_given_twice_is_named_as_that() {
    on_every_driver(|case| {
        let folder = Folder::new("twice");
        let socket = folder.socket();
        let roundabout = socket.replace("/socket", "/./socket");
        for [one, other] in [
            ["127.0.0.1:1685", "127.0.0.1:1685"],
            ["[::1]:1685", "tcp://[::1]:1685"],
            [&socket, &socket],
            [&socket, &roundabout],
        ] {
            let first = case.server().serve(one, Lines::new(), |_, _| ());
            let also = first.also_on(other).bind().expect_err("twice").to_string();
            assert!(also.contains("given twice"), "{also}");
            let first = case.server().serve(one, Lines::new(), |_, _| ());
            let second = first.serve(other, Lines::new(), |_, _| ()).bind().expect_err("twice");
            assert!(second.to_string().contains("given twice"), "{second}");
        }
        // As the same address with another name for it.
        let server = case.start(|server| server.serve(ANY, Lines::new(), |_, _| ()));
        let Address::Tcp(address) = *server.address() else { panic!("TCP was asked for") };
        server.handle().drain();
        drop(server);
        let every = format!("0.0.0.0:{}", address.port());
        let both = case.server().serve(every.as_str(), Lines::new(), |_, _| ());
        let error = both.also_on(Address::Tcp(address)).bind().expect_err("it is included");
        assert!(error.to_string().contains(&format!("{every}, where this server")), "{error}");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_unix_socket_without_a_file_is_served() {
    on_every_driver(|case| {
        let address = format!("unix:@nonforker-{}", std::process::id());
        let at = address.clone();
        let server = case.start(|server| {
            server.serve(at, Lines::new(), |conn, _| {
                conn.send(conn.peer().to_string());
            })
        });
        assert_eq!(server.address().to_string(), address);
        assert_eq!(server.connect().ask("who am I?"), "unix");
        let second = case.server().serve(address.as_str(), Lines::new(), |_, _| ());
        let error = second.bind().expect_err("the name is taken").to_string();
        assert!(error.contains(&address) && error.contains("in use"), "{error}");
        server.handle().drain();
        server.ends();
        let again = case.server().serve(address.as_str(), Lines::new(), |_, _| ());
        again.bind().expect("the name went with its server");
    });
}

#[test]
fn a_service_counts_the_connections_of_an_address_by_itself_if_it_has_a_bound_of_its_own() {
    // How many of three connections to it are served, after one to the other service. In the first
    // row they count together.
    let own = |most| ServiceLimits::new().max_connections_per_ip(most);
    for (limits, served) in [(ServiceLimits::new(), 0), (own(Some(2)), 2), (own(None), 3)] {
        on_every_driver(|case| {
            let limits = limits.clone();
            let server = case.start(move |server| {
                server
                    .limits(Limits::new().max_connections_per_ip(Some(1)))
                    .serve(ANY, Lines::new(), |conn, line| conn.send(line))
                    .serve(ANY, Lines::new(), |conn, line| conn.send(line))
                    .service_limits(limits)
            });
            for _ in 0..2 {
                let mut other = server.connect();
                assert_eq!(other.ask("hello"), "hello");
                let mut clients: Vec<_> =
                    (0..3).map(|_| Client::connect(&server.addresses()[1])).collect();
                for (number, client) in clients.iter_mut().enumerate() {
                    // It may have been refused already.
                    let _ = client.try_send(b"hello\n");
                    let expected = (number < served).then(|| "hello".to_owned());
                    assert_eq!(client.try_line(), expected, "{served} are served");
                }
                drop((other, clients));
                server.holds(0);
            }
            let stats = server.handle().service_stats(1).expect("there are two services");
            assert_eq!((stats.accepted, stats.refused), (2 * served as u64, 6 - 2 * served as u64));
            assert_eq!(server.stats().refused, stats.refused);
            assert_eq!(server.handle().service_stats(2), None);
        });
    }
}

#[test]
fn a_health_port_answers_and_lets_go_while_the_public_port_is_full() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            let health = ServiceLimits::new().reserved_connections(1);
            server
                .limits(Limits::new().max_connections(Some(3)))
                .serve(ANY, Lines::new(), |conn, line| conn.send(line))
                .serve(ANY, Lines::new(), |conn, _line| conn.send("healthy"))
                .service_limits(health.idle_timeout(Some(Duration::from_millis(300))))
        });
        let mut public: Vec<_> = (0..3).map(|_| server.connect()).collect();
        for client in &mut public[..2] {
            assert_eq!(client.ask("hello"), "hello");
        }
        for _ in 0..2 {
            let mut health = Client::connect(&server.addresses()[1]);
            assert_eq!(health.ask("how are you?"), "healthy");
            assert_eq!(health.rest_text(), "", "it was idle for too long");
        }
        let [one, two, three] = &mut public[..] else { panic!("there are three") };
        assert_eq!(one.ask("are you still there?"), "are you still there?");
        three.hears_nothing_for(Duration::from_millis(50));
        two.half_close();
        assert_eq!(three.ask("my turn"), "my turn");
    });
}

#[test]
fn another_thread_sets_limits_while_the_server_runs() {
    on_every_driver(|case| {
        let limits = |most| Limits::new().max_connections(Some(most));
        let server = case.start(move |server| {
            server.limits(limits(1)).serve(ANY, Lines::new(), |conn, line| conn.send(line))
        });
        let (mut first, mut second) = (server.connect(), server.connect());
        assert_eq!(first.ask("hello"), "hello");
        second.send("hello\n");
        second.hears_nothing_for(Duration::from_millis(50));
        server.handle().set_limits(limits(2)).expect("it can change");
        assert_eq!(second.line(), "hello");
        let short = Some(Duration::from_millis(100));
        server.handle().set_limits(limits(2).idle_timeout(short)).expect("it can change");
        assert_eq!((first.rest_text(), second.rest_text()), (String::new(), String::new()));
        let error = server.handle().set_limits(limits(2).backlog(9)).expect_err("it cannot");
        assert!(error.to_string().starts_with("backlog: 9 is not what it was"), "{error}");
    });
}
