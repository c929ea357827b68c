//! A pipelined protocol of requests and replies: each reply is for its request, in order.

use nonforker::{
    Conn, Handler, Outcome, Server,
    codec::Delimited,
    sim::{Ending, Simulation},
};

use crate::narrow;

/// Answers number `n` with `n` and how many requests this connection has made. Every seventh
/// request pauses the connection for a moment.
struct Pong;

impl Handler<Delimited> for Pong {
    type Session = u64;

    fn frame(&mut self, conn: &mut Conn<'_, Delimited, u64>, frame: &[u8]) -> Outcome {
        *conn.session_mut() += 1;
        let reply = format!("{} {}", std::str::from_utf8(frame)?, conn.session());
        conn.send(reply);
        if conn.session().is_multiple_of(7) {
            conn.pause();
            conn.set_timer(std::time::Duration::from_millis(3));
        }
        Ok(())
    }

    fn timer(&mut self, conn: &mut Conn<'_, Delimited, u64>) -> Outcome {
        conn.resume();
        Ok(())
    }
}

#[test]
fn every_request_gets_its_reply_in_order() {
    let server = |rng: &mut _| {
        let codec = Delimited::new("\r\n").expect("the delimiter is not empty");
        Server::new().limits(narrow(rng)).serve_with("127.0.0.1:1685", codec, Pong)
    };
    Simulation::varied(server).seeds(0..3000).run(|net| {
        let count = net.rng().between(1, 60);
        let numbers: Vec<u64> = (0..count).map(|_| net.rng().next()).collect();
        let requests = numbers.iter().map(|n| format!("{n}\r\n")).collect::<String>();
        let replies = numbers.iter().zip(1..).map(|(n, k)| format!("{n} {k}\r\n"));

        let client = net.connect();
        client.send(requests);
        client.half_close();
        let (received, ending) = client.receive_to_end();
        assert_eq!(String::from_utf8_lossy(&received), replies.collect::<String>());
        assert_eq!(ending, Some(Ending::Finished));
    });
}
