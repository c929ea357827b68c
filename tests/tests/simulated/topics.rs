//! What is published reaches those that have subscribed: whole, in order, once, and within bounds.

use std::{cell::RefCell, panic::resume_unwind, rc::Rc};

use nonforker::{
    CloseReason, Conn, Handler, Limits, Outcome, Overflow, Parts, Server, Ticket,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError, Lines},
    sim::{Client, Ending, Faults, Net, Simulation},
};

const ADDRESS: &str = "127.0.0.1:1685";

/// Lines, in capitals once that is asked for. A line `mute` is not framed, and `bomb` panics.
#[derive(Clone)]
pub(crate) struct Voice {
    lines: Lines,
    shouts: bool,
}

impl Codec for Voice {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        self.lines.decode(input)
    }

    fn shares(&self) -> bool {
        !self.shouts
    }
}

impl Encode<&str> for Voice {
    fn encode(&mut self, reply: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match reply {
            "bomb" if self.shouts => resume_unwind(Box::new("no noise")),
            "mute" => return Err(EncodeError::Unframeable { what: "nothing" }),
            _ if self.shouts => out.extend(reply.to_uppercase().into_bytes()),
            _ => out.extend(reply.as_bytes()),
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Does what the words of a line say.
#[derive(Clone, Default)]
pub(crate) struct Board {
    reasons: Rc<RefCell<Vec<String>>>,
    pub(crate) ticket: Rc<RefCell<Option<Ticket<Self>>>>,
    pub(crate) relieved: Rc<RefCell<Vec<u64>>>,
}

impl Board {
    fn word(&self, conn: &mut Conn<'_, Self>, word: &str) -> Outcome {
        let (verb, what) = word.split_once(':').unwrap_or((word, ""));
        match verb {
            "close" | "oldest" | "newest" => conn.subscribe(what, policy(verb))?,
            "leave" => {
                let had = conn.unsubscribe(what);
                conn.send(if had { "left" } else { "had not" });
            }
            "many" => {
                for topic in 0..what.parse()? {
                    conn.subscribe(format!("{topic}"), Overflow::Close)?;
                }
                conn.send("subscribed");
            }
            "publish" => {
                let (topic, text) = what.split_once('=').ok_or("no text")?;
                conn.publish(topic, text)?;
            }
            "parts" => {
                let Parts { mut output, mut others, .. } = conn.parts();
                others.publish(what, "from parts")?;
                output.send("to parts");
            }
            "elsewhere" => {
                let queued = conn.service_named::<Self>("two")?.publish(what, "from one")?;
                conn.send(&*format!("{queued} there"));
            }
            "count" => {
                let count = conn.others().subscribers(what);
                conn.send(&*format!("{count} of {what}"));
            }
            "dropped" => {
                let dropped = conn.dropped();
                conn.send(&*format!("{dropped} dropped"));
            }
            "shout" => conn.codec().shouts = true,
            "defer" => *self.ticket.borrow_mut() = Some(conn.defer()),
            "panic" => resume_unwind(Box::new("no noise")),
            "bye" => conn.close(),
            _ => conn.send(word),
        }
        Ok(())
    }
}

fn policy(word: &str) -> Overflow {
    match word {
        "oldest" => Overflow::DropOldest,
        "newest" => Overflow::DropNewest,
        _ => Overflow::Close,
    }
}

impl Handler for Board {
    type Codec = Voice;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        std::str::from_utf8(line)?.split(' ').try_for_each(|word| self.word(conn, word))
    }

    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if conn.dropped() > 0 {
            self.relieved.borrow_mut().push(conn.dropped());
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let left = conn.others().subscribers("news");
        assert_eq!(conn.subscribe("news", Overflow::Close), Ok(()), "of no effect");
        assert_eq!(conn.others().subscribers("news"), left);
        self.reasons.borrow_mut().push(format!("{reason}, {left} left"));
    }
}

thread_local! {
    static BOARD: RefCell<Board> = RefCell::default();
}

/// The handler of the server that this thread has made last.
pub(crate) fn board() -> Board {
    BOARD.with_borrow(Clone::clone)
}

pub(crate) fn voice() -> Voice {
    Voice { lines: Lines::with_max(1 << 20), shouts: false }
}

pub(crate) fn server() -> Server {
    let board = Board::default();
    BOARD.replace(board.clone());
    Server::new()
        .limits(Limits::new().answer_timeout(None).write_timeout(None))
        .serve_with(ADDRESS, voice(), board)
        .name("one")
        .service(voice(), Board::default())
        .name("two")
}

pub(crate) fn quiet() -> Simulation {
    Simulation::new(server).faults(|_| Faults::none()).seeds(0..20)
}

/// A client that says this, when all of it is handled.
pub(crate) fn says(net: &Net, line: &str) -> Client {
    let client = net.connect();
    client.set_window(1 << 20);
    client.send(line);
    client.send(" ready\n");
    client.receive_until("ready\n");
    client
}

/// Has a client publish a line that begins with a number and is so long with its end.
pub(crate) fn publish(publisher: &Client, number: usize, length: usize) {
    publisher.send(format!("publish:news={number:-<width$}\n", width = length - 1));
}

/// The numbers of the lines of this length that a client got.
pub(crate) fn numbers(received: &[u8], length: usize) -> Vec<usize> {
    let text = std::str::from_utf8(received).expect("it is text");
    let lines = text.split_terminator('\n');
    let numbers = lines.map(|line| {
        assert_eq!(line.len(), length - 1, "a line is torn");
        line.trim_end_matches('-').parse().expect("it begins with a number")
    });
    numbers.collect()
}

#[test]
fn a_message_reaches_all_that_have_subscribed_between_what_comes_before_and_after() {
    quiet().faults(Faults::lossless).seeds(0..100).run(|net| {
        let (one, two) = (says(net, "close:news"), says(net, "oldest:news newest:weather"));
        let (three, none) = (says(net, "newest:news leave:news"), says(net, "leave:news"));
        one.send("before publish:news=hello publish:weather=rain after\n");
        one.expect("before\nhello\nafter\n");
        two.expect("hello\nrain\n");
        two.send("count:news leave:news count:news leave:news\n");
        two.expect("2 of news\nleft\n1 of news\nhad not\n");
        one.send("publish:news=alone publish:unknown=nothing\n");
        one.expect("alone\n");
        for client in [&one, &two, &three, &none] {
            client.send("bye\n");
            client.expect_end();
        }
    });
}

#[test]
fn others_of_parts_are_without_the_publisher_and_other_services_have_topics_of_their_own() {
    quiet().run(|net| {
        let (one, two) = (says(net, "close:news"), says(net, "close:news"));
        one.send("parts:news elsewhere:news\n");
        one.expect("to parts\n0 there\n");
        two.send("x\n");
        two.expect("from parts\nx\n");
    });
}

#[test]
fn a_client_that_does_not_read_is_closed_or_misses_whole_messages() {
    // Short messages are copied, long ones are shared.
    for length in [50, 5000] {
        let limits = Limits::new().high_watermark(20_000).low_watermark(10_000).output_cap(20_000);
        let simulation =
            Simulation::new(move || server().limits(limits.clone().write_timeout(None)));
        simulation.faults(|_| Faults::none()).seeds(0..50).run(|net| {
            let deaf = ["close:news", "oldest:news", "newest:news"].map(|how| says(net, how));
            for client in &deaf {
                client.set_window(100 + net.rng().between(0, 9000));
                client.stall();
            }
            let publisher = says(net, "close:news");
            let last = 200_000 / length;
            for number in 0..=last {
                publish(&publisher, number, length);
                if net.rng().chance(100) {
                    net.settle();
                }
            }
            net.settle();
            let heard = numbers(&publisher.received(), length);
            assert!(heard.into_iter().eq(0..=last), "a client that reads gets all");
            assert_eq!(
                board().reasons.take(),
                ["more was pushed at the peer than it took, 3 left"]
            );
            assert!(board().relieved.take().is_empty());
            let [closed, oldest, newest] = &deaf;
            assert_eq!(closed.receive_to_end().1, Some(Ending::Reset));
            for (client, drops_oldest) in [(oldest, true), (newest, false)] {
                client.read_all();
                net.settle();
                let told = board().relieved.take();
                let numbers = numbers(&client.received(), length);
                assert!(numbers.is_sorted_by(|one, next| one < next), "in order, each once");
                assert_eq!(numbers.contains(&last), drops_oldest);
                assert!(numbers.contains(&0), "what is in flight is not dropped");
                let missing = last + 1 - numbers.len();
                assert!(missing * length > 100_000, "the cap holds");
                assert!(numbers.len() * length > 35_000, "and no more than that is missing");
                client.send("dropped\n");
                client.expect(format!("{missing} dropped\n"));
                assert_eq!(told, [missing as u64], "the handler was told");
            }
            publish(&publisher, 7, length);
            for client in [oldest, newest] {
                assert_eq!(client.receive_until("\n").len(), length, "it is still subscribed");
            }
        });
    }
}

#[test]
fn what_may_not_be_dropped_stays_in_its_place() {
    let limits = Limits::new().high_watermark(6000).low_watermark(0).output_cap(0);
    let simulation = Simulation::new(move || server().limits(limits.clone().write_timeout(None)));
    simulation.faults(|_| Faults::none()).seeds(0..50).run(|net| {
        // What is said to the client lies between messages of several topics, long and short.
        let client = says(net, "oldest:news newest:weather");
        client.set_window(10);
        client.stall();
        let publisher = says(net, "ready");
        let mut pushes = Vec::new();
        for number in 0..200 {
            let length = if net.rng().chance(500) { 100 } else { 1500 };
            publish(&publisher, number, length);
            if net.rng().chance(100) {
                publisher.send(format!("publish:weather=w{number}\n"));
                pushes.push(format!("w{number}"));
            }
        }
        net.settle();
        client.read_all();
        net.settle();
        let received = String::from_utf8(client.received()).expect("it is text");
        let is_whole = |line: &str| match line.trim_end_matches('-').parse::<usize>() {
            Ok(_) => [99, 1499].contains(&line.len()),
            Err(_) => pushes.iter().any(|push| push == line),
        };
        assert!(received.lines().all(is_whole), "{received}");
        let order = |line: &str| line.trim_matches(['w', '-']).parse::<usize>().ok();
        let numbers: Vec<_> = received.lines().map(order).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert!(numbers.contains(&Some(199)));
    });
}

#[test]
fn a_message_is_in_memory_once_for_two_thousand_that_do_not_read() {
    const SUBSCRIBERS: usize = 2000;
    const LENGTH: usize = 16 << 10;
    quiet().seeds(0..1).run(|net| {
        let mut clients = Vec::new();
        while clients.len() < SUBSCRIBERS {
            let client = net.connect();
            client.set_window(1000);
            client.send("close:news\n");
            client.stall();
            clients.push(client);
            // So many fit the backlog.
            if clients.len().is_multiple_of(500) {
                net.settle();
            }
        }
        let publisher = net.connect();
        publisher.set_window(1 << 20);
        publisher.send("count:news\n");
        publisher.expect(format!("{SUBSCRIBERS} of news\n"));
        let mut before = 0;
        for count in 1..=5 {
            publish(&publisher, count, LENGTH);
            net.settle();
            let taken = usize::try_from(net.stats().buffered_bytes).expect("it fits");
            let each = (taken - before - LENGTH) / SUBSCRIBERS;
            assert!(each < 130, "{each} bytes for each, for message {count}");
            before = taken;
        }
        clients.iter().for_each(Client::read_all);
        net.settle();
        assert_eq!(net.stats().buffered_bytes, 0);
        for client in &clients {
            let received = client.received();
            assert!(numbers(&received, LENGTH).into_iter().eq(1..=5));
        }
    });
}

#[test]
fn those_that_keep_messages_in_memory_go_when_it_is_short() {
    let limits = Limits::new()
        .memory_budget(Some(2 << 20))
        .high_watermark(4 << 20)
        .write_timeout(None)
        .unused_timeout(None);
    let simulation = Simulation::new(move || server().limits(limits.clone()));
    simulation.faults(|_| Faults::none()).seeds(0..5).run(|net| {
        let deaf: Vec<Client> = (0..20).map(|_| says(net, "close:news")).collect();
        for client in &deaf {
            client.set_window(1000);
            client.stall();
        }
        let (publisher, reader) = (says(net, "x"), says(net, "close:news"));
        for number in 0..100 {
            publish(&publisher, number, 50_000);
            net.settle();
            assert!(net.stats().buffered_bytes < (2 << 20) + 200_000);
        }
        let heard = numbers(&reader.received(), 50_000);
        assert!(heard.into_iter().eq(0..100), "a client that reads is not closed");
        let reasons = board().reasons.take();
        assert!(reasons.len() == 20 && reasons[0].starts_with("evicted"), "{reasons:?}");
    });
}

#[test]
fn a_connection_that_closes_has_left_its_topics() {
    quiet().faults(Faults::lossless).run(|net| {
        let watcher = says(net, "close:news close:other");
        for end in ["bye", "half", "reset", "panic", "fail"] {
            let client = says(net, "oldest:news close:other newest:third");
            match end {
                "half" => client.half_close(),
                "reset" => client.reset(),
                "fail" => client.send("publish:without\n"),
                _ => client.send(format!("{end}\n")),
            }
            net.settle();
            assert_eq!(board().reasons.take().len(), 1, "{end}");
            watcher.send("count:news count:other count:third publish:other=x\n");
            watcher.expect("1 of news\n1 of other\n0 of third\nx\n");
        }
    });
}

#[test]
fn too_much_is_refused_and_changes_nothing() {
    quiet().run(|net| {
        let client = says(net, "many:1000");
        client.expect("");
        client.send("oldest:7 count:7\n");
        client.expect("1 of 7\n");
        client.send("many:1001\n");
        assert_eq!(client.receive_to_end().1, Some(Ending::Finished));
        let long = "x".repeat(256);
        let client = says(net, &format!("close:{long} close:"));
        client.send(format!("count:{long} count: close:{long}x\n"));
        let (received, _) = client.receive_to_end();
        assert_eq!(received, format!("1 of {long}\n1 of \n").into_bytes());
        let reasons = board().reasons.take();
        assert!(reasons[0].contains("a connection can subscribe to 1000"), "{reasons:?}");
        assert!(reasons[1].contains("topic too long: 257 bytes, at most 256"), "{reasons:?}");
    });
}

#[test]
fn a_codec_in_a_mode_of_its_own_frames_for_itself() {
    quiet().run(|net| {
        let (loud, soft) = (says(net, "close:news"), says(net, "close:news"));
        loud.send("shout\n");
        for length in [10, 5000] {
            publish(&soft, 3, length);
            let line = format!("{:-<1$}\n", "3", length - 1);
            soft.expect(&line);
            loud.expect(&line);
        }
        soft.send("publish:news=hello\n");
        loud.expect("HELLO\n");
        soft.expect("hello\n");
        // It cannot be framed: the publisher is told, and nobody else is harmed.
        let publisher = says(net, "close:news");
        publisher.send("publish:news=mute\n");
        assert_eq!(publisher.receive_to_end(), (Vec::new(), Some(Ending::Finished)));
        // The codec of one that frames for itself panics: that ends the publisher.
        let publisher = says(net, "close:news");
        publisher.send("publish:news=bomb\n");
        let _ = publisher.receive_to_end();
        soft.send("count:news publish:news=again\n");
        assert!(soft.receive_until("again\n").ends_with(b"2 of news\nagain\n"));
        assert_eq!(loud.receive_until("AGAIN\n"), b"AGAIN\n");
    });
}
