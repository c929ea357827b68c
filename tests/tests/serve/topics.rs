//! What is published over real sockets reaches all that have subscribed: whole and in order, and the
//! latest to those that are slow.

use nonforker::{Limits, Outcome, Overflow, Server, codec::Lines};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver},
};

/// A line `+topic` subscribes, `=text` publishes to `news` and is answered with for how many.
fn board(server: Server) -> Server {
    let limits = Limits::new().output_cap(1 << 20);
    server.limits(limits).serve(ANY, Lines::with_max(1 << 20), |conn, line| -> Outcome {
        match line {
            b"+close" => conn.subscribe("news", Overflow::Close)?,
            b"+oldest" => conn.subscribe("news", Overflow::DropOldest)?,
            b"+newest" => conn.subscribe("news", Overflow::DropNewest)?,
            b"dropped" => {}
            [b'=', text @ ..] => {
                let count = conn.publish("news", text)?;
                conn.send(format!("for {count}"));
                return Ok(());
            }
            _ => return Err("what?".into()),
        }
        let dropped = conn.dropped().to_string();
        conn.send(dropped);
        Ok(())
    })
}

fn text(number: usize) -> String {
    // Some are copied, some are shared.
    format!("{number} {}", "x".repeat(if number.is_multiple_of(3) { 10 } else { 30_000 }))
}

fn publish(publisher: &mut Client, number: usize, count: usize) {
    publisher.send(format!("={}\n", text(number)));
    assert_eq!(publisher.line(), format!("for {count}"));
}

#[test]
fn all_that_have_subscribed_get_all_messages_in_order() {
    on_every_driver(|case| {
        let server = case.start(board);
        let mut readers: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for reader in &mut readers {
            assert_eq!(reader.ask("+close"), "0");
        }
        let mut publisher = server.connect();
        for number in 0..100 {
            publish(&mut publisher, number, 20);
            for reader in &mut readers {
                assert!(reader.line() == text(number), "message {number}");
            }
        }
        readers[0].send("=own\n");
        assert_eq!((readers[0].line(), readers[0].line()), ("own".into(), "for 20".into()));
        drop(readers);
        server.holds(1);
        publish(&mut publisher, 0, 0);
        server.settles();
        assert_eq!(server.stats().buffered_bytes, 0);
    });
}

#[test]
fn who_does_not_read_is_closed_or_misses_whole_messages() {
    on_every_driver(|case| {
        const LAST: usize = 2999;
        let server = case.start(board);
        let [mut closed, mut oldest, mut newest] = ["+close", "+oldest", "+newest"].map(|how| {
            let mut client = server.connect();
            assert_eq!(client.ask(how), "0");
            client
        });
        let mut publisher = server.connect();
        for number in 0..=LAST {
            publisher.send(format!("={}\n", text(number)));
            assert!(publisher.line().starts_with("for "));
        }
        closed.is_reset();
        let held = server.stats().buffered_bytes;
        assert!(held < 6 << 20, "{held} bytes are held for two");
        for client in [&mut oldest, &mut newest] {
            client.send("dropped\n");
            let (mut numbers, mut dropped) = (Vec::new(), None);
            while dropped.is_none() {
                let line = client.line();
                match line.split_once(' ') {
                    Some((number, _)) => {
                        let number: usize = number.parse().expect("it begins with a number");
                        assert!(line == text(number), "{number} is torn");
                        numbers.push(number);
                    }
                    None => dropped = line.parse().ok(),
                }
            }
            assert!(numbers.is_sorted_by(|one, next| one < next), "in order, each once");
            assert_eq!(dropped, Some(LAST + 1 - numbers.len()), "what is missing is counted");
            assert!(dropped > Some(0));
        }
    });
}
