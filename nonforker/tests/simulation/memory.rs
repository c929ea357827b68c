//! Memory for buffers is scarce: whoever holds little of it is served, and who is in the way goes.

use std::{cell::RefCell, ops::Range, rc::Rc, time::Duration};

use nonforker::{
    Limits, Server, Stats,
    codec::Lines,
    sim::{Client, Ending, Faults, Net, Simulation},
};

use crate::warnings::{said, warnings};

const BUDGET: usize = 1 << 20;

/// The most that one turn may add to the budget: what it collects, one read, and the replies to it.
const TURN: u64 = 256 << 10;

/// Nobody who holds little is kept waiting for as long.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Answers a number with that many bytes, written at once, and echoes the rest.
fn gives(budget: usize) -> Server {
    gives_with(Limits::new().memory_budget(Some(budget)).write_timeout(None).frame_timeout(None))
}

fn gives_with(limits: Limits) -> Server {
    Server::new().limits(limits).serve("127.0.0.1:1", Lines::with_max(1 << 20), |conn, line| {
        let reply = match std::str::from_utf8(line).map(str::parse) {
            Ok(Ok(count)) => vec![b'x'; count],
            _ => line.to_vec(),
        };
        conn.send(reply);
    })
}

fn simulation(budget: usize, seeds: Range<u64>) -> Simulation {
    Simulation::new(move || gives(budget)).faults(|_| Faults::none()).seeds(seeds)
}

/// How long the client waits for an answer.
fn served(net: &Net, client: &Client) -> Duration {
    let began = net.now();
    client.send("hello\n");
    client.expect("hello\n");
    net.now() - began
}

/// A client that reads nothing of the many bytes it asks for.
fn fat(net: &Net, count: usize) -> Client {
    let client = net.connect();
    client.set_window(1);
    client.stall();
    client.send(format!("{count}\n"));
    net.wait(Duration::from_millis(1));
    client
}

fn all_fat(net: &Net, counts: &[usize]) -> Vec<Client> {
    counts.iter().map(|&count| fat(net, count)).collect()
}

/// How many bytes the buffers take for a reply of `count` bytes.
fn taken(count: usize) -> usize {
    let bytes = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&bytes);
    simulation(1 << 30, 0..1).run(|net| {
        let _fat = fat(net, count);
        *seen.borrow_mut() = usize::try_from(net.stats().buffered_bytes).expect("it fits");
    });
    bytes.take()
}

/// Clients that ask and never read, and come again when they are thrown out.
struct Hogs<'a> {
    net: &'a Net,
    clients: Vec<Client>,
}

impl<'a> Hogs<'a> {
    fn new(net: &'a Net, count: usize) -> Self {
        Self { net, clients: (0..count).map(|_| Self::come(net)).collect() }
    }

    fn come(net: &Net) -> Client {
        let client = net.connect();
        client.set_window(1000);
        client.stall();
        client.send("20000\n".repeat(20));
        client
    }

    fn come_again(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.ending().is_some()) {
            *client = Self::come(self.net);
        }
    }
}

#[test]
fn whoever_reads_is_served_at_once_while_a_dozen_who_never_do_hold_the_memory() {
    simulation(BUDGET, 0..40).run(|net| {
        let good = net.connect();
        served(net, &good);
        let mut hogs = Hogs::new(net, 12);
        let mut scarce = 0;
        for step in 0..200 {
            net.wait(Duration::from_millis(50));
            let Stats { buffered_bytes, .. } = net.stats();
            assert!(buffered_bytes <= BUDGET as u64 + TURN, "{buffered_bytes} bytes are held");
            scarce += u32::from(buffered_bytes > BUDGET as u64 * 8 / 10);
            let took = served(net, &good);
            assert!(took < AT_ONCE, "who was there waited {took:?}");
            hogs.come_again();
            if step % 20 == 13 {
                let took = served(net, &net.connect());
                assert!(took < Duration::from_millis(1100), "who comes waited {took:?}");
            }
        }
        assert!(scarce > 100, "memory was scarce {scarce} times");
    });
}

#[test]
fn whoever_reads_is_served_soon_on_a_bad_network_too() {
    let bad = Simulation::new(|| gives(BUDGET)).seeds(0..100);
    bad.run(|net| {
        let good = net.connect();
        served(net, &good);
        let mut hogs = Hogs::new(net, 12);
        for _ in 0..20 {
            net.wait(Duration::from_millis(300));
            let took = served(net, &good);
            assert!(took < Duration::from_secs(1), "who was there waited {took:?}");
            hogs.come_again();
        }
        let took = served(net, &net.connect());
        assert!(took < Duration::from_secs(3), "who comes waited {took:?}");
    });
}

