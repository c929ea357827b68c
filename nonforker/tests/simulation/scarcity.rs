//! The system lacks something: the server does without, does not spin, says so, and recovers.

use std::{
    cell::RefCell,
    fmt::Debug,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// How often a warning was given, and how often it was left out.
#[derive(Clone, Copy, Default)]
struct Count {
    given: u64,
    left_out: u64,
}

/// Counts the warnings about one thing.
struct Warnings {
    about: &'static str,
    count: Arc<Mutex<Count>>,
}

#[derive(Default)]
struct Fields {
    message: String,
    left_out: u64,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "left_out" {
            self.left_out = value;
        }
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.message.contains(self.about) {
            let mut count = self.count.lock().expect("nothing panics here");
            count.given += 1;
            count.left_out += fields.left_out;
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The warnings about something while `during` runs.
fn warnings(about: &'static str, during: impl FnOnce()) -> Count {
    let count = Arc::<Mutex<Count>>::default();
    let warnings = Warnings { about, count: Arc::clone(&count) };
    tracing::subscriber::with_default(warnings, during);
    *count.lock().expect("nothing panics here")
}

fn echo() -> Server {
    Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line))
}

fn without_faults() -> Simulation {
    Simulation::new(echo).faults(|_| Faults::none()).seeds(0..20)
}

/// That the client is served, and how long that takes.
fn served(net: &Net, client: &Client) -> Duration {
    let began = net.now();
    client.send("hello\n");
    client.expect("hello\n");
    net.now() - began
}

#[test]
fn without_descriptors_the_server_tries_now_and_then_and_says_so_once_a_second() {
    without_faults().run(|net| {
        let before = net.connect();
        served(net, &before);
        net.set_faults(Faults { accept_exhausted: 1000, ..Faults::none() });
        let client = net.connect();
        let count = warnings("cannot accept", || net.wait(Duration::from_millis(3050)));
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(count.left_out <= 30, "accepting failed {} times", count.left_out);
        let among = served(net, &before);
        assert!(among < Duration::from_millis(1), "others waited {among:?}");
        net.set_faults(Faults::none());
        let took = served(net, &client);
        assert!(took < Duration::from_millis(110), "it took {took:?} to recover");
    });
}

#[test]
fn a_descriptor_that_becomes_free_is_used_at_once() {
    without_faults().run(|net| {
        let before = net.connect();
        served(net, &before);
        net.set_faults(Faults { accept_exhausted: 1000, ..Faults::none() });
        let client = net.connect();
        net.wait(Duration::from_millis(10));
        net.set_faults(Faults::none());
        before.half_close();
        before.expect_end();
        let took = served(net, &client);
        assert!(took < Duration::from_millis(10), "it took {took:?}");
    });
}

#[test]
fn a_connection_that_breaks_before_it_is_accepted_keeps_nobody_out() {
    without_faults().run(|net| {
        net.set_faults(Faults { accept_aborted: 1000, ..Faults::none() });
        let aborted = net.connect();
        assert_eq!(aborted.receive_to_end(), (Vec::new(), Some(Ending::Reset)));
        net.set_faults(Faults::none());
        let took = served(net, &net.connect());
        assert!(took < Duration::from_millis(10), "it took {took:?}");
    });
}

#[test]
fn without_kernel_buffers_the_server_tries_now_and_then_and_loses_nothing() {
    without_faults().run(|net| {
        let client = net.connect();
        net.set_faults(Faults { send_exhausted: 1000, ..Faults::none() });
        client.send("hello\n");
        let count = warnings("out of buffers", || net.wait(Duration::from_millis(3050)));
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(count.left_out <= 60, "sending failed {} times", count.left_out);
        net.set_faults(Faults::none());
        client.expect("hello\n");
    });
}

/// Answers a number with that many bytes, written at once.
fn gives(budget: usize) -> Server {
    let limits = Limits::new().memory_budget(Some(budget)).write_timeout(None);
    Server::new().limits(limits).serve("127.0.0.1:1", Lines::new(), |conn, line| {
        let reply = match std::str::from_utf8(line).map(str::parse) {
            Ok(Ok(count)) => vec![b'x'; count],
            _ => line.to_vec(),
        };
        conn.send(reply);
    })
}

/// Clients that read nothing of the numbers of bytes they ask for.
fn fat(net: &Net, counts: &[usize]) -> Vec<Client> {
    let ask = |count| {
        let client = net.connect();
        client.set_window(1);
        client.stall();
        client.send(format!("{count}\n"));
        net.wait(Duration::from_millis(1));
        client
    };
    counts.iter().copied().map(ask).collect()
}

/// How many bytes the buffers take for a reply of `count` bytes.
fn taken(count: usize) -> usize {
    let bytes = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&bytes);
    let simulation = Simulation::new(|| gives(1 << 30)).faults(|_| Faults::none()).seeds(0..1);
    simulation.run(|net| {
        let _fat = fat(net, &[count]);
        *seen.borrow_mut() = usize::try_from(net.stats().buffered_bytes).expect("it fits");
    });
    bytes.take()
}

#[test]
fn short_of_memory_nothing_more_is_read_then_nobody_accepted_and_all_go_on_afterwards() {
    const COUNT: usize = 1_000_000;
    for (percent, accepts) in [(85, true), (95, false)] {
        let budget = taken(COUNT) * 100 / percent;
        let simulation = Simulation::new(move || gives(budget)).faults(|_| Faults::none());
        simulation.seeds(0..20).run(|net| {
            let thin: Vec<Client> = (0..3).map(|_| net.connect()).collect();
            for client in &thin {
                served(net, client);
            }
            let fat = fat(net, &[COUNT]);
            // Who was being read from is read from once more.
            thin.iter().for_each(|client| client.send("hello\n"));
            net.wait(Duration::from_secs(1));
            thin.iter().for_each(|client| client.expect("hello\n"));
            let received = net.stats().received_bytes;
            let late = net.connect();
            thin.iter().chain([&late]).for_each(|client| client.send("hello\n"));
            net.wait(Duration::from_secs(1));
            let stats = net.stats();
            assert_eq!(stats.received_bytes, received, "something is read at {percent} %");
            assert_eq!(stats.accepted, if accepts { 5 } else { 4 }, "at {percent} %");
            fat[0].set_window(COUNT);
            fat[0].read_all();
            thin.iter().chain([&late]).for_each(|client| client.expect("hello\n"));
        });
    }
}

#[test]
fn beyond_the_budget_whoever_holds_the_most_is_cut_off_and_nobody_else() {
    const COUNTS: [usize; 3] = [300_000, 900_000, 500_000];
    let budget = COUNTS.map(taken).iter().sum::<usize>() - 10_000;
    let simulation = Simulation::new(move || gives(budget)).faults(|_| Faults::none());
    simulation.seeds(0..20).run(|net| {
        let clients = fat(net, &COUNTS);
        net.wait(Duration::from_secs(1));
        assert_eq!(clients[1].ending(), Some(Ending::Reset), "it held the most");
        for (client, count) in [(&clients[0], COUNTS[0]), (&clients[2], COUNTS[2])] {
            client.set_window(1 << 20);
            client.read_all();
            client.half_close();
            let (received, ending) = client.receive_to_end();
            assert_eq!((received.len(), ending), (count + 1, Some(Ending::Finished)));
        }
    });
}
