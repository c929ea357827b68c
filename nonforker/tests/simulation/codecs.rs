//! A codec is the user's, too: what it panics at or cannot frame harms nobody but whoever asked.

use std::{cell::Cell, panic::resume_unwind, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, ConnId, Handler, Limits, Outcome, Server,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError},
    sim::{Ending, Faults, Simulation},
};

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

impl Handler<Fragile> for Passes {
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Fragile>) -> Outcome {
        self.first.get_or_insert_with(|| conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Fragile>, line: &[u8]) -> Outcome {
        if let Some(line) = line.strip_prefix(b"to ") {
            conn.send_to(self.first.ok_or("nobody came first")?, line)?;
        } else {
            conn.send(line);
            conn.send(&b"again"[..]);
        }
        Ok(())
    }

    fn closed(&mut self, _conn: &mut Conn<'_, Fragile>, reason: &CloseReason) {
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
fn a_codec_that_panics_in_a_push_ends_who_pushes_and_harms_nobody_else() {
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
