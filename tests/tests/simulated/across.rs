//! Several shards in one network: tickets that are counted for all, and messages that reach all.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use nonforker::{
    Conn, Handler, Limits, Outcome, Server, Ticket,
    codec::Lines,
    sim::{Client, Ending, Faults, Simulation},
};

use crate::topics::Board;

const ADDRESS: &str = "127.0.0.1:1685";

thread_local! {
    /// What the handlers of all shards have taken, and the script answers.
    static TICKETS: RefCell<VecDeque<Ticket<Later>>> = RefCell::default();
}

fn open() -> usize {
    TICKETS.with_borrow(VecDeque::len)
}

fn answer() {
    let ticket = TICKETS.with_borrow_mut(VecDeque::pop_front).expect("one is open");
    let _ = ticket.send("answer");
}

/// Answers later.
struct Later;

impl Handler for Later {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        let ticket = conn.defer();
        TICKETS.with_borrow_mut(|tickets| tickets.push_back(ticket));
        Ok(())
    }
}

fn plain() -> Limits {
    Limits::new().unused_timeout(None).answer_timeout(None)
}

#[test]
fn tickets_are_bounded_for_all_shards_together_and_nobody_waits_in_vain() {
    const MAX: usize = 4;
    let server = || {
        TICKETS.with_borrow_mut(VecDeque::clear);
        Server::new().limits(plain().tickets_max(MAX)).serve_with(ADDRESS, Lines::new(), Later)
    };
    Simulation::new(server).shards(3).seeds(0..100).run(|net| {
        let clients: Vec<_> = (0..24).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("a\nb\n");
        }
        for _ in 0..2 * clients.len() {
            net.settle();
            net.wait(Duration::from_millis(400));
            // Each shard may take one before it sees that there are none.
            assert!((1..MAX + 3).contains(&open()), "{} are open", open());
            assert!(net.stats().open_tickets >= open() as u64);
            answer();
        }
        for client in &clients {
            client.expect("answer\nanswer\n");
        }
    });
}

#[test]
fn what_a_shard_with_tickets_leaves_another_gets() {
    let server = || {
        TICKETS.with_borrow_mut(VecDeque::clear);
        Server::new().limits(plain().tickets_max(2)).serve_with(ADDRESS, Lines::new(), Later)
    };
    Simulation::new(server).shards(2).seeds(0..60).run(|net| {
        let clients: Vec<_> = (0..20).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("a\n");
        }
        net.settle();
        net.wait(Duration::from_secs(1));
        // The clients that have tickets leave, and answers to them are of no use.
        clients.iter().take(10).for_each(Client::reset);
        for _ in 0..40 {
            net.wait(Duration::from_millis(400));
            if open() > 0 {
                answer();
            }
        }
        for client in &clients[10..] {
            client.expect("answer\n");
        }
    });
}

fn boards(limits: Limits) -> impl Fn() -> Server + 'static {
    move || {
        let server = Server::new().limits(limits.clone());
        server.serve_with(ADDRESS, crate::topics::voice(), Board::default())
    }
}

#[test]
fn what_is_published_reaches_the_subscribers_of_all_shards_in_order() {
    let run = || {
        Simulation::new(boards(plain())).shards(3).seeds(0..60).run(|net| {
            let readers: Vec<_> = (0..15).map(|_| net.connect()).collect();
            for reader in &readers {
                reader.send("close:news ok\n");
                reader.expect("ok\n");
            }
            // Some are copied, some are shared.
            let long = "x".repeat(5000);
            let text = format!("publish:news=1 publish:news={long} publish:news=3 publish:other=4");
            readers[0].send(format!("{text}\n"));
            let all = format!("1\n{long}\n3\n");
            readers.iter().for_each(|reader| reader.expect(&all));
            // Those that have left get no more, and a topic may be gone from a shard or from all.
            for reader in &readers[..8] {
                reader.send("leave:news\n");
                reader.expect("left\n");
            }
            readers[0].send("publish:news=5 end\n");
            readers[0].expect("end\n");
            readers[8..].iter().for_each(|reader| reader.expect("5\n"));
            readers[8..].iter().for_each(Client::half_close);
            net.settle();
            net.wait(Duration::from_secs(10));
            readers[0].send("publish:news=6 end\n");
            readers[0].expect("end\n");
            net.settle();
            assert_eq!(net.stats().buffered_bytes, 0);
        })
    };
    assert_eq!(run(), run());
}

#[test]
fn a_shard_that_is_far_behind_says_what_its_clients_have_missed() {
    let limits = plain().remote_max(2);
    Simulation::new(boards(limits)).shards(3).seeds(0..60).faults(|_| Faults::none()).run(|net| {
        let readers: Vec<_> = (0..30).map(|_| net.connect()).collect();
        for (number, reader) in readers.iter().enumerate() {
            let policy = ["close", "oldest", "newest"][number % 3];
            reader.send(format!("{policy}:news ok\n"));
            reader.expect("ok\n");
        }
        let publisher = net.connect();
        let text: Vec<_> = (0..5).map(|number| format!("publish:news={number}")).collect();
        publisher.send(format!("{} ok\n", text.join(" ")));
        publisher.expect("ok\n");
        net.settle();
        let (mut all, mut missed) = (0, 0);
        for (number, reader) in readers.iter().enumerate() {
            let got = reader.received();
            let closes = number % 3 == 0;
            if got == b"0\n1\n2\n3\n4\n" {
                all += 1;
                assert_eq!(reader.ending(), None);
            } else if closes {
                missed += 1;
                assert!(reader.ending().is_some(), "it was to get all of them: {got:?}");
            } else {
                missed += 1;
                assert_eq!(got, b"0\n1\n", "the first of them were there in time");
                reader.send("dropped\n");
                reader.expect("3 dropped\n");
            }
        }
        assert!(all > 3 && missed > 9, "{all}, {missed}");
        // What comes later is not missed, since by then the shards have read their mail.
        for number in 5..9 {
            publisher.send(format!("publish:news={number} ok\n"));
            publisher.expect("ok\n");
            net.settle();
        }
        let all = readers.iter().filter(|reader| reader.ending().is_none());
        all.for_each(|reader| reader.expect("5\n6\n7\n8\n"));
        assert_eq!(publisher.ending(), None::<Ending>);
    });
}

#[test]
fn one_that_frames_by_itself_misses_what_other_shards_have_framed() {
    Simulation::new(boards(plain())).shards(2).seeds(0..40).faults(|_| Faults::none()).run(|net| {
        let readers: Vec<_> = (0..40).map(|_| net.connect()).collect();
        for reader in &readers {
            reader.send("newest:news shout ok\n");
            reader.expect("OK\n");
        }
        let publisher = net.connect();
        publisher.send("publish:news=hello ok\n");
        publisher.expect("ok\n");
        net.settle();
        let mut got = [0, 0];
        for reader in &readers {
            reader.send("dropped\n");
            let said = reader.receive_until("DROPPED\n");
            match &*said {
                b"HELLO\n0 DROPPED\n" => got[0] += 1,
                b"1 DROPPED\n" => got[1] += 1,
                said => assert_eq!(said, b"", "what is this?"),
            }
        }
        assert!(got.iter().all(|&count| count > 8), "{got:?}");
    });
}
