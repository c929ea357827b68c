//! Who may come in over real sockets, and how connections end that are old.

use std::{
    os::unix::fs::MetadataExt,
    thread::sleep,
    time::{Duration, Instant},
};

use nonforker::{
    Access, Address, Conn, Handler, Limits, Outcome, Running, Server, Shards, codec::Lines,
};

use crate::{
    client::Client,
    harness::{ANY, Case, on_every_driver},
};

/// Echoes, says who is there, and says goodbye.
struct Door;

impl Handler for Door {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match (line, conn.peer_credentials()) {
            (b"who", Some(who)) => conn.send(format!("{} {} {}", who.pid, who.uid, who.gid)),
            (b"who", None) => conn.send("nobody knows"),
            (line, _) => conn.send(line),
        }
        Ok(())
    }

    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("bye");
        Ok(())
    }
}

fn bind(case: &Case, limits: Limits, shape: fn(Server) -> Server) -> Running {
    let driver = case.driver;
    let make = move || {
        let server = Server::new().driver(driver).limits(limits.clone());
        shape(server.serve_with(ANY, Lines::new(), Door))
    };
    Shards::new(2, make).bind().expect("a free port")
}

fn connect(running: &Running) -> Client {
    Client::connect(&running.addresses()[0])
}

#[test]
fn lists_and_listeners_change_while_clients_come() {
    on_every_driver(|case| {
        let running = bind(case, Limits::new(), |server| server);
        let handle = running.handle();
        assert!(handle.is_ready());
        let mut old = connect(&running);
        assert_eq!(old.ask("hello"), "hello");
        let all = || "127.0.0.0/8".parse().expect("a network");
        handle.set_access(0, Access::new().deny(all())).expect("it exists");
        sleep(Duration::from_millis(50));
        let mut denied = connect(&running);
        assert!(denied.try_rest().unwrap_or_default().is_empty(), "it is told nothing");
        assert_eq!(old.ask("hello"), "hello", "who is there stays");
        handle.set_access(0, Access::new().allow(all())).expect("it exists");
        sleep(Duration::from_millis(50));
        assert_eq!(connect(&running).ask("hello"), "hello");

        handle.suspend(0).expect("it exists");
        sleep(Duration::from_millis(50));
        let mut late = connect(&running);
        late.send("hello\n");
        late.hears_nothing_for(Duration::from_millis(300));
        handle.resume(0).expect("it exists");
        assert_eq!(late.line(), "hello");
        handle.prepare();
        assert!(!handle.is_ready());
        assert_eq!(connect(&running).ask("hello"), "hello");
        running.drain_and_wait().expect("it ends in order");
    });
}

#[test]
fn beyond_the_limits_of_a_network_clients_are_told_that_it_is_busy() {
    on_every_driver(|case| {
        let limits = Limits::new().max_connections_per_net(Some(3));
        let running = bind(case, limits, |server| server.refuse_with("busy\r\n"));
        let mut clients: Vec<_> = (0..3).map(|_| connect(&running)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("hello"), "hello");
        }
        for _ in 0..5 {
            let mut busy = connect(&running);
            let _ = busy.try_send(b"hello\n");
            assert_eq!(busy.rest_text(), "busy\r\n");
        }
        drop(clients);
        sleep(Duration::from_millis(100));
        assert_eq!(connect(&running).ask("hello"), "hello");
        running.drain_and_wait().expect("it ends in order");

        let running = bind(case, Limits::new().accept_rate(Some(4)), |server| server);
        let answered = |_: &usize| {
            let mut client = connect(&running);
            client.try_send(b"hello\n").is_ok() && client.try_line().is_some()
        };
        assert_eq!((0..8).filter(answered).count(), 4);
        sleep(Duration::from_millis(1100));
        assert_eq!((0..8).filter(answered).count(), 4);
        running.drain_and_wait().expect("it ends in order");
    });
}

#[test]
fn connections_end_at_their_age_and_a_drain_is_spread_out() {
    on_every_driver(|case| {
        let limits = Limits::new().max_age(Some(Duration::from_millis(600)));
        let running = bind(case, limits, |server| server);
        let began = Instant::now();
        let mut client = connect(&running);
        assert_eq!(client.ask("hello"), "hello");
        assert_eq!(client.line(), "bye");
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
        assert_eq!(client.rest_text(), "");
        running.drain_and_wait().expect("it ends in order");

        let limits = Limits::new().drain_spread(Duration::from_millis(800));
        let running = bind(case, limits, |server| server);
        let mut clients: Vec<_> = (0..20).map(|_| connect(&running)).collect();
        for client in &mut clients {
            assert_eq!(client.ask("hello"), "hello");
        }
        let began = Instant::now();
        let ends = std::thread::scope(|scope| {
            let wait = |mut client: Client| {
                scope.spawn(move || {
                    assert_eq!(client.rest_text(), "bye\n");
                    began.elapsed()
                })
            };
            let threads: Vec<_> = clients.into_iter().map(wait).collect();
            running.drain_and_wait().expect("it ends in order");
            let ends = threads.into_iter().map(|thread| thread.join().expect("it ends"));
            ends.collect::<Vec<_>>()
        });
        let early = ends.iter().filter(|&&end| end < Duration::from_millis(400)).count();
        assert!((4..=16).contains(&early), "{ends:?}");
    });
}

#[test]
fn a_peer_of_a_unix_socket_is_known_to_its_kernel() {
    on_every_driver(|case| {
        let path = std::env::temp_dir().join(format!("nonforker-who-{}", std::process::id()));
        let address = Address::Unix(path);
        let at = address.clone();
        let running = Server::spawn({
            let driver = case.driver;
            move || Server::new().driver(driver).serve_with(at, Lines::new(), Door).also_on(ANY)
        });
        let running = running.expect("a place in the temporary folder");
        let own = std::fs::metadata("/proc/self").expect("it is a process");
        let expected = format!("{} {} {}", std::process::id(), own.uid(), own.gid());
        assert_eq!(Client::connect(&address).ask("who"), expected);
        let mut tcp = Client::connect(&running.addresses()[1]);
        assert_eq!(tcp.ask("who"), "nobody knows");
        running.drain_and_wait().expect("it ends in order");
    });
}
