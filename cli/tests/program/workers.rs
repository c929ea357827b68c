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

pub(crate) const DRIVERS: [&str; 2] = ["poll", "uring"];

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

pub(crate) struct Client {
    writer: TcpStream,
    pub(crate) reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        let writer = server.connect();
        let reader = BufReader::new(writer.try_clone().expect("a socket"));
        Self { writer, reader }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).expect("it is connected");
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a reply");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, text: &str) -> String {
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

/// The workers of the page of this name, as commands, with what each of them needs.
fn of_the_page(scratch: &Scratch, name: &str) -> Vec<(&'static str, String)> {
    let page = include_str!("../../../docs/workers.md");
    let file = |language: &str, ending: &str| {
        let (_, behind) = page.split_once(&format!("`{name}.{ending}`")).expect("it is named");
        let (_, code) = behind.split_once(&format!("```{language}\n")).expect("its code follows");
        let (code, _) = code.split_once("```").expect("it ends");
        scratch.write(&format!("{name}.{ending}"), code).display().to_string()
    };
    let mut workers = vec![("sh", format!("sh {}", file("sh", "sh")))];
    workers.push(("python3", format!("python3 {}", file("python", "py"))));
    workers.push(("perl", format!("perl {}", file("perl", "pl"))));
    if is_there("cc") {
        let program = scratch.path(&format!("{name}-in-c")).display().to_string();
        let mut compiler = Command::new("cc");
        let made = compiler.args(["-Wall", "-Werror", "-o", &program, &file("c", "c")]).status();
        assert!(made.expect("it runs").success());
        workers.push(("cc", program));
    }
    workers.retain(|(needs, _)| {
        let there = is_there(needs);
        if !there {
            eprintln!("skipped: there is no {needs}");
        }
        there
    });
    workers
}

