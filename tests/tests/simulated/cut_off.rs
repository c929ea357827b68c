//! Who is cut off when a server ends: whoever loses a request or a reply by it.

use std::{io::Write, time::Duration};

use nonforker::{
    Server,
    codec::Lines,
    sim::{Faults, Net, Simulation},
};

/// `flood` is answered with more than the network takes, `job` pauses for ever.
fn jobs() -> Server {
    Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line: &[u8]| match line {
        b"flood" => Ok(conn.write_all(&vec![b'x'; 4 << 20])?),
        b"job" => {
            conn.pause();
            Ok(())
        }
        line => Ok(conn.write_all(line)?),
    })
}

#[test]
fn a_client_that_loses_a_request_or_a_reply_at_the_end_is_cut_off_and_nobody_else() {
    let ends: [fn(&Net); 3] = [
        Net::stop,
        |net| {
            net.drain();
            net.wait(Duration::from_secs(2));
            net.stop();
        },
        // Until the deadline.
        Net::drain,
    ];
    for (what, is_over, cut_off) in [
        ("", false, 0),
        ("half a requ", false, 0),
        ("answered\n", false, 0),
        ("answered\n", true, 0),
        ("flood\n", false, 1),
        ("flood\n", true, 1),
        ("flood\nmore\n", false, 1),
        ("job\n", false, 0),
        ("job\nhalf a requ", false, 0),
        ("job\nmore\n", false, 1),
        ("job\nmore\n", true, 1),
        ("job\nhalf a requ", true, 0),
    ] {
        for (way, end) in ends.into_iter().enumerate() {
            let simulation = Simulation::new(jobs).seeds(0..3);
            simulation.faults(|_| Faults::none()).run(|net| {
                assert_eq!(cut_off_of(net, what, is_over, end), cut_off, "{what:?}, way {way}");
            });
        }
    }
}

/// How many a server cuts off of two clients: of one that does not read and asks for `what`, and
/// of one that is idle.
fn cut_off_of(net: &Net, what: &str, is_over: bool, end: impl Fn(&Net)) -> usize {
    let (client, _idle) = (net.connect(), net.connect());
    client.stall();
    client.send(what);
    if is_over {
        client.half_close();
    }
    net.wait(Duration::from_secs(1));
    assert_eq!(net.cut_off(), 0, "before the end");
    end(net);
    net.wait(Duration::from_secs(15));
    assert!(net.has_ended());
    net.cut_off()
}
