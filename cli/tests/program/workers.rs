//! `--worker`: programs behind a port, real ones, and what they do wrong.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    errors::assert_complains,
    support::{Scratch, Server, command, is_there, run, until},
};

const ERROR: &str = "error: the worker ended";

const DRIVERS: [&str; 2] = ["poll", "uring"];

/// A server with this worker and these flags.
fn serve(worker: &str, flags: &str) -> Server {
    let mut line = command(&format!("serve --listen 127.0.0.1:0 {flags}"));
    line.args(["--worker", worker]);
    Server::from(&mut line, 1)
}

/// A worker in Python whose `answer(line)` returns the reply.
fn python(scratch: &Scratch, name: &str, answer: &str) -> String {
    let head = "import os, sys, time\n";
    let tail = "for line in sys.stdin:\n    reply = answer(line.rstrip('\\n'))\n    \
                print(reply, flush=True)\n";
    let path = scratch.write(name, &format!("{head}{answer}\n{tail}"));
    format!("python3 {}", path.display())
}

struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn of(server: &Server) -> Self {
        let writer = server.connect();
        let reader = BufReader::new(writer.try_clone().expect("a socket"));
        Self { writer, reader }
    }

    fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).expect("it is connected");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a reply");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(&format!("{text}\n"));
        self.line()
    }
}

/// How many processes have this in their command line.
fn processes_with(part: &str) -> usize {
    let Ok(all) = fs::read_dir("/proc") else { return 0 };
    let lines = all.flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(part)).count()
}

#[test]
fn the_workers_of_the_page_answer_and_leave_nothing_behind() {
    let page = include_str!("../../../docs/workers.md");
    let scratch = Scratch::new();
    let code = |language: &str| {
        let fence = format!("```{language}\n");
        let blocks = page.split(&fence).skip(1);
        // Those in one line are commands.
        let blocks = blocks.map(|rest| rest.split("```").next().expect("it ends"));
        blocks.max_by_key(|block| block.lines().count()).expect("it is there").to_owned()
    };
    let file = |language, name| scratch.write(name, &code(language)).display().to_string();
    let mut workers = vec![("sh", format!("sh {}", file("sh", "upper.sh")))];
    workers.push(("python3", format!("python3 {}", file("python", "upper.py"))));
    workers.push(("perl", format!("perl {}", file("perl", "upper.pl"))));
    if is_there("cc") {
        let program = scratch.path("upper-in-c").display().to_string();
        let made = Command::new("cc").args(["-o", &program, &file("c", "upper.c")]).status();
        assert!(made.expect("it runs").success());
        workers.push(("cc", program));
    }
    for (needs, worker) in workers {
        if !is_there(needs) {
            eprintln!("skipped: there is no {needs}");
            continue;
        }
        for driver in DRIVERS {
            let server = serve(&worker, &format!("--driver {driver} --workers 2"));
            let replies = server.ask(b"hello\nit's me\nlast");
            assert_eq!(replies, b"HELLO\nIT'S ME\nLAST\n", "{worker}: {}", server.log());
            server.end();
            let name = worker.rsplit('/').next().expect("a name");
            until("the workers are gone", || processes_with(name) == 0);
        }
    }
}

#[test]
fn wrong_flags_are_named() {
    for (flags, part) in [
        (&["--worker", ""][..], "it is empty"),
        (&["--worker", "sh -c 'x"], "a quote is not closed"),
        (&["--worker", "cat", "--workers", "0"], "from 1 to 256"),
        (&["--worker", "cat", "--worker-in-flight", "0"], "at least 1"),
        (&["--worker", "cat", "--codec", "raw"], "raw has none"),
        (&["--worker", "cat", "--worker-codec", "raw"], "raw has none"),
        (&["--worker", "cat", "--handler", "upper"], "--handler"),
        (&["--workers", "2"], "--worker"),
        (&["--worker", "cat", "--exec", "cat"], "--exec"),
        (&["--exec", "cat", "--handler", "upper"], "--handler"),
        (&["--exec", "cat", "--codec", "lines"], "--codec"),
        (&["--exec", "  "], "it is empty"),
        (&["--worker", "cat", "--worker-user", "nobody-of-that-name"], "this system has none"),
    ] {
        let output = run(command("serve").args(flags));
        assert_complains(&output, 2, &[part]);
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    for flags in ["", "--worker-restart always", "--shards 2"] {
        let mut line = command(&format!("serve --listen 127.0.0.1:0 {flags}"));
        let output = run(line.args(["--worker", "/no/such/program --at all"]));
        assert_eq!(output.status, 1, "{}", output.stderr);
        let last = output.stderr.lines().last().expect("a line");
        assert!(last.contains("/no/such/program --at all"), "{last}");
        assert!(last.contains("No such file"), "{last}");
    }
}

#[test]
fn workers_that_exit_at_their_start_end_the_server_with_their_last_words() {
    let mut line = command("serve --listen 127.0.0.1:0");
    let began = Instant::now();
    let output = run(line.args(["--worker", "sh -c 'echo no licence found >&2; exit 3'"]));
    assert_eq!(output.status, 1, "{}", output.stderr);
    let last = output.stderr.lines().last().expect("a line");
    assert!(last.contains("no licence found; exit status: 3"), "{}", output.stderr);
    assert!(began.elapsed() > Duration::from_millis(700), "they are not started at once");
}

#[test]
fn a_worker_that_is_killed_or_hangs_costs_one_reply_and_is_replaced() {
    let scratch = Scratch::new();
    let answer = "def answer(line):\n    if line == 'exit': os._exit(1)\n    \
                  if line == 'hang': time.sleep(1000)\n    return line.upper()";
    let worker = python(&scratch, "frail.py", answer);
    for driver in DRIVERS {
        let server = serve(&worker, &format!("--driver {driver} --worker-timeout 1s"));
        let mut client = Client::of(&server);
        assert_eq!(client.ask("one"), "ONE");
        assert_eq!(client.ask("exit"), ERROR);
        assert_eq!(client.ask("two"), "TWO");
        let began = Instant::now();
        assert_eq!(client.ask("hang"), ERROR);
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert_eq!(client.ask("three"), "THREE");
        assert_eq!(processes_with("frail.py"), 2, "the server, and one worker");
        server.end();
    }
}

#[test]
fn what_is_chatty_reaches_the_log_or_nobody() {
    let scratch = Scratch::new();
    let answer = "print('unasked', flush=True)\n\
                  def answer(line):\n    print('\\x1b[31m' + 'x' * 5000, file=sys.stderr)\n    \
                  for _ in range(100000): print('flood', file=sys.stderr)\n    return line";
    let worker = python(&scratch, "chatty.py", answer);
    let server = serve(&worker, "");
    server.await_log("what nobody had asked for");
    let mut client = Client::of(&server);
    assert_eq!(client.ask("one"), "one");
    assert_eq!(client.ask("two"), "two");
    server.await_log("worker 0");
    let log = server.end();
    assert!(log.contains("u{1b}[31mxxx") && !log.contains('\x1b'), "it is escaped");
    assert!(log.lines().all(|line| line.len() < 1500) && log.lines().count() < 200, "bounded");
}

#[test]
fn one_that_never_reads_is_replaced_and_clients_that_leave_do_no_harm() {
    let server = serve("sleep 1000", "--worker-timeout 500ms --worker-error close");
    let clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    let long = [b'x'; 60_000];
    for mut client in &clients[..100] {
        let _ = client.write_all(&long);
        let _ = client.write_all(b"\n");
    }
    for mut client in &clients[100..] {
        client.write_all(b"hello\n").expect("it is connected");
    }
    let mut first = &clients[0];
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest);
    assert!(rest.is_empty(), "closed without a reply");
    drop(clients);
    server.await_log("has not answered in time");
    server.process.signal(Signal::SIGTERM);
    until("it ends", || TcpStream::connect(&server.addresses[0]).is_err());
}

