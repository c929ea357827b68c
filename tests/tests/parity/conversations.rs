//! Conversations: the handler sees the same frames and the same ends, the client gets the same
//! bytes.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use nonforker::{
    Address, CloseReason, Conn, DriverKind, Handler, Limits, Outcome, Server,
    codec::{FrameError, Lines},
    sim::{Faults, Simulation},
};
use socket2::SockRef;

/// What a client does, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(&'static [u8]),
    Urgent(u8),
    Expect(&'static [u8]),
    HalfClose,
    Reset,
    ExpectEnd,
    ExpectReset,
}

use Step::{Expect, ExpectEnd, ExpectReset, HalfClose, Reset, Send, Urgent};

struct Case {
    name: &'static str,
    steps: &'static [Step],
    /// What the handler saw.
    seen: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "lines in pieces",
        steps: &[Send(b"on"), Send(b"e\ntwo\nth"), Expect(b"one\ntwo\n"), HalfClose, ExpectEnd],
        seen: &["open", "one", "two", "rejected", "the peer stopped 2 bytes into a frame"],
    },
    Case {
        name: "half-close with replies to come",
        steps: &[Send(b"a\nb\n"), HalfClose, Expect(b"a\nb\n"), ExpectEnd],
        seen: &["open", "a", "b", "half_closed", "the peer has finished"],
    },
    Case {
        name: "the handler closes",
        steps: &[Send(b"a\nclose\nb\n"), Expect(b"a\nbye\n"), ExpectEnd],
        seen: &["open", "a", "close", "closed by the handler"],
    },
    Case {
        name: "the handler finishes, and the client goes on",
        steps: &[Send(b"finish\na\n"), Expect(b"bye\n"), ExpectEnd, Send(b"b\n"), HalfClose],
        seen: &["open", "finish", "a", "b", "half_closed", "the peer has finished"],
    },
    Case {
        name: "the handler finishes, and the client resets",
        steps: &[Send(b"a\nfinish\n"), Expect(b"a\nbye\n"), ExpectEnd, Reset],
        seen: &["open", "a", "finish", "connection broken"],
    },
    Case {
        name: "both have finished",
        steps: &[Send(b"a\nfinish\nb\n"), HalfClose, Expect(b"a\nbye\n"), ExpectEnd],
        seen: &["open", "a", "finish", "b", "half_closed", "the peer has finished"],
    },
    Case {
        name: "the handler aborts",
        steps: &[Send(b"abort\n"), ExpectReset],
        seen: &["open", "abort", "aborted by the handler"],
    },
    Case {
        name: "the handler fails",
        steps: &[Send(b"a\nfail\nb\n"), Expect(b"a\n"), ExpectEnd],
        seen: &["open", "a", "fail", "the handler failed: as asked"],
    },
    Case {
        name: "a frame too long",
        steps: &[Send(b"0123456789\n01234567890\n"), Expect(b"0123456789\ntoo long\n"), ExpectEnd],
        seen: &["open", "0123456789", "rejected", "frame too long: more than 10 bytes"],
    },
    Case {
        name: "an urgent byte beside the stream",
        steps: &[
            Send(b"a\n"),
            Expect(b"a\n"),
            Urgent(b'!'),
            Expect(b"urgent\n"),
            HalfClose,
            ExpectEnd,
        ],
        seen: &["open", "a", "urgent !", "half_closed", "the peer has finished"],
    },
    Case {
        name: "the client resets",
        steps: &[Send(b"a\nb"), Expect(b"a\n"), Reset],
        seen: &["open", "a", "connection broken"],
    },
    Case {
        name: "nothing at all",
        steps: &[HalfClose, ExpectEnd],
        seen: &["open", "half_closed", "the peer has finished"],
    },
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("nobody panics with it").push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nobody panics with it"))
    }
}

type Talk<'c> = Conn<'c, Log>;

impl Log {
    fn urgent(&mut self, conn: &mut Talk<'_>, byte: u8) -> Outcome {
        self.note(format!("urgent {}", byte as char));
        conn.send("urgent");
        Ok(())
    }
}

impl Handler for Log {
    type Codec = Lines;
    type Session = ();
    const URGENT: Option<nonforker::Urgent<Self>> = Some(Self::urgent);

