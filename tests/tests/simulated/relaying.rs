//! Relays: two connections whose bytes go to each other.

use std::time::Duration;

use nonforker::{
    Conn, Handler, Limits, Outcome, ProxyHeader, Relay, Server,
    codec::{Lines, Raw},
    sim::{Client, Ending, Faults, Listener, Net, Simulation},
};

pub(crate) const FROM: &str = "127.0.0.1:1";
pub(crate) const TO: &str = "10.9.9.9:7";

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn relay() -> Server {
    Server::new().relay(FROM, TO)
}

/// A client and the other end of its connection to the target.
pub(crate) fn joined(net: &Net, listener: &Listener) -> (Client, Client) {
    let client = net.connect();
    (client, listener.accept())
}

pub(crate) fn no_faults(simulation: Simulation) -> Simulation {
    simulation.faults(|_| Faults::none())
}

/// Bytes that show where one is missing.
pub(crate) fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| (at.wrapping_mul(31) / 7 + seed).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_go_both_ways_whatever_they_are() {
    Simulation::new(relay).seeds(0..300).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        for count in [1, 64, 5000, 70_000] {
            let (up, down) = (bytes(count, 1), bytes(count, 2));
            client.send(&up);
            server.send(&down);
            server.expect(&up);
            client.expect(&down);
        }
    });
}

#[test]
fn peers_that_both_send_before_they_receive_do_not_hold_each_other_up() {
    let server = || Server::new().limits(Limits::new().write_timeout(None)).relay(FROM, TO);
    Simulation::new(server).seeds(0..40).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        let (up, down) = (bytes(500_000, 1), bytes(400_000, 2));
        for end in [&client, &server] {
            end.set_window(20_000);
            end.stall();
        }
        client.send(&up);
        server.send(&down);
        net.wait(secs(5));
        // Each takes all of what it gets, while what it sends is still on its way.
        server.read_all();
        server.expect(&up);
        client.read_all();
        client.expect(&down);
    });
}

#[test]
fn a_side_that_finishes_is_passed_on_and_the_other_goes_on() {
    for server_first in [false, true] {
        Simulation::new(relay).seeds(0..200).run(|net| {
            let (client, server) = joined(net, &net.listen(TO));
            let (first, second) =
                if server_first { (&server, &client) } else { (&client, &server) };
            first.send("the last");
            first.half_close();
            let (got, ending) = second.receive_to_end();
            assert_eq!((&got[..], ending), (&b"the last"[..], Some(Ending::Finished)));
            net.wait(secs(20));
            for _ in 0..3 {
                second.send("more");
                first.expect("more");
            }
            second.half_close();
            first.expect_end();
            net.settle();
            assert_eq!(net.stats().closed, 2, "both have closed");
        });
    }
}

#[test]
fn a_reset_is_passed_on_as_one() {
    for by_server in [false, true] {
        no_faults(Simulation::new(relay)).run(|net| {
            let (client, server) = joined(net, &net.listen(TO));
            client.send("x");
            server.expect("x");
            let (one, other) = if by_server { (&server, &client) } else { (&client, &server) };
            one.reset();
            assert_eq!(other.receive_to_end().1, Some(Ending::Reset), "by the server: {by_server}");
        });
    }
}

#[test]
fn a_peer_that_does_not_read_holds_up_only_what_goes_to_it() {
    let server = || Server::new().limits(Limits::new().write_timeout(None)).relay(FROM, TO);
    Simulation::new(server).seeds(0..40).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        server.set_window(100_000);
        server.stall();
        let up = bytes(1_000_000, 1);
        client.send(&up);
        net.wait(secs(3));
        let held = net.stats().buffered_bytes;
        assert!(held <= (64 + 3 * 64) << 10, "{held} bytes are held");
        server.send("meanwhile");
        client.expect("meanwhile");
        server.read_all();
        server.expect(&up);
    });
}