#[test]
fn the_workers_of_the_page_answer_and_leave_nothing_behind() {
    let scratch = Scratch::new();
    for (_, worker) in of_the_page(&scratch, "upper") {
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
fn the_chats_of_the_page_know_their_clients() {
    let scratch = Scratch::new();
    for (_, worker) in of_the_page(&scratch, "chat") {
        for driver in DRIVERS {
            let flags = format!("--driver {driver} --worker-protocol tagged");
            let server = serve(&worker, &flags);
            let mut clients = [Client::of(&server), Client::of(&server), Client::of(&server)];
            // All three have connected when the last one is heard.
            clients[2].send("who is here?\n");
            assert_eq!(clients[0].line(), "3: who is here?", "{worker}");
            assert_eq!(clients[1].line(), "3: who is here?", "{worker}");
            clients[1].send("  I am,  he said\n\nbye");
            clients[1].writer.shutdown(Shutdown::Write).expect("it is connected");
            for other in [0, 2] {
                for line in ["2:   I am,  he said", "2:", "2: bye"] {
                    assert_eq!(clients[other].line(), line, "{worker}");
                }
            }
            let began = Instant::now();
            assert_eq!(clients[1].line(), "", "the worker is done with it: {worker}");
            assert!(began.elapsed() < Duration::from_secs(10), "{worker}");
            clients[2].send("2 has left\n");
            assert_eq!(clients[0].line(), "3: 2 has left", "{worker}");
            let log = server.end();
            assert!(!log.contains("bad_lines"), "{worker}: {log}");
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
        (&["--worker", "cat", "--worker-protocol", "tagged", "--codec", "raw"], "raw has none"),
        (
            &["--worker", "cat", "--worker-protocol", "tagged", "--codec", "delimited:;"],
            "--worker-protocol: tagged needs lines",
        ),
        (
            &["--worker", "cat", "--worker-protocol", "tagged", "--worker-codec", "delimited:;"],
            "--worker-protocol: tagged needs lines",
        ),
        (&["--worker-protocol", "tagged"], "--worker"),
        (&["--worker", "cat", "--worker-protocol", "other"], "other"),
        (&["--worker", "cat", "--handler", "upper"], "--handler"),
        (&["--workers", "2"], "--worker"),
        (&["--worker", "cat", "--exec", "cat"], "--exec"),
        (&["--exec", "cat", "--handler", "upper"], "--handler"),
        (&["--exec", "cat", "--codec", "lines"], "--codec"),
        (&["--exec", "cat", "--workers", "2"], "--workers"),
        (&["--worker", "cat", "--max-processes", "2"], "--max-processes"),
        (&["--worker", "cat", "--max-connections", "1"], "max_connections: 1 is out of bounds"),
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
    assert_eq!(last.matches("exit status").count(), 1, "once: {last}");
    assert!(began.elapsed() > Duration::from_millis(700), "they are not started at once");
}

#[test]
fn the_last_words_stand_behind_a_flood_and_a_tagged_worker_has_them_too() {
    for protocol in ["plain", "tagged"] {
        let mut line = command(&format!("serve --listen 127.0.0.1:0 --worker-protocol {protocol}"));
        let worker = "sh -c 'yes flood | head -n 50000 >&2; echo no licence found >&2; exit 3'";
        let output = run(line.args(["--worker", worker]));
        assert_eq!(output.status, 1, "{}", output.stderr);
        let last = output.stderr.lines().last().expect("a line");
        assert!(last.contains("no licence found; exit status: 3"), "{last}");
        assert!(output.stderr.lines().count() < 150, "bounded: {}", output.stderr);
    }
}

#[test]
fn a_worker_that_is_killed_or_hangs_costs_one_reply_and_is_replaced() {
    let scratch = Scratch::new();
    let answer = "def answer(line):\n    if line == 'exit': os._exit(1)\n    \
                  if line == 'hang': time.sleep(1000)\n    return line.upper()";
    let worker = python(&scratch, "frail.py", answer);
    for driver in DRIVERS {
        let server = serve(&worker, &format!("--driver {driver} --worker-timeout 4s"));
        let mut client = Client::of(&server);
        assert_eq!(client.ask("one"), "ONE");
        assert_eq!(client.ask("exit"), ERROR);
        assert_eq!(client.ask("two"), "TWO");
        let began = Instant::now();
        assert_eq!(client.ask("hang"), ERROR);
        assert!(began.elapsed() >= Duration::from_secs(4));
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
fn a_flood_of_errors_waits_and_costs_the_server_little() {
    let scratch = Scratch::new();
    let answer = "def answer(line):\n    os.write(2, b'x' * 0x800000)\n    return line";
    let server = serve(&python(&scratch, "flood.py", answer), "");
    let began = Instant::now();
    assert_eq!(Client::of(&server).ask("one"), "one");
    assert!(began.elapsed() > Duration::from_secs(1), "8 MiB in {:?}", began.elapsed());
    let log = server.end();
    assert!(log.contains("requests=1\n") && log.contains("outgoing=1\n"), "{log}");
}

#[test]
fn one_that_never_reads_is_replaced_and_clients_that_leave_do_no_harm() {
    let server = serve("sleep 1000", "--worker-timeout 500ms --worker-error close");
    let clients: Vec<_> = (0..2000).map(|_| server.connect()).collect();
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

#[test]
fn a_file_with_two_programs_or_a_program_and_a_handler_is_refused() {
    let scratch = Scratch::new();
    for (text, part) in [
        ("worker = 'cat'\nhandler = 'upper'", "worker: it cannot be used with handler"),
        ("exec = 'cat'\nhandler = 'upper'", "exec: it cannot be used with handler"),
        ("exec = 'cat'\nworker = 'cat'", "exec: it cannot be used with worker"),
        ("worker = ['cat', 'tac']", "worker: it takes one value, not a list"),
        ("exec = 'cat'\ncodec = 'lines'", "exec: it cannot be used with codec"),
        ("worker = 'cat'\nworker-protocol = 'tagged'\ncodec = 'raw'", "raw has none"),
        ("workers = 2", "--worker"),
    ] {
        let path = scratch.write("two.toml", text).display().to_string();
        assert_complains(&run(command("serve --config").arg(&path)), 2, &[part]);
    }
    // One that is on the line wins.
    let text = "listen = '127.0.0.1:0'\nworker = 'cat'\nworkers = 2\nworker-timeout = '9s'";
    let path = scratch.write("one.toml", text).display().to_string();
    for (flags, reply) in [("", &b"hello\n"[..]), ("--handler upper", b"HELLO\n")] {
        let mut line = command(&format!("serve {flags} --config"));
        let server = Server::from(line.arg(&path), 1);
        assert_eq!(server.ask(b"hello\n"), reply, "{flags}");
        server.end();
    }
}

#[test]
fn a_program_has_three_descriptors() {
    let scratch = Scratch::new();
    let list = "def answer(line):\n    all = os.listdir('/proc/self/fd')\n    \
                return ' '.join(sorted(fd for fd in all if os.path.exists('/proc/self/fd/' + fd)))";
    let worker = python(&scratch, "descriptors.py", list);
    if !Path::new("/proc/self/fd").exists() {
        return;
    }
    for driver in DRIVERS {
        for shards in ["", "--shards 2"] {
            let server = serve(&worker, &format!("--driver {driver} --workers 3 {shards}"));
            let mut clients: Vec<_> = (0..10).map(|_| Client::of(&server)).collect();
            for client in &mut clients {
                assert_eq!(client.ask("which?"), "0 1 2");
            }
            server.end();
        }
        let mut line = command(&format!("serve --listen 127.0.0.1:0 --driver {driver}"));
        let server = Server::from(line.args(["--exec", &worker]), 1);
        let mut clients: Vec<_> = (0..10).map(|_| Client::of(&server)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("which?"), "0 1 2");
        }
        server.end();
    }
}

#[test]
fn broadcast_and_chat_reach_all_others_on_all_shards() {
    for flags in ["--handler broadcast", "--handler chat", "--handler chat --shards 3"] {
        let mut line = command(&format!("serve --listen 127.0.0.1:0 {flags}"));
        let server = Server::from(&mut line, 1);
        let mut clients: Vec<_> = (0..12).map(|_| Client::of(&server)).collect();
        // Nobody knows when a client is there, but it is when it has been heard.
        std::thread::sleep(Duration::from_millis(500));
        let mut names = std::collections::HashSet::new();
        for of in 0..clients.len() {
            clients[of].send(&format!("I am {of}\n"));
            for other in (0..clients.len()).filter(|&other| other != of) {
                let line = clients[other].line();
                let text = match line.split_once(": ") {
                    Some((name, text)) => {
                        names.insert(name.to_owned());
                        text.to_owned()
                    }
                    None => line,
                };
                assert_eq!(text, format!("I am {of}"), "{flags}");
            }
        }
        let expected = if flags.contains("chat") { 12 } else { 0 };
        assert_eq!(names.len(), expected, "{flags}: {names:?}");
        server.end();
    }
}
