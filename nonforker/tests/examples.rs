//! Every example runs and does what it says, over a Unix socket.

#![expect(clippy::disallowed_methods, reason = "a client in a test may wait")]
#![expect(clippy::panic, reason = "that is how a test fails")]

use std::{
    env,
    error::Error as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nonforker::{DriverKind, Error, Server, codec::Lines};

const PATIENCE: Duration = Duration::from_secs(10);

/// An example that runs until the test ends.
struct Example {
    child: Child,
    socket: PathBuf,
}

impl Example {
    fn start(name: &str, driver: &str) -> Self {
        let mut binary = env::current_exe().expect("a test has a path");
        binary.pop();
        binary.pop();
        let binary = binary.join("examples").join(name);
        assert!(
            binary.exists(),
            "{} is built by `cargo test`, without --test or --all-targets",
            binary.display()
        );
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), STARTED.fetch_add(1, Relaxed));
        let socket = format!("nonforker-{name}-{driver}-{process}-{number}.sock");
        let socket = env::temp_dir().join(socket);
        let address = format!("unix:{}", socket.display());
        let mut command = Command::new(binary);
        if name == "logging" {
            command.stderr(Stdio::piped());
        }
        let child = command.arg(address).env("NONFORKER_DRIVER", driver).spawn();
        let child = child.expect("the example starts");
        Self { child, socket }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let began = Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
                    return BufReader::new(stream);
                }
                Err(error) if began.elapsed() > PATIENCE => panic!("cannot connect: {error}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("the example can be waited for") {
                return status.success();
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Runs `test` on every driver. A failure names it.
fn on_every_driver(test: impl Fn(&str)) {
    for (name, kind) in [("poll", DriverKind::Poll), ("uring", DriverKind::Uring)] {
        let server = Server::new().driver(kind).serve("127.0.0.1:0", Lines::new(), |_, _| {});
        if let Err(error @ Error::NoUring(_)) = server.bind() {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            // Past the test harness, which keeps the output of tests that pass to itself.
            let _ = writeln!(io::stderr(), "skipped: {name}: {cause}");
            continue;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| test(name))) {
            let _ = writeln!(io::stderr(), "this was {name}");
            resume_unwind(payload);
        }
    }
}

fn send(stream: &mut BufReader<UnixStream>, bytes: &[u8]) {
    stream.get_mut().write_all(bytes).expect("the server takes it");
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the server answers");
    line.trim_end().to_owned()
}

fn rest(stream: &mut BufReader<UnixStream>) -> Vec<u8> {
    stream.get_ref().shutdown(Shutdown::Write).expect("the stream is open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the server closes in order");
    rest
}

#[test]
fn echo_sends_every_line_back() {
    on_every_driver(|driver| {
        let example = Example::start("echo", driver);
        let mut client = example.connect();
        send(&mut client, b"one\ntwo\nincomplete");
        assert_eq!(rest(&mut client), b"one\ntwo\n");
    });
}

/// A chat, and two that have joined it.
fn chat_of_two(driver: &str) -> (Example, BufReader<UnixStream>, BufReader<UnixStream>) {
    let example = Example::start("chat", driver);
    let mut ann = example.connect();
    send(&mut ann, b"ann\n");
    assert_eq!(line(&mut ann), "* ann joined lobby");
    let mut bob = example.connect();
    send(&mut bob, b"bob\n");
    assert_eq!(line(&mut bob), "* bob joined lobby");
    assert_eq!(line(&mut ann), "* bob joined lobby");
    (example, ann, bob)
}

#[test]
fn chat_says_to_everybody_in_the_room_and_to_nobody_else() {
    on_every_driver(|driver| {
        let (_example, mut ann, mut bob) = chat_of_two(driver);
        send(&mut bob, b"hello\n");
        assert_eq!(line(&mut ann), "bob: hello");
        assert_eq!(line(&mut bob), "bob: hello");

        send(&mut ann, b"/join den\n");
        assert_eq!(line(&mut bob), "* ann left lobby");
        assert_eq!(line(&mut ann), "* ann joined den");
        send(&mut ann, b"alone?\n");
        assert_eq!(line(&mut ann), "ann: alone?");
        send(&mut bob, b"/join den\n");
        assert_eq!(line(&mut bob), "* bob joined den", "what was said elsewhere did not reach bob");
        assert_eq!(line(&mut ann), "* bob joined den");
        drop(bob);
        assert_eq!(line(&mut ann), "* bob left den");
    });
}

#[test]
fn chat_has_a_moderator_who_can_kick() {
    on_every_driver(|driver| {
        let (_example, mut ann, mut bob) = chat_of_two(driver);
        send(&mut ann, b"/kick bob\n");
        assert_eq!(rest(&mut bob), b"");
        assert_eq!(line(&mut ann), "* bob left lobby");
    });
}

