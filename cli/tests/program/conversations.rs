//! What every handler answers through every codec.

use std::io::{Read, Write};

use crate::support::{Server, command};

/// Requests without their ends.
const REQUESTS: [&[u8]; 3] = [b"aBc 1", b"", b"\xffz"];

/// The handlers and their replies to [`REQUESTS`], without ends.
#[rustfmt::skip]
const HANDLERS: [(&str, Option<[&[u8]; 3]>); 6] = [
    ("echo",    Some([b"aBc 1", b"",  b"\xffz"])),
    ("discard", None),
    ("upper",   Some([b"ABC 1", b"",  b"\xffZ"])),
    ("lower",   Some([b"abc 1", b"",  b"\xffz"])),
    ("reverse", Some([b"1 cBa", b"",  b"z\xff"])),
    ("length",  Some([b"5",     b"0", b"2"])),
];

/// The codecs with what ends a request and a reply.
#[rustfmt::skip]
const CODECS: [(&str, &[u8], &[u8]); 6] = [
    ("lines",                b"\n",   b"\n"),
    ("crlf",                 b"\r\n", b"\r\n"),
    ("crlf",                 b"\n",   b"\r\n"),
    ("strict-crlf",          b"\r\n", b"\r\n"),
    (r"delimited:\x1e",      b"\x1e", b"\x1e"),
    (r"delimited:;\0\\\r\n", b";\0\\\r\n", b";\0\\\r\n"),
];

fn with_ends(payloads: &[&[u8]], end: &[u8]) -> Vec<u8> {
    payloads.iter().flat_map(|payload| [*payload, end].concat()).collect()
}

#[test]
fn every_handler_answers_through_every_codec() {
    for (handler, replies) in HANDLERS {
        for (codec, request_end, reply_end) in CODECS {
            let server = Server::start(&format!("--handler {handler} --codec {codec}"));
            let expected = replies.map(|replies| with_ends(&replies, reply_end));
            assert_eq!(
                server.ask(&with_ends(&REQUESTS, request_end)).escape_ascii().to_string(),
                expected.unwrap_or_default().escape_ascii().to_string(),
                "{handler}, {codec}",
            );
        }
    }
}

#[test]
fn without_framing_whatever_arrives_is_answered() {
    for (handler, replies) in HANDLERS {
        let server = Server::start(&format!("--handler {handler} --codec raw"));
        let expected = replies.map_or(b"".as_slice(), |replies| replies[0]);
        assert_eq!(server.ask(REQUESTS[0]), expected, "{handler}");
    }
}

#[test]
fn a_conversation_ends_where_framing_is_lost() {
    for (flags, stream, expected) in [
        ("--codec lines --last-line drop", "a\r\nb\ncut off", "a\r\nb\n"),
        ("--codec crlf --last-line drop", "a\nb\r", "a\r\n"),
        ("--codec lines", "a\r\nb\nlast", "a\r\nb\nlast\n"),
        ("--codec crlf --last-line take", "a\r\nlast\r", "a\r\nlast\r\n"),
        ("--codec strict-crlf", "a\r\ncut off", "a\r\n"),
        ("--codec delimited:;", "a;cut off", "a;"),
        ("--max-frame 3", "abc\nabcd", "abc\n"),
        ("--codec strict-crlf", "a\r\nb\nc\r\n", "a\r\n"),
        ("--codec delimited:; --max-frame 2", "ab;abc;a;", "ab;"),
        ("--max-frame 3", "abc\nabcd\na\n", "abc\n"),
        ("--codec raw --max-frame 2 --handler length", "abcde", "221"),
    ] {
        let server = Server::start(flags);
        let reply = String::from_utf8(server.ask(stream.as_bytes())).unwrap();
        assert_eq!(reply, expected, "{flags}");
        assert_eq!(server.ask(b""), b"", "{flags}: others are served");
    }
}

#[test]
fn several_addresses_are_served_at_once() {
    let listen =
        "--listen 127.0.0.1:0 --listen [::1]:0 --handler reverse --listen tcp://127.0.0.1:0";
    let mut server = Server::from(&mut command(listen), 3);
    for _ in 0..3 {
        assert_eq!(server.ask(b"abc\n"), b"cba\n", "{:?}", server.addresses);
        server.addresses.rotate_left(1);
    }
    assert!(server.addresses[1].starts_with("[::1]:"), "{:?}", server.addresses);
}

#[test]
fn limits_are_kept() {
    let server = Server::start("--max-connections-per-ip 1");
    let mut first = server.connect();
    first.write_all(b"hello\n").unwrap();
    first.read_exact(&mut [0; 6]).unwrap();
    let mut second = server.connect();
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)), "the second one is refused");
    server.await_log("too many connections");

    let server = Server::start("--idle-timeout 20ms");
    assert_eq!(server.connect().read(&mut [0]).unwrap(), 0, "who is silent is disconnected");
}