#[test]
fn whoever_holds_more_than_its_share_is_not_read_from_until_there_is_room() {
    // It is not blamed for having to wait.
    let limits = || Limits::new().frame_timeout(Some(Duration::from_millis(600)));
    let server = move || gives_with(limits().memory_budget(Some(BUDGET)));
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20).run(|net| {
        let thin = net.connect();
        served(net, &thin);
        let mut fat = all_fat(net, &[90_000; 8]);
        while net.stats().buffered_bytes < BUDGET as u64 * 8 / 10 {
            fat.push(self::fat(net, 30_000));
        }
        let before = net.stats().received_bytes;
        let request = vec![b'y'; 400_000];
        let large = net.connect();
        large.send(&request);
        net.wait(Duration::from_millis(500));
        let read = net.stats().received_bytes - before;
        assert!((60_000..260_000).contains(&read), "{read} bytes were read");
        let took = served(net, &thin);
        assert!(took < AT_ONCE, "{took:?}");
        // It waits for memory, so those who do not read make room.
        large.send("\n");
        large.expect(&request);
        assert!(fat.iter().any(|client| client.ending() == Some(Ending::Reset)));
    });
}

#[test]
fn whoever_takes_what_it_held_is_read_from_again_at_once() {
    let limits = || Limits::new().high_watermark(BUDGET).write_timeout(None);
    let server = move || gives_with(limits().memory_budget(Some(BUDGET)));
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20).run(|net| {
        let client = fat(net, 100_000);
        let mut others = 0;
        while net.stats().buffered_bytes < BUDGET as u64 * 8 / 10 {
            let _fat = fat(net, 30_000);
            others += 1;
        }
        assert!(others > 12, "a share is less than it holds");
        client.send("hello\n");
        net.wait(Duration::from_millis(1));
        let received = net.stats().received_bytes;
        client.send("hello\n");
        net.wait(Duration::from_millis(10));
        assert_eq!(net.stats().received_bytes, received, "it is read from");
        let began = net.now();
        client.set_window(1 << 20);
        client.read_all();
        client.expect("x".repeat(100_000) + "\nhello\nhello\n");
        let took = net.now() - began;
        assert!(took < AT_ONCE, "{took:?}");
    });
}

#[test]
fn nobody_is_accepted_beyond_ninety_percent_and_who_takes_nothing_makes_room_within_a_second() {
    const COUNT: usize = 1_000_000;
    for (percent, accepts) in [(85, true), (95, false)] {
        simulation(taken(COUNT) * 100 / percent, 0..20).run(|net| {
            let fat = fat(net, COUNT);
            net.wait(Duration::from_millis(100));
            let late = net.connect();
            late.send("hello\n");
            net.wait(Duration::from_millis(800));
            assert_eq!(net.stats().accepted, if accepts { 2 } else { 1 }, "at {percent} %");
            net.wait(Duration::from_millis(200));
            late.expect("hello\n");
            // Where it is in nobody's way, it stays.
            net.wait(Duration::from_secs(60));
            assert_eq!(fat.ending().is_none(), accepts, "at {percent} %");
            if accepts {
                fat.set_window(COUNT);
                fat.read_all();
                fat.half_close();
                let (received, ending) = fat.receive_to_end();
                assert_eq!((received.len(), ending), (COUNT + 1, Some(Ending::Finished)));
            }
        });
    }
}

#[test]
fn whoever_goes_on_taking_stays_though_memory_is_scarce() {
    const COUNTS: [usize; 2] = [300_000, 600_000];
    simulation(COUNTS.map(taken).iter().sum::<usize>() * 100 / 95, 0..20).run(|net| {
        let deaf = fat(net, COUNTS[0]);
        let slow = net.connect();
        slow.set_window(1000);
        slow.read_slowly(100, Duration::from_millis(100));
        slow.send(format!("{}\n", COUNTS[1]));
        net.wait(Duration::from_millis(100));
        let late = net.connect();
        let took = served(net, &late);
        assert!(took > Duration::from_millis(500), "it did not have to wait: {took:?}");
        assert_eq!(deaf.ending(), Some(Ending::Reset), "it is in the way");
        slow.read_slowly(100_000, Duration::from_millis(100));
        slow.set_window(100_000);
        slow.half_close();
        let (received, ending) = slow.receive_to_end();
        assert_eq!((received.len(), ending), (COUNTS[1] + 1, Some(Ending::Finished)));
    });
}

