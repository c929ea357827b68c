//! Several shards in one network: what they share, how clients are spread, and how all end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nonforker::{
    Conn, ConnId, Connections, Handler, Limits, Outcome, Server, Stats,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation, work},
};

const ADDRESS: &str = "127.0.0.1:1685";

/// Answers, and says where.
#[derive(Debug)]
struct Where;

impl Handler for Where {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"where" => conn.send(shard_of(conn.id()).to_string()),
            b"work" => {
                work(Duration::from_secs(1));
                conn.send("done");
            }
            b"drain" => conn.server().drain(),
            b"much" => conn.send(vec![b'x'; 40_000]),
            line => conn.send(line),
        }
        Ok(())
    }
}

/// The number of the shard, as an id shows it.
fn shard_of(id: ConnId) -> usize {
    let id = id.to_string();
    id.split_once(':').map_or(0, |(shard, _)| shard.parse().expect("a number"))
}

fn server(limits: Limits) -> impl Fn() -> Server + 'static {
    move || Server::new().limits(limits.clone()).serve_with(ADDRESS, Lines::new(), Where)
}

fn plain() -> Limits {
    Limits::new().unused_timeout(None)
}

fn ask(client: &Client, line: &str) {
    client.send(format!("{line}\n"));
    client.expect(format!("{line}\n"));
}

/// The shard of a client.
fn shard(client: &Client) -> usize {
    client.send("where\n");
    let number = client.receive_until("\n");
    String::from_utf8_lossy(&number).trim().parse().expect("a number")
}

/// How many connections each shard has.
fn counts(clients: &[Client], shards: usize) -> Vec<usize> {
    let mut counts = vec![0; shards];
    for client in clients {
        counts[shard(client)] += 1;
    }
    counts
}

/// So many clients, each of which has been answered.
fn crowd(net: &Net, count: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..count).map(|_| net.connect()).collect();
    for client in &clients {
        client.set_window(1 << 16);
        ask(client, "hello");
    }
    clients
}

#[test]
fn clients_are_spread_and_the_same_seed_runs_alike() {
    for shards in [2, 4] {
        let run = || {
            Simulation::new(server(plain()))
                .shards(shards)
                .seeds(0..4)
                .faults(|_| Faults::none())
                .run(move |net| {
                    let clients = crowd(net, 40 * shards);
                    // Nobody waits for a shard to look again by itself.
                    assert!(net.now() < Duration::from_millis(5), "{:?}", net.now());
                    let counts = counts(&clients, shards);
                    assert!(counts.iter().all(|&count| (24..=56).contains(&count)), "{counts:?}");
                })
        };
        assert_eq!(run(), run(), "{shards} shards");
    }
}

#[test]
fn a_burst_is_taken_at_once_whoever_was_told_of_it() {
    Simulation::new(server(plain())).shards(2).seeds(0..200).faults(|_| Faults::none()).run(
        |net| {
            let mut all = Vec::new();
            for _ in 0..12 {
                let began = net.now();
                all.extend(crowd(net, 5));
                let took = net.now() - began;
                assert!(took < Duration::from_millis(5), "nobody looked for {took:?}");
            }
        },
    );
}

#[test]
fn whatever_goes_wrong_everybody_is_answered() {
    Simulation::new(server(plain())).shards(3).seeds(0..100).run(|net| {
        let clients: Vec<_> = (0..30).map(|_| net.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{number}\n"));
        }
        for (number, client) in clients.iter().enumerate() {
            client.expect(format!("{number}\n"));
        }
    });
}

