//! The key-value example and the programs of Redis: its clients talk to it, and its server answers
//! the same bytes as it does. What is not installed is skipped, loudly.

#![expect(clippy::disallowed_methods, reason = "a client in a test may wait")]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::{
    env, fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server behind a Unix socket, until the test ends.
struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    fn start(name: &str, command: impl FnOnce(&str) -> Command) -> Option<Self> {
        let socket = env::temp_dir().join(format!("nonforker-{name}-{}.sock", std::process::id()));
        let path = socket.to_str().expect("the folder for temporary files has a readable name");
        let child = command(path).stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?;
        let served = Self { child, socket };
        drop(served.connect());
        Some(served)
    }

    /// The example. The name keeps the sockets of several tests apart.
    fn example(name: &str) -> Self {
        Self::example_of("key_value", name)
    }

    fn example_of(example: &str, name: &str) -> Self {
        let mut binary = env::current_exe().expect("a test has a path");
        binary.pop();
        binary.pop();
        let binary = binary.join("examples").join(example);
        let start = Self::start(name, |path| {
            let mut command = Command::new(&binary);
            command.arg(format!("unix:{path}"));
            command
        });
        start.unwrap_or_else(|| {
            panic!("{} is built by `cargo test`, without --test", binary.display())
        })
    }

    fn connect(&self) -> UnixStream {
        let began = Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
                    return stream;
                }
                Err(error) if began.elapsed() > PATIENCE => panic!("cannot connect: {error}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Everything that is answered to these bytes.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // A server that closes at an error may do so before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// What a client prints on either output, or `None` if it is not installed.
    fn client(&self, program: &str, args: &[&str]) -> Option<String> {
        let output = Command::new(program).arg("-s").arg(&self.socket).args(args).output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: there is no {program}");
            return None;
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{program} {args:?} ended with {}: {text}", output.status);
        Some(text)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

#[test]
fn redis_cli_is_understood_and_understands() {
    const CASES: &[(&[&str], &str)] = &[
        (&["PING"], "PONG"),
        (&["ping", "hello you"], "hello you"),
        (&["SET", "key", "a value\nof two lines"], "OK"),
        (&["GET", "key"], "a value\nof two lines"),
        (&["get", "nothing"], ""),
        (&["--no-raw", "GET", "nothing"], "(nil)"),
        (&["--no-raw", "DEL", "key", "nothing"], "(integer) 1"),
        (&["GET", "key"], ""),
        (&["--no-raw", "CONFIG", "GET", "save"], "1) \"save\"\n2) \"\""),
        (&["--no-raw", "COMMAND", "DOCS"], "(empty array)"),
        (&["FLY"], "ERR unknown command, or wrong number of arguments"),
        (&["GET"], "ERR unknown command, or wrong number of arguments"),
    ];
    let example = Served::example("redis-cli");
    for (args, expected) in CASES {
        let Some(printed) = example.client("redis-cli", args) else { return };
        assert_eq!(printed.trim_end(), *expected, "redis-cli {args:?}");
    }
}

#[test]
fn redis_benchmark_runs_without_a_complaint() {
    let example = Served::example("redis-benchmark");
    for (name, pipeline) in [("one at a time", "1"), ("pipelined", "16"), ("deeply", "128")] {
        let args = ["-t", "ping,set,get", "-n", "5000", "-c", "20", "--csv", "-P", pipeline];
        let Some(printed) = example.client("redis-benchmark", &args) else { return };
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET"] {
            assert!(printed.contains(&format!("\"{test}\",")), "{name}, no {test}: {printed}");
        }
        for complaint in ["WARN", "ERR", "rror", "ould not"] {
            assert!(!printed.contains(complaint), "{name}: {printed}");
        }
    }
}

#[test]
fn the_sharded_store_answers_in_order_whichever_shard_a_client_is_on() {
    let example = Served::example_of("sharded_key_value", "sharded");
    let keys = 0..200;
    let one = |verb: &str| keys.clone().map(|key| format!("{verb} {key} v{key}\r\n")).collect();
    let stored: String = one("SET");
    assert_eq!(example.answer(stored.as_bytes()), b"$2\r\nOK\r\n".repeat(200));
    let gets: String = keys.clone().map(|key| format!("GET {key}\r\n")).collect();
    let value = |key| format!("v{key}");
    let got = |key| format!("${}\r\n{}\r\n", value(key).len(), value(key));
    let all: String = keys.clone().map(got).collect();
    for _ in 0..8 {
        assert_eq!(String::from_utf8_lossy(&example.answer(gets.as_bytes())), all);
    }
    for key in 0..8 {
        let Some(printed) = example.client("redis-cli", &["GET", &key.to_string()]) else { return };
        assert_eq!(printed.trim_end(), value(key));
    }
}

/// Bytes that both servers must answer in the same way, to the byte.
const SAME: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nping\r\n$3\r\na\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*0\r\n*-1\r\n*-7\r\nPING\r\n",
    b"SET k \"a b\"\r\nGET k\nDEL k k\nGET k\n",
    b"\r\n\n   \nPING\n",
    b"PING\r\nPIN",
    b"  ECHO\t\x0bx  \r\n",
    b"ECHO a\x0bb\n",
    b"ECHO\ra\n",
    b"ECHO \"\\x41\\x4\\xg\\n\\r\\t\\b\\a\\\\\\\"\\q\"\n",
    b"ECHO '\\n\\'\\\\ '\n",
    b"ECHO \\x41\n",
    b"ECHO a'b c'\n",
    b"ECHO \"\"\n",
    b"'ECHO'\t\"\xff\"\x0c\n",
    b"ECHO *1\r\n",
];

/// Bytes after which both must complain and close, each in its own words.
const REFUSED: &[&[u8]] = &[
    b"PING\r\n*x\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*1a\r\n$4\r\nPING\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*99999999999\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$x\r\nPING\r\n",
    b"*1\r\n$99999999999\r\nPING\r\n",
    b"ECHO 'a\nPING\n",
    b"ECHO \"a\\\"\nPING\n",
    b"ECHO \"a\"b\nPING\n",
    b"ECHO 'a''b'\nPING\n",
];

#[test]
fn redis_reads_the_same_bytes_in_the_same_way() {
    let redis = Served::start("redis-server", |path| {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", path]);
        command.current_dir(env::temp_dir());
        command
    });
    let Some(redis) = redis else {
        eprintln!("SKIPPED: there is no redis-server to compare with");
        return;
    };
    let example = Served::example("beside-redis");
    for bytes in SAME {
        let (theirs, ours) = (redis.answer(bytes), example.answer(bytes));
        // What Redis silently drops at the end of a stream, the example complains about.
        let ours = ours
            .strip_suffix(b"-ERR Protocol error: the peer stopped 3 bytes into a frame\r\n")
            .unwrap_or(&ours);
        assert_eq!(
            ours.escape_ascii().to_string(),
            theirs.escape_ascii().to_string(),
            "to \"{}\"",
            bytes.escape_ascii()
        );
        assert!(!theirs.is_empty());
    }
    for bytes in REFUSED {
        for (name, answer) in [("redis", redis.answer(bytes)), ("ours", example.answer(bytes))] {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let last = answer.lines().last().unwrap_or_default();
            let is_refused = last.starts_with("-ERR Protocol error: ");
            assert!(is_refused, "{name}: {answer:?} to \"{}\"", bytes.escape_ascii());
        }
    }
}