    fn open(&mut self, _conn: &mut Talk<'_>) -> Outcome {
        self.note("open");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Talk<'_>, line: &[u8]) -> Outcome {
        self.note(String::from_utf8_lossy(line));
        match line {
            b"close" => {
                conn.send("bye");
                conn.close();
            }
            b"finish" => {
                conn.send("bye");
                conn.finish();
            }
            b"abort" => conn.abort(),
            b"fail" => return Err("as asked".into()),
            line => conn.send(line),
        }
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Talk<'_>) -> Outcome {
        self.note("half_closed");
        conn.close();
        Ok(())
    }

    fn rejected(&mut self, conn: &mut Talk<'_>, error: &FrameError) {
        self.note("rejected");
        if matches!(error, FrameError::TooLong { .. }) {
            conn.send("too long");
        }
    }

    fn closed(&mut self, _conn: &mut Talk<'_>, reason: &CloseReason) {
        self.note(match reason {
            // The network says it in its own words.
            CloseReason::Broken(_) => "connection broken".to_owned(),
            reason => reason.to_string(),
        });
    }
}

fn server(log: &Log) -> Server {
    let limits = Limits::new().linger_timeout(Duration::from_millis(500));
    Server::new().limits(limits).serve_with("127.0.0.1:0", Lines::with_max(10), log.clone())
}

fn on_simulation(case: &Case) -> Vec<String> {
    let log = Log::default();
    let handler = log.clone();
    let simulation = Simulation::new(move || server(&handler)).seeds(0..1);
    simulation.faults(|_| Faults::none()).run(|net| {
        // A simulation runs its first seed several times.
        log.take();
        let client = net.connect();
        for step in case.steps {
            match *step {
                Send(bytes) => client.send(bytes),
                Urgent(byte) => client.send_urgent(byte),
                Expect(bytes) => client.expect(bytes),
                HalfClose => client.half_close(),
                Reset => client.reset(),
                ExpectEnd => client.expect_end(),
                ExpectReset => assert_eq!(
                    client.receive_to_end().1,
                    Some(nonforker::sim::Ending::Reset),
                    "{}",
                    case.name
                ),
            }
        }
    });
    log.take()
}

fn over_sockets(case: &Case, driver: DriverKind) -> Vec<String> {
    let log = Log::default();
    let (started, address) = mpsc::channel();
    let handler = log.clone();
    let serving = thread::spawn(move || {
        let bound = server(&handler).driver(driver).bind().expect("a free port");
        if let Address::Tcp(address) = bound.addresses()[0] {
            started.send((address, bound.handle())).expect("the test waits");
        }
        bound.run().expect("the server ends in order");
    });
    let (address, handle) = address.recv().expect("the server starts");
    converse(case, address);
    // What the client did last is seen before the drain: it has arrived.
    handle.drain();
    serving.join().expect("the server does not panic");
    assert_eq!(handle.stats().defects, 0, "{}", case.name);
    log.take()
}

/// Reads one byte. What only interrupts the client says nothing about the server.
fn read(stream: &mut TcpStream) -> io::Result<usize> {
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn converse(case: &Case, address: SocketAddr) {
    let name = case.name;
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    stream.set_nodelay(true).expect("an option can be set");
    for step in case.steps {
        match *step {
            Send(bytes) => stream.write_all(bytes).expect(name),
            Urgent(byte) => {
                SockRef::from(&stream).send_out_of_band(&[byte]).expect(name);
            }
            Expect(bytes) => {
                let mut got = vec![0; bytes.len()];
                stream.read_exact(&mut got).expect(name);
                assert_eq!(got, bytes, "{name}");
            }
            HalfClose => stream.shutdown(Shutdown::Write).expect(name),
            Reset => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect(name);
                return;
            }
            ExpectEnd => assert_eq!(read(&mut stream).expect(name), 0, "{name}"),
            ExpectReset => {
                let error = read(&mut stream).expect_err(name);
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}");
            }
        }
    }
}

#[test]
fn the_simulated_network_and_the_kernel_agree() {
    for case in CASES {
        assert_eq!(on_simulation(case), case.seen, "{} on the simulation", case.name);
        for (name, driver) in [("poll", DriverKind::Poll), ("uring", DriverKind::Uring)] {
            if crate::has(driver, case.name) {
                assert_eq!(over_sockets(case, driver), case.seen, "{} on {name}", case.name);
            }
        }
    }
}
