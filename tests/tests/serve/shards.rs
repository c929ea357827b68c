//! One server on several threads: what its shards share, and how it ends.

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nonforker::{
    Address, Closure, Conn, Connections, DriverKind, Error, Handler, Limits, Outcome, Running,
    Server, Shards, codec::Lines,
};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver, open_descriptors, wait_until},
};

fn reply(conn: &mut Conn<'_, Closure<Lines>>, line: &[u8]) {
    match line {
        b"thread" => conn.send(thread::current().name().unwrap_or("none")),
        b"drain" => conn.server().drain(),
        b"id" => conn.send(conn.id().to_string()),
        // What a handler must not do.
        b"block" => sleep(Duration::from_millis(1500)),
        line => conn.send(line),
    }
}

fn with_limits(driver: DriverKind, shards: usize, limits: &Limits) -> Running {
    let limits = limits.clone();
    let make =
        move || Server::new().driver(driver).limits(limits.clone()).serve(ANY, Lines::new(), reply);
    Shards::new(shards, make).bind().expect("a free port")
}

fn spawn(driver: DriverKind, shards: usize) -> Running {
    with_limits(driver, shards, &Limits::new())
}

/// So many clients, each of which has been answered.
fn crowd(running: &Running, count: usize) -> Vec<Client> {
    let mut crowd: Vec<_> = (0..count).map(|_| Client::connect(&running.addresses()[0])).collect();
    for client in &mut crowd {
        assert_eq!(client.ask("hello"), "hello");
    }
    crowd
}

/// Whether the server answers a client.
fn is_answered(client: &mut Client) -> bool {
    client.try_send(b"hello\n").is_ok() && client.try_line().is_some()
}

/// How many connections each shard has.
fn of_each(running: &Running) -> Vec<u64> {
    let handle = running.handle();
    let stats = (0..).map_while(|shard| handle.shard_stats(shard));
    stats.map(|stats| stats.accepted - stats.closed).collect()
}

#[test]
fn clients_are_spread_over_named_threads_and_one_handle_ends_all() {
    on_every_driver(|case| {
        let before = open_descriptors();
        let running = spawn(case.driver, 3);
        let mut clients = crowd(&running, 60);
        let counts = of_each(&running);
        assert_eq!(counts.len(), 3);
        assert!(counts.iter().all(|&count| (8..=40).contains(&count)), "{counts:?}");
        let handle = running.handle();
        let stats = handle.stats();
        assert_eq!((stats.accepted, stats.frames), (60, 60), "{stats:?}");
        assert_eq!(handle.service_stats(0).map(|stats| stats.frames), Some(60));
        assert!(handle.service_stats(1).is_none());
        let mut threads: Vec<_> = clients.iter_mut().map(|client| client.ask("thread")).collect();
        let mut ids: Vec<_> = clients.iter_mut().map(|client| client.ask("id")).collect();
        for names in [&mut threads, &mut ids] {
            names.sort();
            names.dedup();
        }
        assert_eq!(threads, ["nonforker-0", "nonforker-1", "nonforker-2"]);
        assert_eq!(ids.len(), 60, "no id is there twice: {ids:?}");
        for client in &mut clients {
            client.send("last\n");
        }
        let ended = running.drain_and_wait();
        assert!(ended.is_ok(), "{ended:?}");
        for client in &mut clients {
            assert_eq!(client.rest_text(), "last\n", "who had asked was answered");
        }
        drop((clients, handle));
        wait_until("the descriptors are given back", || open_descriptors() <= before);
    });
}

#[test]
fn a_handler_drains_all_shards_also_by_a_handle_of_before() {
    on_every_driver(|case| {
        let driver = case.driver;
        let running = Shards::new(2, move || {
            let server = Server::new().driver(driver);
            let handle = server.handle();
            server.serve(ANY, Lines::new(), move |_conn, _line| handle.drain())
        });
        let running = running.bind().expect("a free port");
        let clients: Vec<_> = (0..30).map(|_| Client::connect(&running.addresses()[0])).collect();
        wait_until("both have clients", || of_each(&running).iter().all(|&count| count > 0));
        clients[0].send("drain\n");
        running.wait().expect("it ends in order");
        assert!(clients.into_iter().all(|mut client| client.rest_text().is_empty()));
    });
}

