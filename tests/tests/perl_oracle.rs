//! The recipe this crate began with, run by Perl: the same bytes in, the same bytes out.
//!
//! A script is what one client does. Where the two differ on purpose, scripts do not go: the
//! recipe forgets its replies when a client finishes, so a script waits for them before it does.

#![expect(
    clippy::disallowed_methods,
    reason = "clients run in real time, and may block: they are not on a shard"
)]
#![expect(clippy::panic, reason = "this is how a test fails")]

#[expect(dead_code, reason = "shared with serve, which uses all of it")]
#[path = "serve/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with serve, which uses all of it")]
#[path = "serve/harness.rs"]
mod harness;
#[expect(dead_code, reason = "shared with serve, which uses all of it")]
#[path = "serve/log.rs"]
mod log;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nonforker::{Address, codec::Lines, sim::Rng};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver},
};

/// What a client does next.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    /// Reads as many lines as it has sent.
    Wait,
}

use Step::{Send, Wait};

/// Plays a script, finishes, and returns all that came back.
fn play(address: &Address, script: &[Step]) -> Vec<u8> {
    let mut client = Client::connect(address);
    let (mut sent, mut answered, mut replies) = (0, 0, Vec::new());
    for step in script.iter().chain([&Wait]) {
        match step {
            Send(bytes) => {
                client.send(bytes);
                sent += bytes.iter().filter(|&&byte| byte == b'\n').count();
            }
            Wait => {
                for _ in answered..sent {
                    replies.extend(client.line_bytes());
                }
                answered = sent;
            }
        }
    }
    client.half_close();
    replies.extend(client.rest());
    replies
}

/// The server in Perl. Dropped, it ends, because its input does.
struct Oracle(Child, Address);

impl Oracle {
    /// `None` if there is no Perl.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle.pl");
        let child =
            Command::new("perl").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: there is no perl to compare with");
            return None;
        };
        let mut port = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut port).expect("the oracle says its port");
        let address = format!("127.0.0.1:{}", port.trim());
        Some(Self(child, address.parse().expect("the oracle says a port")))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("the oracle ends");
    }
}

/// Scripts worth writing down.
fn known() -> Vec<Vec<Step>> {
    let send = |bytes: &[u8]| Send(bytes.to_vec());
    vec![
        vec![],
        vec![send(b"one\n")],
        vec![send(b"one\ntwo\nthree\n")],
        vec![send(b"on"), send(b"e\ntw"), Wait, send(b"o\n")],
        vec![send(b"\n\n\n"), Wait, send(b"\n")],
        vec![send(b"whole\ntail")],
        vec![send(b"tail")],
        vec![send(b"\0\r\n\xff\xfe\n\r\r\n")],
        vec![send(&b"x".repeat(60_000)), send(b"\n"), Wait, send(b"y\n")],
        vec![send(&b"a line\n".repeat(20_000)), Wait, send(b"last\n")],
    ]
}

/// Scripts nobody thought of: the same ones every time.
fn random(seed: u64) -> Vec<Step> {
    let rng = Rng::new(seed);
    let mut steps = Vec::new();
    for _ in 0..rng.below(8) {
        if rng.below(3) == 0 {
            steps.push(Wait);
        } else {
            let length = if rng.below(10) == 0 { rng.below(5000) } else { rng.below(40) };
            let byte = |_| b"\n\n\r\0ab\xff "[rng.between(0, 7)];
            steps.push(Send((0..length).map(byte).collect()));
        }
    }
    steps
}

#[test]
fn the_recipe_and_this_server_answer_alike() {
    on_every_driver(|case| {
        let Some(oracle) = Oracle::start() else { return };
        let server =
            case.start(|server| server.serve(ANY, Lines::new(), |conn, line| conn.send(line)));
        for (number, script) in known().into_iter().chain((0..150).map(random)).enumerate() {
            let expected = play(&oracle.1, &script);
            let replies = play(server.address(), &script);
            assert!(replies == expected, "script {number}: {script:?}");
        }
    });
}
