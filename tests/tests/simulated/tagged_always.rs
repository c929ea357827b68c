//! What holds for the tagged protocol whatever happens: each `open` has one `close`, and each client gets
//! its own.

use std::{collections::BTreeMap, time::Duration};

use nonforker::sim::{Client, Ending, Net};

use crate::{
    crew::{Settings, secs},
    tagged::{faulty, run, sharded},
};

/// What a worker has read of its clients so far, and that each line has its place.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) read: Vec<u8>,
    /// Of each ID that was ever opened: what was said, and why it is closed, if it is.
    pub(crate) clients: BTreeMap<u64, (Vec<String>, Option<String>)>,
}

impl Book {
    /// Reads what has arrived. Returns the lines.
    pub(crate) fn read(&mut self, worker: &Client) -> Vec<String> {
        self.read.extend(worker.received());
        let mut lines = Vec::new();
        while let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.read.drain(..=end).take(end).collect();
            lines.push(String::from_utf8(line).expect("it is text"));
        }
        lines.iter().for_each(|line| self.note(line));
        lines
    }

    fn note(&mut self, line: &str) {
        let (what, rest) = line.split_once(' ').expect("a line of the protocol");
        let (id, rest) = rest.split_once(' ').expect("every line has three parts");
        let id: u64 = id.parse().expect("a number");
        if what == "open" {
            assert!(self.clients.insert(id, (Vec::new(), None)).is_none(), "{id} comes twice");
            return;
        }
        let (said, closed) = self.clients.get_mut(&id).expect("it was opened before");
        assert_eq!(*closed, None, "behind the close of {id}: {line}");
        if what == "data" {
            said.push(rest.to_owned());
        } else {
            assert_eq!(what, "close", "it is none of the protocol");
            *closed = Some(rest.to_owned());
        }
    }

    /// Why each that was opened was closed.
    fn closed(&self) -> Vec<&str> {
        let closed = self.clients.values().map(|(_, closed)| closed.as_deref());
        closed.map(|closed| closed.expect("each open has a close")).collect()
    }
}

#[test]
fn each_open_has_one_close_at_a_drain_too() {
    for mode in [faulty, sharded] {
        run(
            |workers| workers.count(2),
            mode,
            |net, listener| {
                let workers = [listener.accept(), listener.accept()];
                let mut books = [Book::default(), Book::default()];
                let clients: Vec<_> = (0..8).map(|_| net.connect()).collect();
                for (nth, client) in clients.iter().enumerate() {
                    client.send(format!("hello {nth}\n"));
                    match net.rng().below(4) {
                        0 => client.half_close(),
                        1 => client.reset(),
                        _ => {}
                    }
                }
                net.wait(Duration::from_micros(net.rng().below(100_000)));
                net.drain();
                let mut all = BTreeMap::new();
                for (worker, book) in workers.iter().zip(&mut books) {
                    let (rest, _) = worker.receive_to_end();
                    book.read.extend(rest);
                    book.read(worker);
                    for why in book.closed() {
                        assert!(["end", "reset", "drain"].contains(&why), "{why}");
                        *all.entry(why.to_owned()).or_insert(0) += 1;
                    }
                }
                for client in &clients {
                    assert!(client.receive_to_end().1.is_some());
                }
                net.wait(secs(20));
                assert!(net.has_ended());
            },
        );
    }
}

/// What a worker does when it has read a line: it answers, speaks to another, says what is none, closes a
/// client, ends or falls silent. Returns whether it goes on.
fn behave(net: &Net, worker: &Client, book: &Book, line: &str) -> bool {
    let rng = net.rng();
    let mut parts = line.splitn(3, ' ');
    let (what, id) = (parts.next(), parts.next().expect("an ID"));
    let rest = parts.next().unwrap_or_default();
    match (what, rest) {
        (Some("data"), text) => {
            worker.send(format!("data {id} {text}\n"));
            if rng.chance(100) {
                let other = 1 + rng.below(20);
                worker.send(format!("data {other} to {other} of {}\n", book.clients.len()));
            }
        }
        (Some("close"), "end") if rng.chance(700) => worker.send(format!("close {id}\n")),
        _ => {}
    }
    match rng.below(40) {
        0 => worker.reset(),
        1 => {
            worker.send("data 1 half a li");
            worker.half_close();
        }
        2 => worker.stall(),
        3 => {
            worker.send(format!("close {id}\n"));
            return true;
        }
        4 => {
            worker.send("this is no line\nclose\n");
            return true;
        }
        _ => return true,
    }
    false
}

#[test]
fn whatever_workers_and_clients_do_each_gets_its_own_and_each_open_one_close() {
    for mode in [faulty, sharded] {
        let set = |workers: Settings| workers.count(2).queue(6).timeout(Some(secs(5)));
        run(set, mode, |net, listener| {
            let rng = net.rng();
            let clients: Vec<_> = (0..6).map(|_| net.connect()).collect();
            let mut workers: Vec<(Client, Book, bool)> = Vec::new();
            for turn in 0..60 {
                for (of, client) in clients.iter().enumerate() {
                    match rng.below(60) {
                        0 => client.reset(),
                        1 => client.half_close(),
                        _ => client.send(format!("{of}.{turn}\n")),
                    }
                }
                let new = std::iter::from_fn(|| listener.accepted());
                workers.extend(new.map(|worker| (worker, Book::default(), true)));
                for (worker, book, goes_on) in &mut workers {
                    for line in book.read(worker) {
                        *goes_on = *goes_on && behave(net, worker, book, &line);
                    }
                }
                net.wait(Duration::from_millis(100));
            }
            workers.iter().for_each(|(worker, ..)| worker.read_all());
            net.drain();
            for (of, client) in clients.iter().enumerate() {
                let (got, _) = client.receive_to_end();
                let mut last = None;
                let text = String::from_utf8(got).expect("it is text");
                for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                    let Some((from, nth)) = line.split_once('.') else { continue };
                    assert_eq!(from, of.to_string(), "it is another one's");
                    let nth: u32 = nth.parse().expect("a number");
                    assert!(last < Some(nth), "{nth} behind {last:?}");
                    last = Some(nth);
                }
            }
            for (worker, book, goes_on) in &mut workers {
                let (rest, ending) = worker.receive_to_end();
                book.read.extend(rest);
                book.read(worker);
                // A drain that takes too long, since no worker lives, cuts off.
                if *goes_on && ending == Some(Ending::Finished) {
                    let _ = book.closed();
                }
            }
            let ids = workers.iter().flat_map(|(_, book, _)| book.clients.keys());
            let mut ids: Vec<_> = ids.collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "an ID was given twice");
        });
    }
}
