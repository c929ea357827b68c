//! Starting the program, talking to it, and ending it whatever happens.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take. Nothing takes a tenth of it unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_nonforker");

/// The program with these flags, split at spaces.
pub(crate) fn command(flags: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(flags.split_whitespace());
    command
}

/// `program` started by way of another command, which becomes it with `exec`.
pub(crate) fn via(wrapper: &[&str], program: &Path, flags: &str) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(program).args(flags.split_whitespace());
    command
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it runs");
    }

    /// Waits for the end, and returns the exit status.
    pub(crate) fn status(&mut self) -> i32 {
        let mut status = None;
        until("the program ends", || {
            status = self.0.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        let status = status.expect("it has ended");
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that listens, with its output collected.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// As printed behind `listening on `.
    pub(crate) addresses: Vec<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Starts it with these flags at a port that the kernel chooses.
    pub(crate) fn start(flags: &str) -> Self {
        Self::from(&mut command(&format!("--listen 127.0.0.1:0 {flags}")), 1)
    }

    /// Starts it, and reads where it listens from so many lines.
    pub(crate) fn from(command: &mut Command, lines: usize) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let stderr = collect(process.0.stderr.take().expect("it is piped"));
        let stdout = process.0.stdout.take().expect("it is piped");
        let addresses = listening(stdout, lines)
            .unwrap_or_else(|| panic!("{command:?} does not listen: {}", text(&stderr)));
        Self { process, addresses, stderr }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addresses[0]).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What comes back for `bytes` and the end of them.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        reply
    }

    pub(crate) fn assert_answers(&self) {
        assert_eq!(self.ask(b"are you there?\n"), b"are you there?\n");
    }

    /// What it has written to standard error so far.
    pub(crate) fn log(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until the log contains `part`.
    pub(crate) fn await_log(&self, part: &str) {
        until(part, || self.log().contains(part));
    }

    /// Waits for the end and the last of the log, and returns the exit status.
    pub(crate) fn status(&mut self) -> i32 {
        let status = self.process.status();
        // Whoever collects it lets go of it at the end.
        until("the log has been read", || Arc::strong_count(&self.stderr) == 1);
        status
    }

    /// Asks it to end, and expects that it does.
    pub(crate) fn end(mut self) -> String {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.status(), 0, "{}", self.log());
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert!(!self.log().contains("panic"), "{}", self.log());
        }
    }
}

/// What a process that ends by itself had to say.
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    run_with(command, b"")
}

/// Runs a command to its end, with this for its standard input.
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let stdout = collect(process.0.stdout.take().expect("it is piped"));
    let stderr = collect(process.0.stderr.take().expect("it is piped"));
    let mut stdin = process.0.stdin.take().expect("it is piped");
    // A program that does not listen to its input may have ended.
    let _ = stdin.write_all(input);
    drop(stdin);
    let status = process.status();
    // The last readers of the pipes are their collecting threads.
    until("the output is complete", || {
        Arc::strong_count(&stdout) + Arc::strong_count(&stderr) == 2
    });
    Output { status, stdout: text(&stdout), stderr: text(&stderr) }
}

/// Waits until something is the case.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a command that a test needs is there. If not, that is said, not passed over.
pub(crate) fn is_there(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !found {
        eprintln!("skipped: there is no {name}");
    }
    found
}

/// Connects to a Unix socket that may not be there yet.
pub(crate) fn connect_unix(path: &Path) -> UnixStream {
    let mut stream = None;
    until("the socket is there", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let stream = stream.expect("it is there");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a line and expects it back, and nothing else.
pub(crate) fn assert_echoes(mut stream: UnixStream) {
    stream.write_all(b"are you there?\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "are you there?\n");
}

/// A folder that goes when the test ends. Its path is short enough for Unix sockets.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nonforker-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder for temporary files");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}

/// Collects what a process writes, on a thread.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&bytes);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            collected.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    bytes
}

/// Reads so many lines that say where the program listens.
fn listening(stdout: ChildStdout, count: usize) -> Option<Vec<String>> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (0..count)
        .map(|_| {
            let line = lines.recv_timeout(PATIENCE).ok()?;
            Some(line.strip_prefix("listening on ")?.to_owned())
        })
        .collect()
}
