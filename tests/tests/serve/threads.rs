//! Threads of the program: they post, they answer, they do what is offloaded.

use std::{
    collections::BTreeSet,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nonforker::{
    Closure, Conn, Gone, Handler, Limits, NoSuchService, Outcome, PostError, Running, Server,
    Ticket, codec::Lines,
};

use crate::{
    client::Client,
    harness::{ANY, Case, on_every_driver},
};

/// Gives each request to one of some threads, which answer.
struct Jobs(Vec<mpsc::Sender<(Vec<u8>, Ticket<Self>)>>, usize);

impl Handler for Jobs {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            b"ping" => conn.send("pong"),
            b"thread" => {
                let name = || thread::current().name().unwrap_or("none").to_owned();
                conn.offload(name, |_, conn, name| conn.send(name));
            }
            b"sleep" => {
                conn.offload(
                    || thread::sleep(Duration::from_millis(300)),
                    |_, conn, ()| conn.send("slept"),
                );
            }
            _ => {
                self.1 += 1;
                let sender = &self.0[self.1 % self.0.len()];
                sender.send((line.to_vec(), conn.defer())).expect("the thread is there");
            }
        }
        Ok(())
    }
}

/// A thread that answers. It ends with the handler.
fn worker() -> mpsc::Sender<(Vec<u8>, Ticket<Jobs>)> {
    let (sender, receiver) = mpsc::channel::<(Vec<u8>, Ticket<Jobs>)>();
    thread::spawn(move || {
        for (line, ticket) in receiver {
            let _ = ticket.send(line);
        }
    });
    sender
}

fn spawn(case: &Case, limits: Limits) -> Running {
    let driver = case.driver;
    let make = move || {
        let jobs = Jobs((0..4).map(|_| worker()).collect(), 0);
        let server = Server::new().driver(driver).limits(limits).offload_threads(3);
        server.serve_with(ANY, Lines::new(), jobs)
    };
    Server::spawn(make).expect("a free port")
}

#[test]
fn many_clients_are_answered_by_threads_each_in_order() {
    on_every_driver(|case| {
        let running = spawn(case, Limits::new().tickets_max(8));
        let address = running.addresses()[0].clone();
        let clients: Vec<_> = (0..16)
            .map(|number| {
                let address = address.clone();
                thread::spawn(move || {
                    let mut client = Client::connect(&address);
                    for round in 0..20 {
                        let lines: Vec<String> =
                            (0..10).map(|index| format!("{number} {round} {index}")).collect();
                        client.send(lines.join("\n") + "\n");
                        for line in lines {
                            assert_eq!(client.line(), line);
                        }
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("it is answered"));
        let stats = running.handle().stats();
        assert_eq!((stats.tickets, stats.open_tickets), (16 * 200, 0));
        running.drain_and_wait().expect("it ends in order");
    });
}

#[test]
fn what_threads_post_comes_in_order_and_wakes_a_server_that_sleeps() {
    on_every_driver(|case| {
        let running = spawn(case, Limits::new());
        let remote = running.remote::<Jobs>().expect("there is one");
        assert_eq!(running.remote::<Closure<Lines>>().err(), Some(NoSuchService::Unknown));
        let mut client = Client::connect(&running.addresses()[0]);
        assert_eq!(client.ask("ping"), "pong");
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let remote = remote.clone();
                thread::spawn(move || {
                    for index in 0..5000 {
                        let say =
                            move |_: &mut Jobs, all: &mut nonforker::Connections<'_, Jobs>| {
                                all.for_each(|other| other.send(format!("{number} {index}")));
                            };
                        while remote.post(say) == Err(PostError::Full) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        for _ in 0..20_000 {
            let line = client.line();
            let (number, index) = line.split_once(' ').expect("two numbers");
            let number: usize = number.parse().expect("a number");
            assert_eq!(index.parse(), Ok(next[number]), "of {number}");
            next[number] += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().expect("it posts"));
        // It sleeps now.
        thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        remote.post(|_, all| all.for_each(|other| other.send("awake"))).expect("there is room");
        assert_eq!(client.line(), "awake");
        assert!(began.elapsed() < Duration::from_secs(5));
        running.drain_and_wait().expect("it ends in order");
        assert_eq!(remote.post(|_, _| {}), Err(PostError::Ended));
    });
}

#[test]
fn offloaded_work_keeps_nobody_waiting_and_its_threads_end_with_the_server() {
    on_every_driver(|case| {
        let running = spawn(case, Limits::new());
        let connect = || Client::connect(&running.addresses()[0]);
        let (mut one, mut two) = (connect(), connect());
        one.send("sleep\nping\n");
        let began = Instant::now();
        assert_eq!(two.ask("ping"), "pong");
        assert!(began.elapsed() < Duration::from_millis(250), "it does not wait for the other");
        assert_eq!((one.line(), one.line()), ("slept".to_owned(), "pong".to_owned()));
        let names: BTreeSet<String> = (0..20).map(|_| two.ask("thread")).collect();
        assert!(names.iter().all(|name| name.starts_with("offload-")), "{names:?}");
        assert!(names.len() <= 3, "{names:?}");
        assert!(offload_threads() > 0);
        running.drain_and_wait().expect("it ends in order");
        assert_eq!(offload_threads(), 0);
    });
}

/// How many threads of this process do offloaded work.
fn offload_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("offload-")).count()
}

#[test]
fn a_thread_hears_that_nobody_waits_for_its_answer() {
    on_every_driver(|case| {
        let (sender, tickets) = mpsc::channel();
        let driver = case.driver;
        let make = move || {
            let server = Server::new().driver(driver);
            server.serve_with(ANY, Lines::new(), Jobs(vec![sender], 0))
        };
        let running = Server::spawn(make).expect("a free port");
        let client = Client::connect(&running.addresses()[0]);
        client.send("work\n");
        let (_, ticket) = tickets.recv().expect("it was asked");
        drop(client);
        let began = Instant::now();
        // A client that has finished is answered; the answer finds that it has gone.
        ticket.send("one").expect("it may be there");
        let mut client = Client::connect(&running.addresses()[0]);
        client.send("work\n");
        let (_, ticket) = tickets.recv().expect("it was asked");
        running.handle().stop();
        assert!(running.wait().is_err(), "it was cut off");
        assert_eq!(ticket.send("late"), Err(Gone));
        assert!(began.elapsed() < Duration::from_secs(10));
        let _ = client.try_line();
    });
}