#[test]
fn a_shard_that_works_keeps_nobody_else_and_others_take_its_clients() {
    Simulation::new(server(plain())).shards(2).seeds(0..50).faults(|_| Faults::none()).run(|net| {
        let mut clients = crowd(net, 40);
        // The second shard keeps one client.
        let mut kept = None;
        clients.retain(|client| {
            let goes = shard(client) == 1;
            if goes && kept.is_none() {
                kept = Some(client.clone());
            } else if goes {
                client.half_close();
            }
            !goes
        });
        net.settle();
        let kept = kept.expect("each shard has some");
        kept.send("work\n");
        // It has begun: others are answered meanwhile, old ones and new ones.
        net.wait(Duration::from_millis(5));
        let began = net.now();
        ask(&clients[0], "meanwhile");
        let late = crowd(net, 20);
        assert!(net.now() - began < Duration::from_millis(900), "{:?}", net.now() - began);
        assert_eq!(counts(&late, 2)[1], 0, "it works");
        kept.expect("done\n");
        // When it is free again, it is the emptiest.
        let later = crowd(net, 10);
        assert_eq!(counts(&later, 2), [0, 10]);
    });
}

#[test]
fn connections_are_bounded_for_all_shards_together() {
    let limits = plain().max_connections(Some(10));
    Simulation::new(server(limits)).shards(3).seeds(0..60).run(|net| {
        let clients = crowd(net, 10);
        let late: Vec<_> = (0..5).map(|_| net.connect()).collect();
        for client in &late {
            client.send("late\n");
        }
        net.wait(Duration::from_secs(2));
        assert_eq!(net.stats().accepted, 10, "the others wait");
        // Whichever of them has the place, and whichever shard had it.
        clients[..5].iter().for_each(Client::half_close);
        for client in &late {
            client.expect("late\n");
        }
    });
}

#[test]
fn connections_of_an_address_are_bounded_for_all_shards_together() {
    let limits = plain().max_connections_per_ip(Some(4));
    Simulation::new(server(limits)).shards(3).seeds(0..60).run(|net| {
        for _ in 0..3 {
            let clients: Vec<_> = (0..9).map(|_| net.connect_from([192, 0, 2, 1])).collect();
            for client in &clients {
                client.send("hello\n");
            }
            net.settle();
            let answered = clients.iter().filter(|client| client.received() == b"hello\n");
            assert_eq!(answered.count(), 4);
            clients.iter().for_each(Client::half_close);
            net.settle();
            net.wait(Duration::from_secs(10));
        }
    });
}

#[test]
fn memory_is_bounded_for_all_shards_together() {
    const BUDGET: usize = 1 << 20;
    let limits = plain().memory_budget(Some(BUDGET)).write_timeout(None).high_watermark(1 << 20);
    Simulation::new(server(limits)).shards(4).seeds(0..10).faults(|_| Faults::none()).run(|net| {
        // Alone, a shard may use most of it.
        let clients = crowd(net, 60);
        for client in &clients {
            client.stall();
            client.set_window(1 << 12);
            client.send("much\n");
        }
        for _ in 0..40 {
            net.wait(Duration::from_millis(100));
            let held = usize::try_from(net.stats().buffered_bytes).expect("it fits");
            // Each shard may add the replies of a turn before it sees what the others hold.
            assert!(held <= BUDGET + BUDGET / 16 + 4 * (64 << 10) + 4 * 50_000, "{held}");
        }
        let ended = clients.iter().filter(|client| client.ending().is_some());
        assert!(ended.count() > 20, "the budget is not that of one shard, four times");
        for client in &clients {
            client.read_all();
        }
    });
}

#[test]
fn one_shard_may_use_what_the_others_do_not() {
    const BUDGET: usize = 4 << 20;
    let limits = plain().memory_budget(Some(BUDGET)).write_timeout(None).high_watermark(4 << 20);
    Simulation::new(server(limits)).shards(4).seeds(0..10).faults(|_| Faults::none()).run(|net| {
        let clients = crowd(net, 40);
        let of_first: Vec<_> = clients.iter().filter(|client| shard(client) == 0).collect();
        let few = of_first.len().min(8);
        for client in &of_first[..few] {
            client.stall();
            client.set_window(1 << 12);
            client.send("much\nmuch\nmuch\nmuch\nmuch\nmuch\n");
        }
        net.settle();
        let held = usize::try_from(net.stats().buffered_bytes).expect("it fits");
        assert!(held > BUDGET / 4, "{held}: more than its part");
        assert!(
            of_first.iter().all(|client| client.ending().is_none()),
            "while the whole is ample"
        );
    });
}

