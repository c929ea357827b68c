//! A panic in what the user wrote costs one connection, wherever it happens; so does a codec that
//! breaks its contract.

use std::time::Duration;

use nonforker::{
    CloseReason, Closure, Conn, Handler, Outcome, Server, Urgent,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError, Lines},
};

use crate::{
    client::hear,
    harness::{ANY, on_every_driver},
    probe::Probe,
};

#[test]
fn a_panic_takes_its_output_back_and_nothing_else() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        let (mut client, mut other) = (server.connect(), server.connect());
        client.send("one\ntwo\npanic\nthree\n");
        assert_eq!(client.rest_text(), "one\ntwo\n");
        hear(&told, "closed 0: the handler panicked");
        assert_eq!(other.ask("I live"), "I live");
        assert_eq!(server.connect().ask("me too"), "me too");
        let local = client.socket.local_addr().expect("connected").as_socket().expect("TCP");
        let errors = server.log.about("panicked: told to");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(&local.to_string()), "{errors:?} names {local}");
        assert!(errors[0].contains("frame"), "{errors:?} names the callback");
        server.expect_panics(1);
    });
}

/// Panics in the one callback it is told to.
struct Panics(&'static str);

impl Panics {
    fn at(&self, place: &str) {
        assert_ne!(self.0, place, "on purpose");
    }
}

impl Panics {
    fn urgent(&mut self, _conn: &mut Conn<'_, Self>, _byte: u8) -> Outcome {
        self.at("urgent");
        Ok(())
    }
}

impl Handler for Panics {
    type Codec = Lines;
    type Session = ();
    const URGENT: Option<Urgent<Self>> = Some(Self::urgent);

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("lost");
        self.at("open");
        conn.after(Duration::ZERO, Self::timer)?;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        self.at("frame");
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.at("half_closed");
        conn.close();
        Ok(())
    }

    fn rejected(&mut self, _conn: &mut Conn<'_, Self>, _error: &FrameError) {
        self.at("rejected");
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.at("closed");
    }
}

impl Panics {
    fn timer(&mut self, _conn: &mut Conn<'_, Self>) -> Outcome {
        self.at("timer");
        Ok(())
    }
}

#[test]
fn a_panic_in_any_callback_costs_one_connection() {
    on_every_driver(|case| {
        for place in ["open", "frame", "timer", "urgent", "half_closed", "rejected", "closed"] {
            let server = case.start(move |server| {
                let echo = |conn: &mut Conn<'_, Closure<Lines>>, line: &[u8]| conn.send(line);
                server.serve_with(ANY, Lines::with_max(99), Panics(place)).serve(
                    ANY,
                    Lines::new(),
                    echo,
                )
            });
            let mut other = crate::client::Client::connect(&server.addresses()[1]);
            for round in 1..=3 {
                let mut client = server.connect();
                // Each of these is refused if the connection has already gone.
                if place != "timer" {
                    let _ = client.try_send(b"x\n");
                }
                if place == "rejected" {
                    let _ = client.try_send(&[b'x'; 200]);
                }
                if place == "urgent" {
                    let _ = client.urgent(b'!');
                }
                if place != "timer" {
                    let _ = client.socket.shutdown(std::net::Shutdown::Write);
                }
                let replies = client.try_rest();
                crate::harness::wait_until(&format!("{place} panics"), || {
                    server.stats().panics == round
                });
                match place {
                    "open" => assert!(matches!(replies.as_deref(), Ok(b"")), "{replies:?}"),
                    "frame" => assert!(
                        !matches!(replies.as_deref(), Ok(b"lost\nx\n")),
                        "{place}: {replies:?}"
                    ),
                    _ => assert!(replies.is_ok(), "{place}: {replies:?}"),
                }
                assert_eq!(other.ask("I live"), "I live", "{place}");
            }
            server.expect_panics(3);
        }
    });
}

/// A session that cannot be made.
struct Unmade;

impl Default for Unmade {
    fn default() -> Self {
        panic!("no session")
    }
}

/// A session that cannot be dropped.
#[derive(Default)]
struct Undropped;

impl Drop for Undropped {
    fn drop(&mut self) {
        panic!("no end")
    }
}

struct With<S>(std::marker::PhantomData<S>);

impl<S: Default + 'static> Handler for With<S> {
    type Codec = Lines;
    type Session = S;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        assert!(std::any::type_name::<S>().ends_with("Undropped"), "there never was a session");
    }
}

