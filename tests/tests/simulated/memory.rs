//! Memory for buffers is scarce: whoever holds little of it is served, and who is in the way goes.

use std::time::Duration;

use nonforker::{
    Limits, Server, Stats,
    sim::{Client, Ending, Faults, Rng, Simulation},
};

use crate::{
    hogs::{BUDGET, Hogs, all_fat, fat, gives, gives_with, served, simulation, taken},
    warnings::{said, warnings},
};

/// The most that one turn may add to the budget: what it collects, one read, and the replies to it.
const TURN: u64 = 256 << 10;

/// Nobody who holds little is kept waiting for as long.
const AT_ONCE: Duration = Duration::from_millis(5);

#[test]
fn a_client_that_reads_is_served_at_once_while_a_dozen_clients_that_never_do_hold_the_memory() {
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
fn a_client_that_reads_is_served_soon_on_a_bad_network_too() {
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
fn a_client_that_holds_more_than_its_share_is_not_read_from_until_there_is_room() {
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
fn a_request_behind_a_reply_larger_than_what_is_left_of_the_budget_is_handled() {
    // The reply does not reach the high watermark: nothing but the budget ends its turn.
    let limits = || Limits::new().high_watermark(BUDGET).memory_budget(Some(BUDGET));
    Simulation::new(move || gives_with(limits())).faults(|_| Faults::none()).seeds(0..20).run(
        |net| {
            let _fat = fat(net, 700_000);
            let client = net.connect();
            client.send("400000\nnext\n");
            client.expect([&[b'x'; 400_000][..], b"\nnext\n"].concat());
        },
    );
}

#[test]
fn a_client_that_is_not_read_from_does_not_wait_for_those_that_do_not_read() {
    simulation(BUDGET, 0..2).run(|net| {
        let mut others = Vec::new();
        while net.stats().buffered_bytes < BUDGET as u64 * 8 / 10 {
            others.push(fat(net, 20_000));
        }
        let request = vec![b'y'; 60_000];
        let half = net.connect();
        half.send(&request[..45_000]);
        net.wait(Duration::from_millis(10));
        let received = net.stats().received_bytes;
        half.send([&request[45_000..], b"\n"].concat());
        net.wait(Duration::from_millis(10));
        assert_eq!(net.stats().received_bytes, received, "it is read from");
        let took = served(net, &net.connect());
        assert!(took < AT_ONCE, "nobody is accepted: {took:?}");
        let began = net.now();
        half.expect([&request[..], b"\n"].concat());
        let took = net.now() - began;
        assert!(took < Duration::from_millis(1100), "{took:?}");
    });
}

#[test]
fn a_client_that_takes_what_it_held_is_read_from_again_at_once() {
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
fn no_connection_is_accepted_beyond_ninety_percent_and_clients_that_take_nothing_make_room_within_a_second()
 {
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
fn a_client_that_goes_on_taking_stays_though_memory_is_scarce() {
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
fn a_client_that_goes_on_taking_keeps_nobody_out() {
    const COUNT: usize = 1_000_000;
    simulation(taken(COUNT) * 100 / 95, 0..20).run(|net| {
        let slow = net.connect();
        slow.set_window(1000);
        slow.read_slowly(100, Duration::from_millis(100));
        slow.send(format!("{COUNT}\n"));
        net.wait(Duration::from_millis(100));
        for _ in 0..5 {
            let took = served(net, &net.connect());
            assert!(took < Duration::from_millis(1100), "who comes waited {took:?}");
        }
        let waits = [net.connect(), net.connect()].map(|client| served(net, &client));
        assert!(waits.iter().sum::<Duration>() > Duration::from_secs(1), "{waits:?}");
        slow.read_slowly(100_000, Duration::from_millis(100));
        slow.set_window(100_000);
        slow.half_close();
        let (received, ending) = slow.receive_to_end();
        assert_eq!((received.len(), ending), (COUNT + 1, Some(Ending::Finished)));
    });
}

#[test]
fn a_client_that_has_just_begun_a_request_has_time_to_complete_it() {
    simulation(BUDGET, 0..2).run(|net| {
        // It is there, and has held nothing so far.
        let begins = net.connect();
        net.wait(Duration::from_millis(1));
        let mut others = Vec::new();
        while net.stats().buffered_bytes < BUDGET as u64 * 91 / 100 {
            let client = net.connect();
            client.send(vec![b'y'; 17_000]);
            net.wait(Duration::from_millis(1));
            others.push(client);
        }
        net.wait(Duration::from_millis(700));
        let request = vec![b'z'; 60_000];
        begins.send(&request);
        served(net, &net.connect());
        assert!(others.iter().any(|client| client.ending().is_some()), "nobody was in the way");
        begins.send("\n");
        begins.expect([&request[..], b"\n"].concat());
    });
}

#[test]
fn half_requests_make_room_for_others_but_after_all_clients_that_do_not_read() {
    simulation(BUDGET, 0..2).run(|net| {
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
    simulation(BUDGET, 0..2).run(|net| {
        for _ in 0..40 {
            net.connect().send(vec![b'y'; 60_000]);
            net.wait(Duration::from_millis(1));
        }
        let took = served(net, &net.connect());
        assert!(took < Duration::from_millis(1100), "{took:?}");
    });
}

#[test]
fn beyond_the_budget_only_the_connection_that_holds_the_most_is_cut_off() {
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
fn many_buffers_that_grow_at_the_same_time_do_not_take_more_than_the_budget() {
    // Each then has a buffer that is nearly full, and a few bytes more need the next larger one.
    for nearly_full in [900, 5000, 18_000, 73_000] {
        simulation(BUDGET, 0..2).run(|net| {
            let count = (BUDGET / 2 / nearly_full).min(500);
            let clients: Vec<Client> = (0..count).map(|_| net.connect()).collect();
            for client in &clients {
                client.send(vec![b'y'; nearly_full]);
            }
            net.wait(Duration::from_millis(500));
            for client in &clients {
                client.send([b'y'; 1000]);
            }
            for _ in 0..300 {
                net.wait(Duration::from_micros(1));
                let held = net.stats().buffered_bytes;
                assert!(held <= BUDGET as u64 + TURN, "{held} bytes are held, {nearly_full} each");
            }
        });
    }
}

#[test]
fn evictions_are_logged_once_a_second() {
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
        let flap = |times: usize| {
            for _ in 0..times {
                let fat = fat(net, COUNT);
                net.wait(Duration::from_millis(10));
                fat.reset();
                net.wait(Duration::from_millis(190));
            }
        };
        let said = said(|| {
            flap(10);
            net.wait(Duration::from_secs(3));
            flap(3);
            net.wait(Duration::from_secs(3));
        });
        let about = said.iter().filter(|said| said.message.contains("for buffers:"));
        let (lines, left_out): (Vec<&str>, Vec<u64>) =
            about.map(|said| (said.message.as_str(), said.left_out)).unzip();
        assert!((4..=6).contains(&lines.len()), "{lines:#?}");
        assert!(left_out.iter().sum::<u64>() >= 4, "{left_out:?}");
        let first = lines[0].replace(|digit: char| digit.is_ascii_digit() || digit == '.', "");
        assert_eq!(
            first,
            "connections hold  KiB of the  MiB for buffers: who comes has to wait, and who holds more \
             than  MiB is not read from, until they hold less than  KiB"
        );
        let last = lines[lines.len() - 1];
        assert!(last.ends_with("it is ample again, nobody has to wait"), "{last}");
    });
}

fn varied(rng: &Rng) -> Server {
    let budget = 1 << rng.between(18, 21);
    let high = rng.between(1000, budget);
    let limits = Limits::new().memory_budget(Some(budget)).high_watermark(high);
    gives_with(limits.low_watermark(high / 4).frame_timeout(None))
}

#[test]
fn whatever_holds_memory_a_new_client_is_served_soon_and_all_is_given_back() {
    Simulation::varied(varied).faults(Faults::swarm).seeds(0..400).run(|net| {
        let (rng, mut clients) = (net.rng(), Vec::<Client>::new());
        for _ in 0..rng.between(20, 120) {
            let which = rng.below(clients.len() as u64 + 1);
            let known = clients.get(usize::try_from(which).expect("there are few"));
            match (known, rng.below(12)) {
                (Some(client), 0) => client.read_all(),
                (Some(client), 1) => client.read_slowly(1000, Duration::from_millis(50)),
                (Some(client), 2) => client.reset(),
                (Some(client), 3) => client.half_close(),
                (Some(client), 4) => client.send("\n"),
                (Some(client), 5) => client.send("5000\n".repeat(20)),
                (_, 6..=8) => {
                    let half = net.connect();
                    half.send(vec![b'y'; rng.magnitude(200_000)]);
                    clients.push(half);
                }
                _ => {
                    let deaf = net.connect();
                    deaf.stall();
                    deaf.send(format!("{}\n", rng.magnitude(200_000)));
                    clients.push(deaf);
                }
            }
            net.wait(Duration::from_millis(rng.below(100)));
        }
        net.set_faults(Faults::none());
        net.wait(Duration::from_secs(5));
        let took = served(net, &net.connect());
        assert!(took < Duration::from_secs(3), "who comes waited {took:?}");
        clients.iter().for_each(Client::reset);
        net.wait(Duration::from_secs(10));
        assert_eq!(net.stats().buffered_bytes, 0);
    });
}
