//! What two crates that read PROXY headers say about the same bytes: ppp and proxy-header.
//!
//! They differ from [`header`] where [`DIFFERENCES`] says so, and nowhere else.

use core::net::SocketAddr;
use std::{collections::BTreeMap, fmt};

use ppp::{HeaderResult, PartialResult, v1, v2};
use proxy_header::{Error, ParseConfig, ProxyHeader};

use super::{
    Header, Refusal, header,
    tests::{malformed, valid},
};
use crate::{address::Peer, driver::sim::rng::Rng};

/// What all of them can say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Incomplete,
    Complete { consumed: usize, source: Option<String> },
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("incomplete"),
            Self::Complete { source: Some(source), .. } => f.write_str(source),
            Self::Complete { source: None, .. } => f.write_str("a header without a source"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

fn ours(input: &[u8]) -> Verdict {
    match header(input) {
        Header::Incomplete => Verdict::Incomplete,
        Header::Complete { consumed, source } => {
            Verdict::Complete { consumed, source: source.map(|peer| peer.to_string()) }
        }
        Header::Refused(_) => Verdict::Refused,
    }
}

fn ppp(input: &[u8]) -> Verdict {
    let complete = |consumed, source: Option<SocketAddr>| {
        let source = source.map(|address| address.to_string());
        Verdict::Complete { consumed, source }
    };
    match HeaderResult::parse(input) {
        result if result.is_incomplete() => Verdict::Incomplete,
        HeaderResult::V1(Ok(found)) => complete(
            found.header.len(),
            match found.addresses {
                v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
                v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
                v1::Addresses::Unknown => None,
            },
        ),
        HeaderResult::V2(Ok(found)) if found.command == v2::Command::Local => {
            complete(found.len(), None)
        }
        HeaderResult::V2(Ok(found)) => complete(
            found.len(),
            match found.addresses {
                v2::Addresses::IPv4(it) => Some((it.source_address, it.source_port).into()),
                v2::Addresses::IPv6(it) => Some((it.source_address, it.source_port).into()),
                v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
            },
        ),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Verdict::Refused,
    }
}

fn proxy_header(input: &[u8]) -> Verdict {
    match ProxyHeader::parse(input, ParseConfig::default()) {
        Ok((found, consumed)) => {
            let address = found.proxied_address();
            let source = address.map(|address| address.source.to_string());
            Verdict::Complete { consumed, source }
        }
        Err(Error::BufferTooShort) => Verdict::Incomplete,
        Err(_) => Verdict::Refused,
    }
}

type Oracle = fn(&[u8]) -> Verdict;

const ORACLES: [(&str, Oracle); 2] = [("ppp", ppp), ("proxy-header", proxy_header)];

/// Where an oracle says something else: of which header, of which beginning of it, and what.
#[rustfmt::skip]
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[
    ("ppp", "v1 tcp4", "up to the last port", "refused"),
    ("ppp", "v1 tcp6", "up to the last port", "refused"),
    ("ppp", "v1 the longest of tcp4", "up to the last port", "refused"),
    ("ppp", "v1 the longest of tcp6", "up to the last port", "refused"),
    ("ppp", "v1 upper case", "up to the last port", "refused"),
    ("ppp", "v1 full groups", "up to the last port", "refused"),
    ("ppp", "v1 ipv4 within ipv6", "up to the last port", "refused"),
    ("ppp", "v1 port 0", "up to the last port", "refused"),
    ("ppp", "v1 unknown with anything", "up to a lone line feed", "a header without a source"),
    ("ppp", "v2 unix", "all", "a header without a source"),
    ("ppp", "v2 unix, not utf-8", "all", "a header without a source"),
    ("ppp", "v2 unix without a path", "all", "a header without a source"),
    ("ppp", "v2 unix without a file", "all", "a header without a source"),
    ("ppp", "v2 local of no family", "from the length on", "refused"),
    ("ppp", "a protocol alone", "all", "incomplete"),
    ("ppp", "no address", "all", "incomplete"),
    ("ppp", "a port with a sign", "all", "192.0.2.7:1"),
    ("ppp", "no port", "all", "incomplete"),
    ("ppp", "unknown without a line feed", "all", "incomplete"),
    ("ppp", "unknown that goes on", "all", "incomplete"),
    ("ppp", "datagrams over IPv4", "all", "192.0.2.7:51324"),
    ("ppp", "datagrams of no family", "all", "a header without a source"),
    ("ppp", "a family without a transport", "all", "192.0.2.7:51324"),
    ("ppp", "a transport without a family", "all", "a header without a source"),
    ("ppp", "a block of 4097 bytes", "all", "0.0.0.0:0"),
    ("ppp", "a block of 65535 bytes", "all", "0.0.0.0:0"),
    ("ppp", "the same, local", "all", "a header without a source"),
    ("ppp", "one byte of an extension", "all", "192.0.2.7:51324"),
    ("ppp", "two bytes of an extension", "all", "192.0.2.7:51324"),
    ("ppp", "an extension without its value", "all", "192.0.2.7:51324"),
    ("ppp", "an extension of 65535 bytes", "all", "192.0.2.7:51324"),
    ("ppp", "the second extension", "all", "192.0.2.7:51324"),
    ("proxy-header", "v2 unix", "all", "a header without a source"),
    ("proxy-header", "v2 unix, not utf-8", "all", "a header without a source"),
    ("proxy-header", "v2 unix without a path", "all", "a header without a source"),
    ("proxy-header", "v2 unix without a file", "all", "a header without a source"),
    ("proxy-header", "v2 local of no family", "all", "refused"),
    ("proxy-header", "a longer protocol", "all", "a header without a source"),
    ("proxy-header", "a leading zero in a port", "all", "192.0.2.7:1"),
    ("proxy-header", "the same at the other end", "all", "192.0.2.7:1"),
    ("proxy-header", "a port of two zeros", "all", "192.0.2.7:0"),
    ("proxy-header", "a port with a sign", "all", "192.0.2.7:1"),
    ("proxy-header", "a line of 108 bytes", "all", "a header without a source"),
    ("proxy-header", "datagrams over IPv4", "all", "192.0.2.7:51324"),
    ("proxy-header", "a block of 4097 bytes", "all", "0.0.0.0:0"),
    ("proxy-header", "a block of 65535 bytes", "all", "0.0.0.0:0"),
    ("proxy-header", "the same, local", "all", "a header without a source"),
    ("proxy-header", "one byte of an extension", "all", "192.0.2.7:51324"),
    ("proxy-header", "two bytes of an extension", "all", "192.0.2.7:51324"),
    ("proxy-header", "an extension without its value", "all", "192.0.2.7:51324"),
    ("proxy-header", "an extension of 65535 bytes", "all", "192.0.2.7:51324"),
    ("proxy-header", "the second extension", "all", "192.0.2.7:51324"),
];

/// In words, which beginnings of a header have so many bytes.
fn beginnings(counts: &[usize], bytes: &[u8]) -> String {
    match counts {
        [count] if *count == bytes.len() => "all",
        [count] if bytes[..*count].ends_with(b" ") => "up to the last port",
        [count] if bytes[..*count].ends_with(b"\n") => "up to a lone line feed",
        [16, .., last] if *last == bytes.len() => "from the length on",
        _ => return format!("{counts:?}"),
    }
    .to_owned()
}

#[test]
fn other_crates_differ_where_it_is_written_and_nowhere_else() {
    let mut found = Vec::new();
    for (oracle, judge) in ORACLES {
        for (name, bytes, _) in valid() {
            let mut said = BTreeMap::<String, Vec<usize>>::new();
            for count in 1..=bytes.len() {
                let verdict = judge(&bytes[..count]);
                if verdict != ours(&bytes[..count]) {
                    said.entry(verdict.to_string()).or_default().push(count);
                }
            }
            found.extend(
                said.into_iter()
                    .map(|(said, counts)| (oracle, name, beginnings(&counts, &bytes), said)),
            );
        }
        for (name, bytes, ..) in malformed() {
            // With so many bytes behind it no oracle waits for more.
            let verdict = judge(&[&bytes[..], &[0; 70_000]].concat());
            if verdict != Verdict::Refused {
                found.push((oracle, name, "all".to_owned(), verdict.to_string()));
            }
        }
    }
    let known = DIFFERENCES.iter();
    let known: Vec<_> = known.map(|&(o, name, n, said)| (o, name, n.into(), said.into())).collect();
    assert_eq!(found, known);
}

/// What we refuse and an oracle takes, in the order of [`ORACLES`]. The first ends an `UNKNOWN` line at
/// a line feed alone. The second does not look at the byte behind `PROXY` and at what begins with
/// `UNKNOWN`.
const STRICTER: [fn(Refusal) -> bool; 2] = {
    use Refusal::{
        BlockTooLong, Datagram, Extension, Family, LineEnd, LineTooLong, NoHeader, Port, Protocol,
    };
    [
        |why| {
            let of_v1 = matches!(why, Port | LineEnd);
            of_v1 || matches!(why, Datagram | Family | Extension | BlockTooLong { .. })
        },
        |why| {
            let of_v1 = matches!(why, Port | LineTooLong | NoHeader | Protocol);
            of_v1 || matches!(why, Datagram | Extension | BlockTooLong { .. })
        },
    ]
};

/// Headers of which a few bytes have changed, so many.
fn mutated(count: usize) -> impl Iterator<Item = Vec<u8>> {
    const LIKELY: &[u8] = b"0159 .:fFP\r\n\0\x01\x10\x11\x12\x20\x21\x22\x31\xff";
    let rng = Rng::new(1685);
    let headers: Vec<_> = valid().into_iter().map(|(_, bytes, _)| bytes).collect();
    (0..count).map(move |_| {
        let mut bytes = headers[rng.between(0, headers.len() - 1)].clone();
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(0, bytes.len().min(48) - 1);
            let byte = LIKELY[rng.between(0, LIKELY.len() - 1)];
            match rng.below(4) {
                0 => bytes.insert(at, byte),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = rng.next().to_le_bytes()[0],
                _ => bytes[at] = byte,
            }
        }
        bytes
    })
}