#[test]
fn a_session_that_panics_costs_one_connection() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            server
                .serve_with(ANY, Lines::new(), With::<Unmade>(std::marker::PhantomData))
                .serve_with(ANY, Lines::new(), With::<Undropped>(std::marker::PhantomData))
        });
        for _ in 0..3 {
            let mut unmade = server.connect();
            assert_eq!(unmade.rest_text(), "");
            let mut undropped = crate::client::Client::connect(&server.addresses()[1]);
            assert_eq!(undropped.exchange(b"served\n"), b"served\n");
        }
        server.holds(0);
        server.expect_panics(6);
    });
}

/// Lines, but it panics where it is told to.
#[derive(Clone)]
struct Fragile(Lines);

impl Codec for Fragile {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        assert!(!input.starts_with(b"decode"), "in decode");
        self.0.decode(input)
    }

    fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        assert!(!tail.starts_with(b"end"), "in decode_end");
        Ok(Some(tail))
    }
}

impl Encode<&[u8]> for Fragile {
    fn encode(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"> ");
        assert!(!reply.starts_with(b"encode"), "in encode");
        self.0.encode(reply, out)
    }
}

fn fragile(server: Server) -> Server {
    server.serve(ANY, Fragile(Lines::new()), |conn, line| conn.send(line))
}

#[test]
fn a_codec_that_panics_costs_one_connection() {
    on_every_driver(|case| {
        let server = case.start(fragile);
        let mut other = server.connect();
        for (panics, (stream, replies)) in [
            ("one\ndecode\ntwo\n", "> one\n"),
            ("one\nencode\ntwo\n", "> one\n"),
            ("one\nend", "> one\n"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut client = server.connect();
            client.send(stream);
            client.half_close();
            assert_eq!(client.rest_text(), replies, "{stream:?}");
            assert_eq!(server.stats().panics, panics as u64 + 1);
            assert_eq!(other.ask("I live"), "> I live");
        }
        let mut tail = server.connect();
        assert_eq!(tail.exchange(b"one\ntail"), b"> one\n> tail\n", "this codec takes a tail");
        server.expect_panics(3);
    });
}

/// Lines, but it takes as many bytes of `take COUNT` as are written there.
#[derive(Clone)]
struct Miscounts(Lines);

impl Codec for Miscounts {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let decoded = self.0.decode(input)?;
        if let Decoded::Frame { frame, .. } = decoded
            && let Some(count) = frame.strip_prefix(b"take ")
        {
            let count = std::str::from_utf8(count).expect("a number").parse().expect("a number");
            return Ok(Decoded::Frame { frame, consumed: count });
        }
        Ok(decoded)
    }
}

impl Encode<&[u8]> for Miscounts {
    fn encode(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.encode(reply, out)
    }
}

#[test]
fn a_codec_that_miscounts_costs_one_connection() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            server.serve(ANY, Miscounts(Lines::new()), |conn, line| conn.send(line))
        });
        let mut other = server.connect();
        for (defects, count) in (1..).zip(["0", "1000", "18446744073709551615"]) {
            let mut client = server.connect();
            client.send(format!("one\ntake {count}\ntwo\n"));
            assert_eq!(client.rest_text(), "one\n", "{count}");
            assert_eq!(server.stats().codec_defects, defects, "{count}");
            assert_eq!(other.ask("I live"), "I live", "{count}");
        }
        let errors = server.log.about("the codec has a defect: it took 0 of");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("Miscounts"), "{errors:?} names the codec");
    });
}

/// Sends every line to all the others before it fails, or not.
struct Crier;

impl Handler for Crier {
    type Codec = Fragile;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send(b"open".as_slice());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.others().for_each(|other| other.send(line));
        Ok(())
    }
}

#[test]
fn half_a_reply_is_taken_back_from_the_client_it_was_for() {
    on_every_driver(|case| {
        let server = case.start(|server| server.serve_with(ANY, Fragile(Lines::new()), Crier));
        let (mut listener, mut crier) = (server.connect(), server.connect());
        assert_eq!(listener.line(), "> open");
        assert_eq!(crier.line(), "> open");
        crier.send("first\nencode\nlast\n");
        assert_eq!(listener.line(), "> first");
        assert_eq!(crier.rest_text(), "", "it panicked");
        let mut second = server.connect();
        assert_eq!(second.line(), "> open");
        second.send("and on\n");
        assert_eq!(listener.line(), "> and on");
        server.expect_panics(1);
    });
}