#[test]
fn a_target_that_is_not_there_ends_the_client_at_once() {
    no_faults(Simulation::new(relay)).run(|net| {
        let client = net.connect();
        client.send("hello");
        let began = net.now();
        client.expect_end();
        assert!(net.now() - began < secs(1), "{:?}", net.now() - began);
    });
}

#[test]
fn a_target_that_does_not_answer_ends_the_client_in_time() {
    let server = || Server::new().limits(Limits::new().connect_timeout(secs(3))).relay(FROM, TO);
    no_faults(Simulation::new(server)).run(|net| {
        net.listen(TO).keep_silent();
        let client = net.connect();
        client.send("hello");
        let began = net.now();
        client.expect_end();
        let took = net.now() - began;
        assert!(took >= secs(3) && took < secs(4), "{took:?}");
    });
}

#[test]
fn a_client_that_leaves_while_we_connect_is_forgotten() {
    no_faults(Simulation::new(relay)).run(|net| {
        let listener = net.listen(TO);
        listener.keep_silent();
        let client = net.connect();
        client.send("hello");
        net.wait(secs(1));
        client.reset();
        net.wait(Duration::from_millis(1));
        assert_eq!(net.stats().closed, 2, "{:?}", net.stats());
        listener.accept_all();
        net.wait(secs(1));
        assert!(listener.accepted().is_none(), "the attempt went on");
    });
}

#[test]
fn what_a_client_sends_while_we_connect_and_its_end_are_passed_on() {
    Simulation::new(relay).seeds(0..100).run(|net| {
        let listener = net.listen(TO);
        listener.answer_after(secs(2));
        let client = net.connect();
        client.send("early");
        client.half_close();
        let server = listener.accept();
        let (got, ending) = server.receive_to_end();
        assert_eq!((&got[..], ending), (&b"early"[..], Some(Ending::Finished)));
        server.send("answer");
        server.half_close();
        let (got, ending) = client.receive_to_end();
        assert_eq!((&got[..], ending), (&b"answer"[..], Some(Ending::Finished)));
    });
}

#[test]
fn a_drain_passes_on_what_was_sent_and_waits_for_the_answer() {
    Simulation::new(relay).seeds(0..300).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        for end in [&client, &server] {
            end.set_window(50_000);
        }
        let up = bytes(20_000, 1);
        client.send(&up);
        net.wait(Duration::from_millis(500));
        net.drain();
        let (got, ending) = server.receive_to_end();
        assert!(got == up && ending == Some(Ending::Finished), "{} bytes, {ending:?}", got.len());
        net.wait(secs(1));
        let down = bytes(30_000, 2);
        server.send(&down);
        server.half_close();
        let (got, ending) = client.receive_to_end();
        assert!(got == down && ending == Some(Ending::Finished), "{} bytes, {ending:?}", got.len());
        client.half_close();
        net.wait(secs(10));
        assert!(net.has_ended());
        assert_eq!(net.cut_off(), 0);
    });
}

#[test]
fn a_relay_that_is_open_when_a_drain_is_over_was_cut_off() {
    no_faults(Simulation::new(relay)).run(|net| {
        let (client, server) = joined(net, &net.listen(TO));
        client.send("x");
        server.expect("x");
        net.drain();
        net.wait(secs(11));
        assert!(net.has_ended());
        assert_eq!(net.cut_off(), 1);
        assert_eq!(client.receive_to_end().1, Some(Ending::Reset));
    });
}

/// It reads a line, and relays what follows.
struct Tunnel;

impl Handler for Tunnel {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        if line == b"tunnel" {
            conn.send("ok");
            let behind = conn.connect::<Behind>(TO, ())?;
            conn.relay_to(behind)?;
            assert!(conn.relay_to(behind).is_err(), "it is relayed already");
        } else {
            conn.send(line);
        }
        Ok(())
    }
}

struct Behind;