#[test]
fn a_port_is_taken_once_and_a_file_goes_with_the_last_shard() {
    on_every_driver(|case| {
        let running = spawn(case.driver, 2);
        let (driver, taken) = (case.driver, running.addresses()[0].clone());
        let second = Shards::new(2, move || {
            Server::new().driver(driver).serve(taken.clone(), Lines::new(), reply)
        });
        let error = second.bind().expect_err("it is in use");
        assert!(matches!(error, Error::Listen { .. }), "{error}");
        drop(running);

        let path = std::env::temp_dir().join(format!("nonforker-shards-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let at = address.clone();
        let running = Shards::new(2, move || {
            Server::new().driver(driver).serve(at.clone(), Lines::new(), reply)
        });
        let running = running.bind().expect("a place in the temporary folder");
        // One shard is held up and the other ends before it.
        let mut clients: Vec<_> = (0..30).map(|_| Client::connect(&address)).collect();
        let names: Vec<_> = clients.iter_mut().map(|client| client.ask("thread")).collect();
        let first = names.iter().position(|name| name == "nonforker-0").expect("it has some");
        clients[first].send("block\n");
        sleep(Duration::from_millis(50));
        running.handle().drain();
        sleep(Duration::from_millis(400));
        assert!(path.exists(), "a shard still listens");
        let late = Client::connect(&address);
        late.send("late\n");
        running.wait().expect("it ends in order");
        assert!(!path.exists(), "the last one removes it");
        drop(clients);
        drop(late);
    });
}

#[test]
fn listeners_that_were_given_are_shared_too() {
    on_every_driver(|case| {
        let listener = Arc::new(TcpListener::bind(ANY).expect("a free port"));
        let (driver, theirs) = (case.driver, Arc::clone(&listener));
        let running = Shards::new(2, move || {
            let listener = theirs.try_clone().expect("a descriptor is free");
            Server::new().driver(driver).serve_on(listener, Lines::new(), Echo)
        });
        let running = running.bind().expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        assert_eq!(running.addresses(), [Address::Tcp(address)]);
        let clients = crowd(&running, 30);
        assert!(of_each(&running).iter().all(|&count| count > 0));
        drop(clients);
        running.drain_and_wait().expect("it ends in order");
        // It is still ours, and its backlog is open.
        drop(Client::connect(&Address::Tcp(address)));
    });
}

struct Echo;

impl Handler for Echo {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }
}

#[test]
fn servers_that_are_not_alike_are_refused_before_anybody_is_served() {
    on_every_driver(|case| {
        let before = open_descriptors();
        let driver = case.driver;
        type Vary = fn(Server, usize) -> Server;
        let varied: [(&str, Vary); 5] = [
            ("addresses are [127.0.0.1:0 for service 0]", |server, nth| {
                let server = server.serve(ANY, Lines::new(), reply);
                if nth == 0 { server.also_on("[::1]:0") } else { server }
            }),
            ("for service 1], and those of the first [", |server, nth| {
                let server = server.serve(ANY, Lines::new(), reply);
                let server = if nth > 0 { server.service(Lines::new(), Echo) } else { server };
                let server = server.also_on("[::1]:0");
                if nth == 0 { server.service(Lines::new(), Echo) } else { server }
            }),
            ("it has 2 services, and the first 1", |server, nth| {
                let server = server.serve(ANY, Lines::new(), reply);
                if nth > 0 { server.service(Lines::new(), Echo) } else { server }
            }),
            ("it has other limits than the first", |server, nth| {
                let limits = Limits::new().max_connections(Some(10 + nth));
                server.limits(limits).serve(ANY, Lines::new(), reply)
            }),
            ("a listener given at", |server, _| {
                let listener = TcpListener::bind(ANY).expect("a free port");
                server.serve_on(listener, Lines::new(), Echo)
            }),
        ];
        for (what, vary) in varied {
            let made = AtomicUsize::new(0);
            let make = move || vary(Server::new().driver(driver), made.fetch_add(1, SeqCst));
            let error = Shards::new(2, make).bind().expect_err(what);
            assert!(matches!(error, Error::ShardDiffers { shard: 1, .. }), "{error:?}");
            assert!(error.to_string().contains(what), "{error}");
        }
        for (count, value) in [(0, "shards: 0 is out of bounds"), (257, "from 1 to 256")] {
            let make = || Server::new().serve(ANY, Lines::new(), reply);
            let error = Shards::new(count, make).bind().expect_err(value);
            assert!(error.to_string().contains(value), "{error}");
        }
        let error = Shards::new(2, || panic!("no server")).bind().expect_err("a panic");
        assert!(
            matches!(&error, Error::ShardPanicked { shard: 0, message } if message == "no server")
        );
        wait_until("the descriptors are given back", || open_descriptors() <= before);
    });
}

/// Fails when it starts, if it is the one that does.
struct Fails {
    how: &'static str,
}

impl Handler for Fails {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, _all: &mut Connections<'_, Self>) -> Outcome {
        if self.how == "starting" { Err("it cannot".into()) } else { Ok(()) }
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        conn.send(line);
        Ok(())
    }
}

impl Drop for Fails {
    fn drop(&mut self) {
        assert_ne!(self.how, "ending", "it ends badly");
    }
}

