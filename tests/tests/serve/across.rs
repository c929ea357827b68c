//! What the shards of a server have in common while they serve: tickets, threads for what blocks, and
//! what is published.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nonforker::{
    Closure, Conn, Handle, Limits, Outcome, Overflow, Running, Server, Shards, Ticket, codec::Lines,
};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver, wait_until},
};

/// So many clients.
fn crowd(running: &Running, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(&running.addresses()[0])).collect()
}

/// So many clients, of which each shard has some.
fn spread(running: &Running) -> Vec<Client> {
    let clients = crowd(running, 40);
    let has_some = |handle: &Handle| {
        let mut each = (0..).map_while(|shard| handle.shard_stats(shard));
        each.all(|stats| stats.accepted > 2)
    };
    wait_until("each shard has some", || {
        running.handle().stats().accepted == 40 && has_some(&running.handle())
    });
    clients
}

#[test]
fn threads_for_what_blocks_are_bounded_for_all_shards_together() {
    on_every_driver(|case| {
        let (driver, busy, most) =
            (case.driver, Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        let make = move || {
            let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
            let work = move |conn: &mut Conn<'_, Closure<Lines>>, _: &[u8]| {
                let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
                let work = move || {
                    most.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::sleep(Duration::from_millis(10));
                    busy.fetch_sub(1, SeqCst);
                    thread::current().name().unwrap_or("none").to_owned()
                };
                conn.offload(work, |_, conn, name| conn.send(name));
            };
            Server::new().driver(driver).offload_threads(2).serve(ANY, Lines::new(), work)
        };
        let running = Shards::new(3, make).bind().expect("a free port");
        let mut clients = spread(&running);
        clients.iter().for_each(|client| client.send("work\n"));
        let names: BTreeSet<_> = clients.iter_mut().map(Client::line).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["offload-0", "offload-1"]);
        assert_eq!(seen.load(SeqCst), 2, "they work at a time");
        // One of the clients has gone, and what it asked for is done for nobody.
        clients.iter().for_each(|client| client.send("work\n"));
        drop(clients);
        running.drain_and_wait().expect("it ends in order");
    });
}

#[test]
fn tickets_are_bounded_for_all_shards_together() {
    type Open = Arc<Mutex<Vec<Ticket<Closure<Lines>>>>>;
    on_every_driver(|case| {
        let (driver, open) = (case.driver, Open::default());
        let theirs = Arc::clone(&open);
        let make = move || {
            let open = Arc::clone(&theirs);
            let defer = move |conn: &mut Conn<'_, Closure<Lines>>, _: &[u8]| {
                open.lock().expect("nobody panics").push(conn.defer());
            };
            let server = Server::new().driver(driver).limits(Limits::new().tickets_max(4));
            server.serve(ANY, Lines::new(), defer)
        };
        let running = Shards::new(3, make).bind().expect("a free port");
        let clients = spread(&running);
        clients.iter().for_each(|client| client.send("one\ntwo\n"));
        for _ in 0..80 {
            let ticket = || open.lock().expect("nobody panics").pop();
            let mut next = None;
            wait_until("somebody goes on", || {
                next = next.take().or_else(ticket);
                next.is_some()
            });
            let count = open.lock().expect("nobody panics").len() + 1;
            // Each shard may take one before it sees that there are none.
            assert!(count < 4 + 3, "{count} are open");
            next.expect("one is there").send("answer").expect("its client is there");
        }
        for mut client in clients {
            assert_eq!((client.line(), client.line()), ("answer".into(), "answer".into()));
        }
        running.drain_and_wait().expect("it ends in order");
    });
}

#[test]
fn what_is_published_reaches_the_clients_of_all_shards_whole_and_in_order() {
    on_every_driver(|case| {
        let driver = case.driver;
        let make = move || {
            let limits = Limits::new().output_cap(64 << 20).memory_budget(Some(1 << 30));
            let server = Server::new().driver(driver).limits(limits);
            server.serve(ANY, Lines::with_max(1 << 20), |conn, line| -> Outcome {
                match line {
                    b"subscribe" => {
                        conn.subscribe("news", Overflow::Close)?;
                        conn.send("subscribed");
                    }
                    line => _ = conn.publish("news", line)?,
                }
                Ok(())
            })
        };
        let running = Shards::new(3, make).bind().expect("a free port");
        let mut readers = spread(&running);
        for reader in &mut readers {
            assert_eq!(reader.ask("subscribe"), "subscribed");
        }
        // Publishers of all shards, at a time. Some messages are copied, some are shared.
        let text = |from: usize, number: usize| {
            format!("{from} {number} {}", "x".repeat([10, 3000][number % 2]))
        };
        let publishers = crowd(&running, 9);
        for number in 0..50 {
            for (from, publisher) in publishers.iter().enumerate() {
                publisher.send(text(from, number) + "\n");
            }
        }
        for reader in &mut readers {
            let mut next = [0; 9];
            for _ in 0..9 * 50 {
                let line = reader.line();
                let from: usize = line[..1].parse().expect("it says from whom");
                assert_eq!(line, text(from, next[from]), "those of each in order");
                next[from] += 1;
            }
        }
        drop((readers, publishers));
        running.drain_and_wait().expect("it ends in order");
    });
}
