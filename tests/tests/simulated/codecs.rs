//! A codec is the user's, too: what it panics at or cannot frame harms nobody but whoever asked.

use std::{cell::Cell, panic::resume_unwind, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, ConnId, Handler, Limits, Outcome, Server,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError, Lines},
    sim::{Ending, Faults, Simulation},
};

use crate::{anybody::send_to, drain::Ponders, warnings::said};

/// Lines, some of which are too much for it.
#[derive(Clone)]
struct Fragile;

impl Codec for Fragile {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Ok(Decoded::Incomplete { need: 1 });
        };
        if input.starts_with(b"undecodable") {
            // Unlike `panic!` it does not fill the output of the test.
            resume_unwind(Box::new("the codec's fault"));
        }
        Ok(Decoded::Frame { frame: &input[..end], consumed: end + 1 })
    }
}

impl Encode<&[u8]> for Fragile {
    fn encode(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(reply);
        if reply.starts_with(b"unframeable") {
            return Err(EncodeError::Unframeable { what: "what it must not" });
        }
        if reply.starts_with(b"unencodable") {
            resume_unwind(Box::new("the codec's fault"));
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Echoes twice; what begins with `to ` goes to whoever came first.
struct Passes {
    first: Option<ConnId>,
    /// Why the last connection ended.
    reason: Rc<Cell<Option<&'static str>>>,
}

impl Handler for Passes {
    type Codec = Fragile;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.first.get_or_insert_with(|| conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if let Some(line) = line.strip_prefix(b"to ") {
            send_to(conn, self.first.ok_or("nobody came first")?, line)?;
        } else {
            conn.send(line);
            conn.send(&b"again"[..]);
        }
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.reason.set(Some(match reason {
            CloseReason::Panicked => "panicked",
            CloseReason::Encode(_) => "unframeable",
            _ => "other",
        }));
    }
}

fn simulation(limits: fn() -> Limits) -> (Simulation, Rc<Cell<Option<&'static str>>>) {
    let reason = Rc::default();
    let told = Rc::clone(&reason);
    let server = move || {
        let handler = Passes { first: None, reason: Rc::clone(&told) };
        Server::new().limits(limits()).serve_with("127.0.0.1:1", Fragile, handler)
    };
    (Simulation::new(server), reason)
}

#[test]
fn a_codec_that_fails_ends_the_connection_behind_the_replies_before() {
    for (sent, replies, why) in [
        ("one\nundecodable\ntwo\n", "one\nagain\n", "panicked"),
        ("one\nunencodable\ntwo\n", "one\nagain\n", "panicked"),
        ("one\nunframeable\ntwo\n", "one\nagain\n", "unframeable"),
    ] {
        let (simulation, reason) = simulation(Limits::new);
        simulation.seeds(0..50).run(|net| {
            let client = net.connect();
            client.send(sent);
            client.half_close();
            let (received, ending) = client.receive_to_end();
            assert_eq!(String::from_utf8_lossy(&received), replies, "{sent:?}");
            assert_eq!((ending, reason.get()), (Some(Ending::Finished), Some(why)), "{sent:?}");
        });
    }
}

#[test]
fn a_codec_that_panics_in_a_push_ends_only_the_client_that_pushes() {
    let (simulation, reason) = simulation(Limits::new);
    simulation.seeds(0..50).faults(|_| Faults::none()).run(|net| {
        let (first, other) = (net.connect(), net.connect());
        first.send("hello\n");
        net.wait(Duration::from_secs(1));
        // The push and what it is appended to are queued together.
        first.stall();
        first.set_window(1);
        first.send("one\n");
        net.wait(Duration::from_secs(1));
        other.send("to two\nto unencodable\nto three\n");
        other.expect_end();
        assert_eq!(reason.get(), Some("panicked"));
        first.read_all();
        first.send("last\n");
        first.expect("hello\nagain\none\nagain\ntwo\nlast\nagain\n");
    });
}

/// Lines, some of which it says to be longer or shorter than they can be.
#[derive(Clone)]
struct Miscounts;

impl Codec for Miscounts {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Ok(Decoded::Incomplete { need: 1 });
        };
        let frame = &input[..end];
        Ok(match frame {
            b"takes nothing" => Decoded::Frame { frame, consumed: 0 },
            b"takes too much" => Decoded::Frame { frame, consumed: input.len() + 1 },
            b"takes what cannot be" => Decoded::Frame { frame, consumed: usize::MAX },
            b"skips nothing" => Decoded::Skip(0),
            b"skips too much" => Decoded::Skip(input.len() + 1),
            b"skip" => Decoded::Skip(end + 1),
            _ => Decoded::Frame { frame, consumed: end + 1 },
        })
    }
}

impl Encode<&[u8]> for Miscounts {
    fn encode(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(reply);
        out.push(b'\n');
        Ok(())
    }
}

const MISCOUNTED: [&str; 5] =
    ["takes nothing", "takes too much", "takes what cannot be", "skips nothing", "skips too much"];

struct Echo(Rc<Cell<bool>>);

impl Handler for Echo {
    type Codec = Miscounts;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        assert!(!MISCOUNTED.map(str::as_bytes).contains(&line), "nobody vouches for this frame");
        conn.send(line);
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.0.set(matches!(reason, CloseReason::CodecDefect));
    }
}