#[test]
fn replies_never_go_to_another_client() {
    let scratch = Scratch::new();
    let answer = "n = 0\ndef answer(line):\n    global n\n    n += 1\n    \
                  if n == 400: os._exit(1)\n    return line";
    let worker = python(&scratch, "dies-now-and-then.py", answer);
    for flags in ["--driver poll", "--driver uring", "--shards 2"] {
        let server = serve(&worker, &format!("{flags} --workers 3 --worker-in-flight 8"));
        std::thread::scope(|scope| {
            for of in 0..8 {
                let mut client = Client::of(&server);
                scope.spawn(move || {
                    let all: String = (0..300).map(|nth| format!("{of}.{nth}\n")).collect();
                    client.send(&all);
                    for nth in 0..300 {
                        let line = client.line();
                        assert!(
                            line == format!("{of}.{nth}") || line == ERROR,
                            "{of}.{nth}: {line}"
                        );
                    }
                    client.writer.shutdown(Shutdown::Write).expect("it is connected");
                });
            }
        });
        server.end();
    }
}

#[test]
fn each_client_has_a_process_and_its_end_is_the_end_of_both() {
    for driver in DRIVERS {
        let mut line = command(&format!("serve --listen 127.0.0.1:0 --driver {driver}"));
        line.args(["--max-processes", "2", "--exec"]);
        line.arg("sh -c 'echo $REMOTE_ADDR; read -r x; echo got $x; sleep 7654 & exit 3'");
        let server = Server::from(&mut line, 1);
        let [mut one, mut two] = [Client::of(&server), Client::of(&server)];
        assert_eq!((one.line(), two.line()), ("127.0.0.1".to_owned(), "127.0.0.1".to_owned()));
        let mut three = Client::of(&server);
        let patience = Some(Duration::from_millis(300));
        three.writer.set_read_timeout(patience).expect("a socket");
        let waits = three.reader.read_line(&mut String::new());
        assert!(waits.is_err(), "it waits for one of two places");
        three.writer.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        assert_eq!(one.ask("hello"), "got hello");
        let mut rest = Vec::new();
        one.reader.read_to_end(&mut rest).expect("the end, although a child holds the output");
        assert!(rest.is_empty());
        assert_eq!(three.line(), "127.0.0.1");
        drop((two, three));
        server.await_log("exit status: 3");
        until("the processes are gone", || processes_with("7654") <= 1);
        server.end();
    }
}

#[test]
fn its_environment_is_ours_but_for_what_is_ours_alone() {
    let mut line = command("serve --listen 127.0.0.1:0");
    line.env("NOTIFY_SOCKET", "/x").env("LISTEN_FDS_OF_ANOTHER", "1").env("MINE", "here");
    line.args(["--worker", "sh -c 'while read -r name; do eval echo \"[\\$$name]\"; done'"]);
    let server = Server::from(&mut line, 1);
    let mut client = Client::of(&server);
    assert_eq!(client.ask("MINE"), "[here]");
    assert_eq!(client.ask("NOTIFY_SOCKET"), "[]");
    assert_eq!(client.ask("LISTEN_FDS_OF_ANOTHER"), "[]");
    assert!(Path::new("/proc").exists() || cfg!(not(target_os = "linux")));
}