#[test]
fn a_shard_that_fails_ends_the_server_with_its_error() {
    on_every_driver(|case| {
        let driver = case.driver;
        let made = AtomicUsize::new(0);
        let running = Shards::new(3, move || {
            let how = if made.fetch_add(1, SeqCst) == 2 { "starting" } else { "never" };
            Server::new().driver(driver).serve_with(ANY, Lines::new(), Fails { how })
        });
        let error = running.run().expect_err("one cannot start");
        assert!(matches!(error, Error::Handler(_)), "{error}");
        assert!(error.to_string().contains("it cannot"), "{error}");

        let made = AtomicUsize::new(0);
        let running = Shards::new(3, move || {
            let how = if made.fetch_add(1, SeqCst) == 1 { "ending" } else { "never" };
            Server::new().driver(driver).serve_with(ANY, Lines::new(), Fails { how })
        });
        let error = running.bind().expect("a free port").drain_and_wait();
        let error = error.expect_err("one panics at the end");
        assert!(matches!(error, Error::ShardPanicked { shard: 1.., .. }), "{error}");
        assert!(error.to_string().contains("it ends badly"), "{error}");
    });
}

#[test]
fn limits_hold_for_all_shards_together() {
    on_every_driver(|case| {
        let limits = Limits::new().max_connections(Some(20)).unused_timeout(None);
        let running = with_limits(case.driver, 3, &limits);
        let mut clients = crowd(&running, 20);
        let mut late = Client::connect(&running.addresses()[0]);
        late.send("late\n");
        sleep(Duration::from_millis(100));
        assert_eq!(of_each(&running).iter().sum::<u64>(), 20, "one waits");
        // Whichever shard it was, the place is one for all.
        drop(clients.pop());
        assert_eq!(late.line(), "late");
        drop((clients, late));

        let limits = Limits::new().max_connections_per_ip(Some(7));
        let running = with_limits(case.driver, 3, &limits);
        for _ in 0..3 {
            let mut clients: Vec<_> =
                (0..12).map(|_| Client::connect(&running.addresses()[0])).collect();
            let count = |clients: &mut Vec<Client>| {
                clients.retain_mut(is_answered);
                clients.len()
            };
            assert_eq!(count(&mut clients), 7);
            drop(clients);
            wait_until("all are gone", || of_each(&running).iter().sum::<u64>() == 0);
        }
        let limits = Limits::new().max_connections_per_ip(Some(9));
        running.handle().set_limits(limits).expect("they can be followed");
        sleep(Duration::from_millis(50));
        let mut clients: Vec<_> =
            (0..12).map(|_| Client::connect(&running.addresses()[0])).collect();
        clients.retain_mut(is_answered);
        assert_eq!(clients.len(), 9);
    });
}

#[test]
fn while_the_emptiest_shard_is_in_a_handler_the_others_take_its_clients() {
    on_every_driver(|case| {
        let running = spawn(case.driver, 2);
        let mut clients = crowd(&running, 40);
        let names: Vec<_> = clients.iter_mut().map(|client| client.ask("thread")).collect();
        // The second shard keeps one client only: it is the emptiest by far.
        let mut kept = None;
        let mut others = Vec::new();
        for (client, name) in clients.into_iter().zip(names) {
            match (name.as_str(), &kept) {
                ("nonforker-1", None) => kept = Some(client),
                ("nonforker-1", Some(_)) => drop(client),
                _ => others.push(client),
            }
        }
        wait_until("they are gone", || of_each(&running)[1] == 1);
        let kept = kept.expect("each shard has some");
        kept.send("block\n");
        sleep(Duration::from_millis(30));
        let began = Instant::now();
        let mut late: Vec<_> = (0..40).map(|_| Client::connect(&running.addresses()[0])).collect();
        for client in &mut late {
            assert_eq!(client.ask("thread"), "nonforker-0");
        }
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1200), "the others took {took:?}");
        drop((late, others, kept));
    });
}

#[test]
fn a_unix_listener_of_another_is_left_alone() {
    on_every_driver(|case| {
        let path = std::env::temp_dir().join(format!("nonforker-given-{}", std::process::id()));
        let listener = Arc::new(UnixListener::bind(&path).expect("a place for the socket"));
        let (driver, theirs) = (case.driver, Arc::clone(&listener));
        let running = Shards::new(2, move || {
            let listener = theirs.try_clone().expect("a descriptor is free");
            Server::new().driver(driver).serve_on(listener, Lines::new(), Echo)
        });
        let running = running.bind().expect("it listens");
        drop(crowd(&running, 20));
        running.drain_and_wait().expect("it ends in order");
        assert!(path.exists(), "it is not ours");
        std::fs::remove_file(path).expect("it is there");
    });
}