impl Handler for Behind {
    type Codec = Raw;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send(&b"greeting "[..]);
        Ok(())
    }

    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: &[u8]) -> Outcome {
        Err("no frame comes of a relay".into())
    }
}

#[test]
fn what_follows_the_frame_that_begins_a_relay_is_no_frame() {
    let server =
        || Server::new().serve_with(FROM, Lines::new(), Tunnel).service(Raw::new(), Behind);
    Simulation::new(server).seeds(0..300).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect();
        client.send("echo\ntunnel\nnot a line\nand not");
        client.expect("echo\nok\n");
        let server = listener.accept();
        server.expect("greeting not a line\nand not");
        server.send("anything");
        client.expect("anything");
    });
}

#[test]
fn the_target_hears_who_the_client_is_before_anything_else() {
    let server = || {
        let relay = Relay::to(TO).expect("a target").send_proxy(ProxyHeader::V1);
        Server::new().relay(FROM, relay)
    };
    Simulation::new(server).seeds(0..100).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect_from([192, 0, 2, 1]);
        client.send("hello");
        let server = listener.accept();
        let header = String::from_utf8(server.receive_until("\r\n")).expect("text");
        assert!(header.starts_with("PROXY TCP4 192.0.2.1 127.0.0.1 "), "{header}");
        assert!(header.ends_with(" 1\r\n"), "{header}");
        server.expect("hello");
    });
}

/// Whatever breaks, each side gets a beginning of what the other sent, and all of it before an end.
#[test]
fn nothing_is_invented_doubled_or_left_out() {
    Simulation::new(relay).seeds(0..1500).faults(Faults::swarm).run(|net| {
        let listener = net.listen(TO);
        let client = net.connect();
        let (up, down) = (bytes(30_000, 1), bytes(30_000, 2));
        client.send(&up);
        client.half_close();
        net.wait(secs(12));
        let Some(server) = listener.accepted() else { return };
        server.send(&down);
        server.half_close();
        for (end, sent) in [(&server, &up), (&client, &down)] {
            let (got, ending) = end.receive_to_end();
            assert!(sent.starts_with(&got), "{} bytes", got.len());
            if ending == Some(Ending::Finished) {
                // A relay that ends in order for another reason than its peers has passed on less.
                assert!(got.len() == sent.len() || net.stats().closed > 0, "{} bytes", got.len());
            }
        }
    });
}

#[test]
fn operations_that_fail_one_after_the_other_leave_no_relay_behind() {
    let operations = Simulation::new(relay).torture(|net| {
        let listener = net.listen(TO);
        let client = net.connect();
        client.send("hello");
        client.half_close();
        net.wait(secs(1));
        if let Some(server) = listener.accepted() {
            server.send("answer");
            server.half_close();
        }
        let (said, _) = client.receive_to_end();
        assert!(b"answer".starts_with(&said), "{said:?}");
    });
    assert!(operations >= 8, "{operations}");
}

#[test]
fn a_client_waits_until_there_is_a_place_for_its_other_side_too() {
    let server = || Server::new().limits(Limits::new().max_connections(Some(5))).relay(FROM, TO);
    no_faults(Simulation::new(server).seeds(0..100)).run(|net| {
        let listener = net.listen(TO);
        let say_hello = |client: &Client, server: &Client| {
            client.send("hello");
            server.expect("hello");
        };
        let served = [(); 2].map(|()| joined(net, &listener));
        for (client, server) in &served {
            say_hello(client, server);
        }
        let waiting = [(); 2].map(|()| net.connect());
        net.wait(secs(5));
        let stats = net.stats();
        assert_eq!((stats.accepted, stats.outgoing), (2, 2), "each has both of its places");
        // The end of one client makes room for one that waits, and no client is closed for want of it.
        for ((old, server), new) in served.iter().zip(&waiting) {
            old.half_close();
            server.half_close();
            old.expect_end();
            say_hello(new, &listener.accept());
        }
    });
}