#[test]
fn market_data_has_quotes_for_those_who_subscribe() {
    on_every_driver(|driver| {
        let example = Example::start("market_data", driver);
        let mut client = example.connect();
        send(&mut client, b"ABC\n");
        let price = |line: String| -> u64 {
            line.strip_prefix("ABC ").expect("no other symbol").parse().expect("a price")
        };
        let first = price(line(&mut client));
        for count in 1..=20 {
            assert_eq!(price(line(&mut client)), first + count);
        }
    });
}

#[test]
fn game_shows_twenty_times_a_second_where_everybody_is() {
    on_every_driver(|driver| {
        let example = Example::start("game", driver);
        let mut client = example.connect();
        assert!(line(&mut client).ends_with(":0,0"));
        send(&mut client, b"north\neast\nnorth\n");
        let began = Instant::now();
        while !line(&mut client).ends_with(":1,2") {
            assert!(began.elapsed() < PATIENCE, "it never moves");
        }
        for _ in 0..20 {
            assert!(line(&mut client).ends_with(":1,2"));
        }
        let elapsed = began.elapsed();
        assert!(elapsed >= Duration::from_millis(900), "{elapsed:?} for 20 pictures");
    });
}

#[test]
fn own_codec_frames_by_length() {
    on_every_driver(|driver| {
        let example = Example::start("own_codec", driver);
        let mut client = example.connect();
        send(&mut client, b"\x05hello\x00\x03a");
        send(&mut client, b"bc");
        assert_eq!(rest(&mut client), b"\x05olleh\x00\x03cba");
    });
}

#[test]
fn own_lines_end_where_the_codec_says() {
    on_every_driver(|driver| {
        let example = Example::start("own_lines", driver);
        let mut client = example.connect();
        send(&mut client, b"one;tw");
        send(&mut client, b"o;;three");
        assert_eq!(rest(&mut client), b"one;two;;");
    });
}

#[test]
fn graceful_stop_answers_before_it_ends() {
    on_every_driver(|driver| {
        let mut example = Example::start("graceful_stop", driver);
        let mut client = example.connect();
        send(&mut client, b"a\nb\nstop\nc\n");
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).expect("the server closes in order");
        assert_eq!(answers, b"a\nb\nstop\nc\n");
        drop(client);
        assert!(example.has_ended(), "it exits with success");
    });
}

#[test]
fn timers_tick_as_often_as_asked() {
    on_every_driver(|driver| {
        let example = Example::start("timers", driver);
        let mut client = example.connect();
        send(&mut client, b"1\n");
        for count in 1..=20 {
            assert_eq!(line(&mut client), format!("tick {count}"));
        }
    });
}

#[test]
fn job_server_keeps_nobody_waiting_but_the_client_that_asked() {
    on_every_driver(|driver| {
        let example = Example::start("job_server", driver);
        let (mut slow, mut quick) = (example.connect(), example.connect());
        send(&mut slow, b"query 400 one\nping\n");
        let began = Instant::now();
        send(&mut quick, b"ping\nquery 1 two\n");
        assert_eq!((line(&mut quick), line(&mut quick)), ("pong".into(), "done two".into()));
        assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
        assert_eq!(rest(&mut slow), b"done one\npong\n");
        assert!(began.elapsed() >= Duration::from_millis(400), "it takes its time");
    });
}

#[test]
fn job_server_sqlite_keeps_notes_of_all() {
    on_every_driver(|driver| {
        let example = Example::start("job_server_sqlite", driver);
        let (mut one, mut two) = (example.connect(), example.connect());
        send(&mut one, b"add tea\nadd milk\n");
        assert_eq!((line(&mut one), line(&mut one)), ("1".into(), "2".into()));
        send(&mut two, b"get 2\nget 3\n");
        assert_eq!((line(&mut two), line(&mut two)), ("milk".into(), "none".into()));
    });
}

/// Each colour begins with an escape and ends with an `m`.
fn without_colours(line: &str) -> String {
    let (first, rest) = line.split_once('\x1b').unwrap_or((line, ""));
    let plain = rest.split('\x1b').filter_map(|part| part.split_once('m'));
    std::iter::once(first).chain(plain.map(|(_, text)| text)).collect()
}

#[test]
fn logging_shows_what_the_library_says() {
    on_every_driver(|driver| {
        let mut example = Example::start("logging", driver);
        let mut client = example.connect();
        send(&mut client, b"a\x1bb\n");
        assert_eq!(rest(&mut client), b"a\x1bb\n");
        drop(client);
        let log = BufReader::new(example.child.stderr.take().expect("it is piped"));
        // The server has one client, and does not end before it is told to.
        let mut missing = vec!["INFO nonforker", "DEBUG nonforker", r#"line="a\u{1b}b""#];
        for line in log.lines().map_while(Result::ok) {
            let line = without_colours(&line);
            missing.retain(|part| !line.contains(part));
            if missing.is_empty() {
                return;
            }
        }
        panic!("the log lacks {missing:?}");
    });
}

#[test]
fn simulate_finds_nothing_wrong() {
    let mut example = Example::start("simulate", "auto");
    assert!(example.has_ended(), "it exits with success");
}