#[test]
fn a_drain_reaches_all_shards_from_outside_and_from_a_handler() {
    for by_handler in [false, true] {
        Simulation::new(server(plain())).shards(3).seeds(0..60).run(move |net| {
            let clients = crowd(net, 12);
            for client in &clients[1..] {
                client.send("last\n");
            }
            net.settle();
            if by_handler {
                clients[0].send("drain\n");
            } else {
                net.drain();
            }
            for client in &clients[1..] {
                assert_eq!(client.receive_to_end(), (b"last\n".to_vec(), Some(Ending::Finished)));
            }
            assert_eq!(clients[0].receive_to_end().1, Some(Ending::Finished));
            net.settle();
            assert!(net.has_ended());
        });
    }
}

#[test]
fn who_waits_in_the_backlog_when_a_drain_begins_is_answered() {
    Simulation::new(server(plain())).shards(3).seeds(0..100).faults(|_| Faults::none()).run(
        |net| {
            let clients = crowd(net, 9);
            clients[0].send("work\n");
            let late: Vec<_> = (0..9).map(|_| net.connect()).collect();
            for client in &late {
                client.send("late\n");
            }
            net.drain();
            for client in &late {
                assert_eq!(client.receive_to_end().0, b"late\n");
            }
        },
    );
}

#[test]
fn what_each_shard_counts_is_part_of_the_sum() {
    Simulation::new(server(plain())).shards(3).seeds(0..20).run(|net| {
        let clients = crowd(net, 30);
        let each: Vec<Stats> = (0..).map_while(|shard| net.shard_stats(shard)).collect();
        assert_eq!(each.len(), net.shards());
        let sum = |of: fn(&Stats) -> u64| each.iter().map(of).sum::<u64>();
        let all = net.stats();
        assert_eq!(sum(|stats| stats.accepted), all.accepted);
        assert_eq!(sum(|stats| stats.frames), all.frames);
        assert_eq!(all.accepted, 30);
        assert!(each.iter().all(|stats| stats.accepted > 0), "{each:?}");
        drop(clients);
    });
}

#[test]
fn other_threads_reach_every_shard_and_each_connection_by_its_id() {
    Simulation::new(server(plain())).shards(3).seeds(0..30).run(|net| {
        let clients = crowd(net, 30);
        let remote = net.remote::<Where>().expect("there is one such service");
        assert_eq!(remote.shards(), 3);
        assert!(remote.shard(3).is_none());
        let ids = Arc::new(Mutex::new(Vec::new()));
        for number in 0..3 {
            let (shard, told) = (remote.shard(number).expect("it exists"), Arc::clone(&ids));
            let note = move |_: &mut Where, all: &mut Connections<'_, Where>| {
                let here = all.ids();
                assert!(here.iter().all(|&id| shard_of(id) == number), "{here:?}");
                told.lock().expect("nobody panics").extend(here);
            };
            shard.post(note).expect("it runs");
        }
        net.settle();
        assert_eq!(ids.lock().expect("nobody panics").len(), 30);
        // Whoever has a remote reaches all of them.
        for &id in ids.lock().expect("nobody panics").iter() {
            remote.send(id, format!("to {id}")).expect("it runs");
        }
        net.settle();
        let mut said: Vec<_> = clients.iter().map(Client::received).collect();
        let mut expected: Vec<_> = ids
            .lock()
            .expect("nobody panics")
            .iter()
            .map(|id| format!("to {id}\n").into_bytes())
            .collect();
        said.sort();
        expected.sort();
        assert_eq!(said, expected);
    });
}
