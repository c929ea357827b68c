//! Messages are published to clients that read fast, slowly, or not for a while.

use std::{fmt::Write, time::Duration};

use nonforker::{
    Conn, Handler, Limits, Outcome, Overflow, Server,
    codec::Lines,
    sim::{Client, Ending, Net, Rng},
};

use super::ADDRESS;

const TOPICS: [&str; 2] = ["a", "b"];

/// Subscribes to what a line says, and checks that `relieved` is called after messages were dropped.
pub(super) struct Board;

impl Handler for Board {
    type Codec = Lines;
    /// How many messages were dropped, as it was last told.
    type Session = u64;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            [b'c', topic @ ..] => conn.subscribe(topic, Overflow::Close)?,
            [b'o', topic @ ..] => conn.subscribe(topic, Overflow::DropOldest)?,
            [b'n', topic @ ..] => conn.subscribe(topic, Overflow::DropNewest)?,
            _ => {
                let is_told = *conn.session() == conn.dropped();
                let dropped = conn.dropped().to_string();
                conn.send(if is_told { &dropped } else { "it was not told" });
                return Ok(());
            }
        }
        conn.send("subscribed");
        Ok(())
    }

    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        *conn.session_mut() = conn.dropped();
        Ok(())
    }
}

pub(super) fn board(rng: &Rng) -> Server {
    let high = rng.magnitude(1 << 15);
    let limits = Limits::new()
        .high_watermark(high)
        .low_watermark(rng.between(0, high))
        .output_cap(rng.magnitude(1 << 15))
        .write_timeout(None)
        .unused_timeout(None);
    Server::new().limits(limits).serve_with(ADDRESS, Lines::new(), Board)
}

/// A client, and for each topic that it has subscribed to, how.
struct Subscriber {
    client: Client,
    topics: Vec<(usize, u8)>,
}

fn subscriber(net: &Net) -> Subscriber {
    let (rng, client) = (net.rng(), net.connect());
    client.set_window(rng.between(10, 100_000));
    let mut topics = Vec::new();
    for (index, topic) in TOPICS.iter().enumerate() {
        if index == 0 || rng.chance(500) {
            let how = b"con"[rng.between(0, 2)];
            client.send([&[how], topic.as_bytes(), b"\n"].concat());
            client.expect("subscribed\n");
            topics.push((index, how));
        }
    }
    Subscriber { client, topics }
}

pub(super) fn publish(net: &Net) {
    let rng = net.rng();
    let subscribers: Vec<Subscriber> = (0..rng.between(1, 6)).map(|_| subscriber(net)).collect();
    let mut published: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..rng.between(1, 150) {
        let index = rng.between(0, 1);
        let mut text = format!("{index} {} ", published[index].len());
        let filler = rng.magnitude(if rng.chance(200) { 1 << 13 } else { 1 << 6 });
        // Writing to a string does not fail.
        let _ = write!(text, "{:x<filler$}", "");
        published[index].push(text.clone());
        let posted = net.post::<Board>(move |_, all| {
            assert!(all.publish(TOPICS[index], text).is_ok());
        });
        assert_eq!(posted, Ok(()));
        let client = &subscribers[rng.between(0, subscribers.len() - 1)].client;
        match rng.between(0, 9) {
            0 => client.stall(),
            1 => client.read_all(),
            2 => client.read_slowly(1 + rng.magnitude(5000), Duration::from_millis(1)),
            3 => net.wait(Duration::from_micros(rng.below(100_000))),
            4 => net.settle(),
            _ => {}
        }
    }
    subscribers.iter().for_each(|subscriber| subscriber.client.read_all());
    net.settle();
    for Subscriber { client, topics } in &subscribers {
        client.send("how many were dropped?\n");
        client.half_close();
        let (received, ending) = client.receive_to_end();
        let received = String::from_utf8_lossy(&received).into_owned();
        judge(&received, ending, topics, &published);
    }
}

/// What a client has received is of its topics, whole, in order, and nothing is missing but what was
/// dropped.
fn judge(
    received: &str,
    ending: Option<Ending>,
    topics: &[(usize, u8)],
    published: &[Vec<String>; 2],
) {
    let (mut next, mut heard, mut dropped) = ([0; 2], 0, None);
    // What a reset cuts off is no line.
    for line in received.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let numbers =
            (words.next().map(str::parse::<usize>), words.next().map(str::parse::<usize>));
        let (Some(Ok(index)), Some(Ok(number))) = numbers else {
            dropped = line.parse().ok();
            continue;
        };
        let how = topics.iter().find(|(topic, _)| *topic == index).map(|(_, how)| *how);
        assert_eq!(published[index].get(number).map(String::as_str), Some(line), "it is whole");
        assert!(number >= next[index], "in order, and once");
        assert!(how.is_some(), "only a subscriber gets it");
        assert!(how != Some(b'c') || number == next[index], "one is missing");
        next[index] = number + 1;
        heard += 1;
    }
    if ending == Some(Ending::Finished) {
        let all: usize = topics.iter().map(|(topic, _)| published[*topic].len()).sum();
        assert_eq!(dropped, Some(all - heard), "of {all}, {heard} were heard");
    } else {
        assert!(topics.iter().any(|(_, how)| *how == b'c'), "it ended: {ending:?}");
    }
}