#[test]
fn changed_headers_are_judged_alike_and_under_every_cut() {
    let mut taken = 0;
    for bytes in mutated(20_000) {
        let shown = bytes.escape_ascii();
        let whole = header(&bytes);
        for cut in 0..bytes.len().min(400) {
            let part = header(&bytes[..cut]);
            let is_sound = part == Header::Incomplete || part == whole;
            assert!(is_sound, "{part:?} of the first {cut} bytes, then {whole:?}: {shown}");
        }
        for ((oracle, judge), stricter) in ORACLES.into_iter().zip(STRICTER) {
            let (said, ours) = (judge(&bytes), ours(&bytes));
            let is_known = match &whole {
                Header::Incomplete => true,
                // What the specification has ignored, oracles look at: the rest of a LOCAL header
                // and of an UNKNOWN line. Of Unix paths they say nothing.
                Header::Complete { source: Some(Peer::Tcp(_)), .. } => said == ours,
                Header::Complete { .. } => true,
                Header::Refused(why) => {
                    said == ours || said == Verdict::Incomplete || stricter(*why)
                }
            };
            assert!(is_known, "{oracle}: {said}, and we say {whole:?}: {shown}");
        }
        taken += usize::from(matches!(whole, Header::Complete { .. }));
    }
    assert!((1000..19_000).contains(&taken), "{taken} are headers still");
}