#[test]
fn a_codec_that_miscounts_ends_the_connection_behind_the_replies_before() {
    let is_told = Rc::new(Cell::new(false));
    for line in MISCOUNTED {
        let handler = Rc::clone(&is_told);
        let server = move || {
            let echo = Echo(Rc::clone(&handler));
            Server::new().serve_with("127.0.0.1:1", Miscounts, echo)
        };
        Simulation::new(server).seeds(0..50).run(|net| {
            let client = net.connect();
            client.send(format!("one\nskip\n{line}\nthree\n"));
            client.half_close();
            let (received, ending) = client.receive_to_end();
            assert_eq!(String::from_utf8_lossy(&received), "one\n", "{line}");
            assert_eq!((ending, is_told.take()), (Some(Ending::Finished), true), "{line}");
            let stats = net.stats();
            assert_eq!((stats.codec_defects, stats.panics, stats.frames), (1, 0, 1), "{line}");
        });
    }
}

fn takes_the_last() -> Simulation {
    Simulation::new(|| {
        let lines = Lines::new().crlf().accept_unterminated();
        Server::new().serve_with("127.0.0.1:1", lines, Ponders)
    })
}

#[test]
fn a_last_line_without_an_end_is_a_request_if_the_peer_has_finished() {
    for (sent, replies) in [
        ("last", "last\r\n"),
        ("one\nlast", "one\r\nlast\r\n"),
        ("one\r\nlast\r", "one\r\nlast\r\n"),
        ("one\n", "one\r\n"),
        ("", ""),
    ] {
        takes_the_last().seeds(0..100).run(|net| {
            let client = net.connect();
            client.send(sent);
            client.half_close();
            let (received, ending) = client.receive_to_end();
            assert_eq!(String::from_utf8_lossy(&received), replies, "{sent:?}");
            assert_eq!(ending, Some(Ending::Finished), "{sent:?}");
        });
    }
}

#[test]
fn a_codec_that_miscounts_is_named_once_a_second() {
    let log = said(|| {
        let server = || Server::new().serve("127.0.0.1:1", Miscounts, |conn, line| conn.send(line));
        let ran = Simulation::new(server).faults(|_| Faults::none()).run_one(0, |net| {
            for _ in 0..5 {
                let client = net.connect();
                client.send("takes nothing\n");
                client.expect_end();
                client.half_close();
                net.wait(Duration::from_millis(300));
            }
        });
        assert_eq!(ran.expect("nothing else is wrong").stats.codec_defects, 5);
    });
    let log: Vec<_> = log.iter().filter(|said| said.message.contains("codec")).collect();
    let (first, second) = (&log[0], &log[1]);
    assert_eq!(first.message, "the codec has a defect: it took 0 of 14 bytes");
    assert_eq!((log.len(), first.left_out, second.left_out), (2, 0, 3));
}

#[test]
fn a_last_line_is_answered_in_a_drain_too() {
    takes_the_last().seeds(0..50).faults(|_| Faults::none()).run(|net| {
        let client = net.connect();
        client.send("one\ntwo\nlast");
        client.half_close();
        // All has arrived: the first line is being answered, the others wait for that.
        net.wait(Duration::from_millis(1));
        net.drain();
        client.expect("one\r\ntwo\r\nlast\r\n");
        client.expect_end();
    });
}

#[test]
fn a_last_line_that_a_drain_or_a_reset_cuts_off_is_no_request() {
    for is_reset in [false, true] {
        takes_the_last().seeds(0..200).run(|net| {
            let client = net.connect();
            client.send("one\nlast");
            net.wait(Duration::from_micros(net.rng().below(20_000)));
            if is_reset {
                client.reset();
                net.wait(Duration::from_secs(3600));
            }
            net.drain();
            let _ = client.receive_to_end();
            assert!(net.stats().frames <= 1, "{} lines", net.stats().frames);
        });
    }
}
