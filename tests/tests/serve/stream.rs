//! Requests are handled when complete, in order, exactly once, however their bytes arrive.

use std::time::Duration;

use nonforker::{
    Limits, Server,
    codec::{Lines, Raw},
};

use crate::{
    client::{hear, next},
    harness::{ANY, on_every_driver},
    probe::Probe,
};

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| conn.send(line))
}

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut client = server.connect();
        let request = b"a byte at a time\n";
        for (sent, byte) in request.iter().enumerate() {
            client.send([*byte]);
            server.has_received(sent + 1);
        }
        assert_eq!(client.line(), "a byte at a time");
        assert_eq!(server.stats().frames, 1);
    });
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let stream = b"alpha\n\nbe\0ta\r\n\xff\xfe\nthe last one is longer\n";
        let mut received = 0;
        for cut in 0..=stream.len() {
            let mut client = server.connect();
            client.send(&stream[..cut]);
            server.has_received(received + cut);
            client.send(&stream[cut..]);
            client.half_close();
            assert_eq!(client.rest(), stream, "cut at {cut}");
            received += stream.len();
        }
        assert_eq!(server.stats().frames, 5 * (stream.len() as u64 + 1));
    });
}

#[test]
fn requests_that_come_together_are_handled_in_order() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut client = server.connect();
        let stream: String = (0..2000).map(|number| format!("{number}\n")).collect();
        client.send(&stream);
        for number in 0..2000 {
            assert_eq!(client.line(), number.to_string());
        }
    });
}

#[test]
fn a_mebibyte_of_lines_comes_back_exactly() {
    on_every_driver(|case| {
        let server = case.start(echo);
        // Lengths that fall together with no buffer's: 0 to 996.
        let mut stream = Vec::new();
        let mut length = 1;
        while stream.len() < 1024 * 1024 {
            stream.extend((0..length).map(|at| b"abcdefghijk"[(at * 7 + length) % 11]));
            stream.push(b'\n');
            length = length * 31 % 997;
        }
        let mut client = server.connect();
        let echoed = client.exchange(&stream);
        assert_eq!(echoed.len(), stream.len());
        assert!(echoed == stream, "other bytes came back");
    });
}

#[test]
fn a_partial_request_waits() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut client = server.connect();
        let mut other = server.connect();
        client.send("half a ");
        server.has_received(7);
        client.hears_nothing_for(Duration::from_millis(50));
        assert_eq!(other.ask("meanwhile"), "meanwhile");
        assert_eq!(client.ask("request"), "half a request");
    });
}

#[test]
fn a_request_of_the_greatest_length_passes() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut client = server.connect();
        for _ in 0..3 {
            let line = "x".repeat(64 * 1024);
            assert_eq!(client.ask(&line), line);
        }
    });
}

#[test]
fn bytes_are_bytes() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let every: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').chain([b'\n']).collect();
        let stream = every.repeat(40);
        let mut client = server.connect();
        assert!(client.exchange(&stream) == stream, "other bytes came back");
    });
}

#[test]
fn a_client_that_half_closes_still_gets_megabytes_of_replies() {
    on_every_driver(|case| {
        const REPLY: usize = 4 * 1024 * 1024;
        // With a high mark it sees the end while all the replies are queued, else between them.
        for high in [64 * 1024, 64 * 1024 * 1024] {
            let (probe, told) = Probe::new();
            let server = case.start(move |server| {
                let limits = Limits::new().high_watermark(high);
                server.limits(limits).serve_with(ANY, Lines::new(), probe)
            });
            let mut client = server.connect();
            client.send(format!("big {REPLY}\nbig {REPLY}\nbig {REPLY}\nlast\n"));
            client.half_close();
            // Nothing is read until the first reply has long filled the kernel's buffers.
            server.settles();
            let all = client.rest();
            assert_eq!(all.len(), 3 * (REPLY + 1) + 5, "high watermark {high}");
            assert!(all.ends_with(b"x\nlast\n"), "ends with {:?}", &all[all.len() - 8..]);
            hear(&told, "closed 0: the peer has finished");
        }
    });
}

#[test]
fn an_unterminated_tail_is_no_request() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        let mut client = server.connect();
        client.send("whole\ntail");
        client.half_close();
        assert_eq!(client.rest_text(), "whole\nrejected: the peer stopped 4 bytes into a frame\n");
        hear(&told, "closed 0: the peer stopped 4 bytes into a frame");
        assert_eq!(server.stats().frames, 1);
    });
}

#[test]
fn a_handler_may_go_on_sending_after_the_peer_has_finished() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        let mut client = server.connect();
        client.send("stay\n");
        client.half_close();
        assert_eq!(client.rest_text(), "ok\nmore\nand more\n");
        for expected in ["open 0", "half_closed 0", "timer 0", "closed 0: the peer has finished"] {
            assert_eq!(next(&told), expected);
        }
    });
}

#[test]
fn a_client_that_connects_and_says_nothing_is_no_trouble() {
    on_every_driver(|case| {
        let (probe, told) = Probe::new();
        let server = case.start(|server| server.serve_with(ANY, Lines::new(), probe));
        for _ in 0..3 {
            let mut client = server.connect();
            client.half_close();
            assert_eq!(client.rest_text(), "");
        }
        hear(&told, "closed 2: the peer has finished");
        assert_eq!(server.stats().frames, 0);
    });
}

#[test]
fn an_idle_connection_costs_no_work_and_no_buffer() {
    on_every_driver(|case| {
        let server = case.start(echo);
        let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("hello"), "hello");
        }
        crate::harness::wait_until("idle connections hold no buffer", || {
            server.stats().buffered_bytes == 0
        });
        server.is_idle();
        assert_eq!(clients[49].ask("still here"), "still here");
    });
}

#[test]
fn a_reply_of_nothing_is_sent_as_nothing_and_holds_no_buffer() {
    on_every_driver(|case| {
        let server = case.start(|server| {
            server.serve(ANY, Raw::new(), |conn, bytes| {
                conn.send(b"");
                if bytes.ends_with(b".") {
                    conn.send("end");
                }
            })
        });
        let mut client = server.connect();
        client.send("one");
        server.has_received(3);
        server.settles();
        assert_eq!(server.stats().buffered_bytes, 0);
        client.send("two.");
        assert_eq!(client.exactly(3), b"end");
    });
}
