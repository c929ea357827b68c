//! `--worker-protocol tagged`: programs that know their clients, and what they do wrong.

use std::{io::Read, time::Duration};

use crate::{
    support::{Scratch, Server, command},
    workers::Client,
};

/// A worker in Python with its own way to treat a line: `what`, `id` and `text`.
fn serve(scratch: &Scratch, treat: &str, flags: &str) -> Server {
    let head = "import os, sys, time\n\
                def say(*parts): print(*parts, flush=True)\n\
                for line in sys.stdin:\n    \
                what, id, text = line.rstrip('\\n').split(' ', 2)\n    ";
    let path = scratch.write("tagged.py", &format!("{head}{treat}\n"));
    let mut line = command(&format!("serve --listen 127.0.0.1:0 --worker-protocol tagged {flags}"));
    line.args(["--worker", &format!("python3 {}", path.display())]);
    Server::from(&mut line, 1)
}

#[test]
fn the_end_of_a_worker_closes_its_clients_and_the_next_one_serves() {
    let scratch = Scratch::new();
    let treat =
        "if text == 'exit': os._exit(3)\n    if what == 'data': say('data', id, text.upper())";
    for flags in ["--driver poll", "--driver uring", "--shards 2"] {
        let server = serve(&scratch, treat, flags);
        let [mut one, mut two] = [Client::of(&server), Client::of(&server)];
        assert_eq!((one.ask("one"), two.ask("two")), ("ONE".into(), "TWO".into()), "{flags}");
        assert_eq!(one.ask("exit"), "", "it is closed: {flags}");
        assert_eq!(two.line(), "", "so is every other client of that worker: {flags}");
        assert_eq!(Client::of(&server).ask("again"), "AGAIN", "{flags}");
        let log = server.end();
        assert!(log.contains("exit status: 3"), "{log}");
    }
}

#[test]
fn one_that_reads_nothing_is_replaced_and_what_is_wrong_is_counted() {
    let scratch = Scratch::new();
    let treat = "say('no line')\n    say('data 77 for nobody')\n    \
                 if text == 'hang': time.sleep(1000)\n    \
                 if what == 'data': say('data', id, text)";
    for flags in ["--driver poll", "--driver uring"] {
        let server = serve(&scratch, treat, &format!("{flags} --worker-timeout 1s"));
        let mut client = Client::of(&server);
        client.send("hang\n");
        // More than fits the socket.
        let line = format!("{}\n", "x".repeat(60_000));
        for _ in 0..100 {
            client.send(&line);
        }
        let mut rest = Vec::new();
        let _ = client.reader.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{flags}");
        assert_eq!(Client::of(&server).ask("hello"), "hello", "{flags}");
        std::thread::sleep(Duration::from_millis(100));
        let log = server.end();
        for part in ["no line of the tagged protocol", "unknown_ids=", "bad_lines=", "unasked=0"] {
            assert!(log.contains(part), "{part}: {log}");
        }
    }
}
