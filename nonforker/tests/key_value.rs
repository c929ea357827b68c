//! The key-value example on the simulated network: what GET must return, whoever else is there.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/key_value.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use nonforker::{
    Server,
    codec::Resp,
    sim::{Client, Faults, Manner, Net, Rng, Simulation, Visit},
};

fn server() -> Server {
    let resp = Resp::with_max(4096);
    Server::new().serve_with("127.0.0.1:1685", resp, example::Store::default())
}

/// A command as programs send it, or as a person types it.
fn command(rng: &Rng, args: &[&str]) -> Vec<u8> {
    if rng.chance(300) {
        let words: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        return format!("{}\r\n", words.join(" ")).into_bytes();
    }
    let mut command = format!("*{}\r\n", args.len());
    for arg in args {
        command += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    command.into_bytes()
}

fn bulk(value: Option<&String>) -> String {
    value.map_or_else(|| "$-1\r\n".into(), |value| format!("${}\r\n{value}\r\n", value.len()))
}

/// The life of a key that nobody else uses, in one request. Its number tells what is answered.
fn life(rng: &Rng, number: u32) -> Vec<u8> {
    let (key, value) = (format!("key{number}"), "v".repeat(number as usize % 500));
    [
        command(rng, &["ECHO", &number.to_string()]),
        command(rng, &["SET", &key, "old"]),
        command(rng, &["set", &key, &value]),
        command(rng, &["GET", &key]),
        command(rng, &["Del", &key, &key, "nobody"]),
        command(rng, &["GET", &key]),
    ]
    .concat()
}

fn life_answered(number: u32) -> Vec<u8> {
    let value = bulk(Some(&"v".repeat(number as usize % 500)));
    let echo = bulk(Some(&number.to_string()));
    format!("{echo}+OK\r\n+OK\r\n{value}:1\r\n$-1\r\n").into_bytes()
}

/// What a visitor must be answered, if all is answered.
fn answers(visit: &Visit, numbers: &BTreeMap<Vec<u8>, u32>) -> Vec<u8> {
    visit.requests.iter().flat_map(|request| life_answered(numbers[request])).collect()
}

/// Runs a crowd, and gives `judge` each visit with what must be answered to it.
fn crowd(net: &Net, judge: impl Fn(&Visit, &[u8])) {
    let next = Cell::new(0);
    let numbers = RefCell::new(BTreeMap::new());
    let visits = net.crowd(8, |rng| {
        let number = next.replace(next.get() + 1);
        let request = life(rng, number);
        numbers.borrow_mut().insert(request.clone(), number);
        request
    });
    for visit in visits {
        judge(&visit, &answers(&visit, &numbers.borrow()));
    }
}

/// A visitor that broke off in the middle of its last request may have been answered the start of
/// it; nobody else gets anything that is not an answer to them.
fn is_start(visit: &Visit, expected: &[u8]) -> bool {
    expected.starts_with(&visit.received)
        || visit.manner == Manner::CutsOff && visit.received.starts_with(expected)
}

#[test]
fn each_client_that_reads_gets_every_answer() {
    Simulation::new(server).seeds(0..500).run(|net| {
        crowd(net, |visit, expected| {
            assert!(is_start(visit, expected), "{visit:?}");
            assert!(!visit.manner.is_answered() || visit.received == expected, "{visit:?}");
        });
    });
}

#[test]
fn on_a_network_that_breaks_nobody_gets_a_wrong_answer() {
    Simulation::new(server).seeds(0..500).faults(Faults::swarm).run(|net| {
        crowd(net, |visit, expected| assert!(is_start(visit, expected), "{visit:?}"));
    });
}

#[test]
fn get_returns_what_was_set_last_by_anybody() {
    Simulation::new(server).seeds(0..300).run(|net| {
        let clients: Vec<Client> = (0..4).map(|_| net.connect()).collect();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let rng = net.rng();
        for round in 0..60 {
            let client = &clients[rng.between(0, clients.len() - 1)];
            let key = format!("key {}", rng.between(0, 3));
            let (request, expected) = match rng.between(0, 4) {
                0 | 1 => {
                    let value = format!("value {round}");
                    model.insert(key.clone(), value.clone());
                    (command(&rng, &["SET", &key, &value]), "+OK\r\n".into())
                }
                2 => {
                    let gone = u8::from(model.remove(&key).is_some());
                    (command(&rng, &["DEL", &key]), format!(":{gone}\r\n"))
                }
                _ => (command(&rng, &["GET", &key]), bulk(model.get(&key))),
            };
            let (start, rest) = request.split_at(rng.between(0, request.len()));
            client.send(start);
            if rng.chance(300) {
                net.wait(Duration::from_millis(1));
            }
            client.send(rest);
            client.expect(expected);
        }
    });
}

#[test]
fn a_protocol_error_is_reported_and_ends_that_connection_only() {
    const CASES: &[(&str, &str)] = &[
        ("*1\r\n:1\r\n", "malformed frame: expected '$' at byte 4"),
        ("*x\r\n", "malformed frame: expected a multibulk length at byte 1"),
        ("*1\r\n$-1\r\n", "malformed frame: expected a bulk length at byte 5"),
        ("*1\r\n$5000\r\n", "frame too long: more than 4096 bytes"),
        ("get 'a\r\n", "malformed frame: expected balanced quotes at byte 7"),
    ];
    Simulation::new(server).seeds(0..100).run(|net| {
        let other = net.connect();
        other.send("set a b\n");
        other.expect("+OK\r\n");
        for (wrong, told) in CASES {
            let client = net.connect();
            client.send(format!("PING\r\n{wrong}PING\r\n"));
            client.expect(format!("+PONG\r\n-ERR Protocol error: {told}\r\n"));
            client.expect_end();
        }
        other.send("get a\n");
        other.expect("$1\r\nb\r\n");
    });
}