#[test]
fn half_requests_make_room_for_others_but_after_all_who_do_not_read() {
    simulation(BUDGET, 0..5).run(|net| {
        let half = net.connect();
        half.set_window(1 << 20);
        half.send(vec![b'y'; 150_000]);
        net.wait(Duration::from_millis(1));
        let deaf = all_fat(net, &[130_000; 6]);
        served(net, &net.connect());
        net.wait(Duration::from_millis(1200));
        assert!(deaf.iter().any(|client| client.ending().is_some()), "nobody was in the way");
        assert_eq!(half.ending(), None, "it was not in the way");
        half.send("\n");
        half.expect([vec![b'y'; 150_000], b"\n".to_vec()].concat());
    });
    simulation(BUDGET, 0..5).run(|net| {
        for _ in 0..40 {
            net.connect().send(vec![b'y'; 60_000]);
            net.wait(Duration::from_millis(1));
        }
        let took = served(net, &net.connect());
        assert!(took < Duration::from_millis(1100), "{took:?}");
    });
}

#[test]
fn beyond_the_budget_whoever_holds_the_most_is_cut_off_and_nobody_else() {
    const COUNTS: [usize; 3] = [300_000, 900_000, 500_000];
    let budget = COUNTS.map(taken).iter().sum::<usize>() - 10_000;
    simulation(budget, 0..20).run(|net| {
        let clients = all_fat(net, &COUNTS);
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

#[test]
fn a_thousand_half_requests_at_the_same_time_do_not_take_more_than_the_budget() {
    simulation(BUDGET, 0..20).run(|net| {
        let clients: Vec<Client> = (0..200).map(|_| net.connect()).collect();
        net.wait(Duration::from_millis(10));
        for client in &clients {
            client.send(vec![b'y'; 60_000]);
        }
        for _ in 0..1000 {
            net.wait(Duration::from_micros(1));
            let held = net.stats().buffered_bytes;
            assert!(held <= BUDGET as u64 + TURN, "{held} bytes are held");
        }
    });
}

#[test]
fn whoever_is_thrown_out_is_told_of_once_a_second() {
    simulation(BUDGET, 0..20).run(|net| {
        let mut hogs = Hogs::new(net, 40);
        let before = net.stats().closed;
        let count = warnings("closed a connection", || {
            for _ in 0..61 {
                net.wait(Duration::from_millis(50));
                hogs.come_again();
            }
        });
        let closed = net.stats().closed - before;
        assert!((3..=4).contains(&count.given), "{} warnings", count.given);
        assert!(closed >= 20, "{closed} were thrown out");
        let counted = count.given + count.left_out;
        assert!(counted > closed / 2 && counted <= closed + 40, "{counted} of {closed}");
    });
}

#[test]
fn how_scarce_memory_is_is_said_in_plain_words_once_a_second_and_at_last() {
    const COUNT: usize = 1_000_000;
    simulation(taken(COUNT) * 100 / 95, 0..20).run(|net| {
        let said = said(|| {
            for _ in 0..10 {
                let fat = fat(net, COUNT);
                net.wait(Duration::from_millis(10));
                fat.reset();
                net.wait(Duration::from_millis(190));
            }
            net.wait(Duration::from_secs(3));
        });
        let about = said.iter().filter(|said| said.message.contains("for buffers:"));
        let (lines, left_out): (Vec<&str>, Vec<u64>) =
            about.map(|said| (said.message.as_str(), said.left_out)).unzip();
        assert!((2..=4).contains(&lines.len()), "{lines:#?}");
        assert!(left_out.iter().sum::<u64>() >= 4, "{left_out:?}");
        let first = lines[0].replace(|digit: char| digit.is_ascii_digit() || digit == '.', "");
        assert_eq!(
            first,
            "connections hold  KiB of the  MiB for buffers: nobody is accepted, and who holds more \
             than  MiB is not read from, until they hold less than  KiB"
        );
        let last = lines[lines.len() - 1];
        assert!(last.ends_with("it is ample again, nobody has to wait"), "{last}");
    });
}
