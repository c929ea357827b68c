//! The PROXY protocol: what a proxy says about a connection before the first byte of its client.
//!
//! ```text
//!  v1   PROXY TCP4 192.0.2.7 198.51.100.1 51324 443\r\n      at most 107 bytes
//!  v2   signature (12) │ version, command │ family │ length (2) │ addresses │ TLVs
//!                                                               └─ at most 4,096 bytes ─┘
//! ```
//!
//! [`header`] is a pure function of the bytes that have arrived so far. What is [`Header::Refused`]
//! or [`Header::Complete`] stays so whatever arrives behind it, and every true beginning of a header
//! is [`Header::Incomplete`]: the caller keeps the bytes and asks again when there are more, at most
//! 4,112 of them. A refused header ends the connection; nothing is ever guessed.
//!
//! Who may send a header, and until when it has to be there, is the engine's affair.

#[cfg(test)]
mod oracles;

// The addresses of `std::net`; `core` has no sockets.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, str::FromStr};

use thiserror::Error;

use crate::address::Peer;

/// The most bytes of a header of version 1, with its CRLF.
const LINE_MAX: usize = 107;

/// The most bytes of a header of version 2 behind its first 16: addresses and TLVs.
const BLOCK_MAX: usize = 4096;

/// The most bytes of a header.
#[cfg(test)]
pub(crate) const HEADER_MAX: usize = 16 + BLOCK_MAX;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The family of a header of version 2, with the transport: a byte stream over each.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

/// The bytes of a path in a header of version 2: all of `sun_path`.
const PATH: usize = 108;

/// What some bytes are as the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The beginning of a header, or of none that is known to be wrong.
    Incomplete,
    /// The first `consumed` bytes are a header. What follows is the client's.
    Complete {
        consumed: usize,
        /// The real client. Without one the connection is the proxy's own, or the proxy does not
        /// know: the peer stays who it is.
        source: Option<Peer>,
    },
    /// No header begins like this.
    Refused(Refusal),
}

/// Why bytes are not the header of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    #[error("a PROXY header of version 1 has no end within {LINE_MAX} bytes")]
    LineTooLong,
    #[error("the protocol is not TCP4, TCP6 or UNKNOWN")]
    Protocol,
    #[error("an address is not one of its family")]
    Address,
    #[error("a port is not a decimal number up to 65535 without leading zeros")]
    Port,
    #[error("the line does not end with CRLF")]
    LineEnd,
    #[error("the version is not 2")]
    Version,
    #[error("the command is not LOCAL or PROXY")]
    Command,
    #[error("the transport is a datagram, and this is a stream")]
    Datagram,
    #[error("the family is unknown")]
    Family,
    #[error(
        "a PROXY header of version 2 has {length} bytes behind its first 16, at most {BLOCK_MAX}"
    )]
    BlockTooLong { length: u16 },
    #[error("{length} bytes cannot hold the addresses of the family")]
    BlockTooShort { length: u16 },
    #[error("an extension is longer than the header")]
    Extension,
}

/// Reads a header of either version.
pub(crate) fn header(input: &[u8]) -> Header {
    let found = match input.first() {
        None => Err(Halt::Incomplete),
        Some(b'P') => v1(input),
        Some(_) => v2(input),
    };
    match found {
        Ok((rest, source)) => Header::Complete { consumed: input.len() - rest.0.len(), source },
        Err(Halt::Incomplete) => Header::Incomplete,
        Err(Halt::Refused(why)) => Header::Refused(why),
    }
}

/// Why reading goes no further.
enum Halt {
    Incomplete,
    Refused(Refusal),
}

type Found<T> = Result<T, Halt>;

const fn refused<T>(why: Refusal) -> Found<T> {
    Err(Halt::Refused(why))
}

fn v1(input: &[u8]) -> Found<(Scanner<'_>, Option<Peer>)> {
    // A line that ends in time has its carriage return before the last byte, so that one that does
    // not is known a byte earlier.
    let may_end = input.get(LINE_MAX - 2) == Some(&b'\r');
    let max = if may_end { LINE_MAX } else { LINE_MAX - 1 };
    let mut rest = Scanner(&input[..input.len().min(max)]);
    let source = match line(&mut rest) {
        Err(Halt::Incomplete) if input.len() >= max => return refused(Refusal::LineTooLong),
        found => found?,
    };
    let consumed = input.len().min(max) - rest.0.len();
    Ok((Scanner(&input[consumed..]), source))
}

fn line(rest: &mut Scanner<'_>) -> Found<Option<Peer>> {
    rest.word(&[b"PROXY "], Refusal::NoHeader)?;
    let source = match rest.word(&[b"TCP4 ", b"TCP6 ", b"UNKNOWN"], Refusal::Protocol)? {
        b"TCP4 " => {
            let is_of_address = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
            Some(rest.endpoints::<Ipv4Addr>("255.255.255.255".len(), is_of_address)?)
        }
        b"TCP6 " => {
            const LONGEST: &str = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
            let is_of_address = |byte: &u8| byte.is_ascii_hexdigit() || b".:".contains(byte);
            Some(rest.endpoints::<Ipv6Addr>(LONGEST.len(), is_of_address)?)
        }
        // Whatever a proxy says behind this is not to be read.
        _ => {
            if rest.word(&[b" ", b"\r"], Refusal::Protocol)? == b" " {
                rest.until(b'\r', LINE_MAX, |byte| *byte != b'\r', Refusal::LineEnd)?;
            }
            None
        }
    };
    rest.word(&[b"\n"], Refusal::LineEnd)?;
    Ok(source.map(Peer::Tcp))
}

fn v2(input: &[u8]) -> Found<(Scanner<'_>, Option<Peer>)> {
    let mut rest = Scanner(input);
    rest.word(&[SIGNATURE], Refusal::NoHeader)?;
    let is_local = match rest.array::<1>()? {
        [0x20] => true,
        [0x21] => false,
        [byte] if byte >> 4 == 2 => return refused(Refusal::Command),
        _ => return refused(Refusal::Version),
    };
    let [family] = rest.array()?;
    // A LOCAL header is read for its length and nothing else, says the specification.
    let addresses = match family {
        _ if is_local => 0,
        UNSPECIFIED => 0,
        TCP4 => 2 * (4 + 2),
        TCP6 => 2 * (16 + 2),
        UNIX => 2 * PATH,
        0x02 | 0x12 | 0x22 | 0x32 => return refused(Refusal::Datagram),
        _ => return refused(Refusal::Family),
    };
    let length = u16::from_be_bytes(rest.array()?);
    let size = usize::from(length);
    if size > BLOCK_MAX {
        return refused(Refusal::BlockTooLong { length });
    }
    if size < addresses {
        return refused(Refusal::BlockTooShort { length });
    }
    let mut block = Scanner(rest.take(size)?);
    if is_local || family == UNSPECIFIED {
        return Ok((rest, None));
    }
    let source = block.source(family)?;
    while !block.0.is_empty() {
        block.skip_extension().or(refused(Refusal::Extension))?;
    }
    Ok((rest, Some(source)))
}

fn parsed<T: FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// What is not read yet.
struct Scanner<'a>(&'a [u8]);

impl<'a> Scanner<'a> {
    fn take(&mut self, count: usize) -> Found<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Halt::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Halt::Incomplete)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes whichever of `words` comes next. None of them begins with another.
    fn word(&mut self, words: &[&'static [u8]], why: Refusal) -> Found<&'static [u8]> {
        for word in words {
            if let Some(rest) = self.0.strip_prefix(*word) {
                self.0 = rest;
                return Ok(word);
            }
        }
        let has_begun = words.iter().any(|word| word.starts_with(self.0));
        if has_begun { Err(Halt::Incomplete) } else { refused(why) }
    }

    /// Takes at most `max` bytes that are all of a kind, and the `end` behind them.
    fn until(
        &mut self,
        end: u8,
        max: usize,
        is_of_kind: impl Fn(&u8) -> bool,
        why: Refusal,
    ) -> Found<&'a [u8]> {
        let length = self.0.iter().take_while(|byte| is_of_kind(byte)).count();
        match self.0.get(length) {
            _ if length > max => refused(why),
            None => Err(Halt::Incomplete),
            Some(byte) if *byte != end => refused(why),
            Some(_) => {
                let text = self.take(length)?;
                self.take(1)?;
                Ok(text)
            }
        }
    }

    /// Takes the addresses and ports of a line. Returns the source.
    fn endpoints<A: FromStr + Into<IpAddr>>(
        &mut self,
        max: usize,
        is_of_address: impl Fn(&u8) -> bool,
    ) -> Found<SocketAddr> {
        let mut address = || {
            let text = self.until(b' ', max, &is_of_address, Refusal::Address)?;
            parsed::<A>(text).ok_or(Halt::Refused(Refusal::Address))
        };
        let (source, _destination) = (address()?, address()?);
        let port = self.port(b' ')?;
        self.port(b'\r')?;
        Ok((source.into(), port).into())
    }

    fn port(&mut self, end: u8) -> Found<u16> {
        let text = self.until(end, "65535".len(), u8::is_ascii_digit, Refusal::Port)?;
        let has_leading_zero = text.len() > 1 && text.starts_with(b"0");
        let port = parsed(text).filter(|_| !has_leading_zero);
        port.ok_or(Halt::Refused(Refusal::Port))
    }

    /// Takes the addresses of a block that is long enough for them. Returns the source.
    fn source(&mut self, family: u8) -> Found<Peer> {
        if family == UNIX {
            let path = self.take(PATH)?;
            self.take(PATH)?;
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            // A socket without a path has no name, or one that is not a file's.
            return Ok(match path {
                [] => Peer::Unix,
                path => Peer::UnixPath(Path::new(OsStr::from_bytes(path)).into()),
            });
        }
        let ip = if family == TCP4 { self.ip::<4>()? } else { self.ip::<16>()? };
        let port = u16::from_be_bytes(self.array()?);
        self.array::<2>()?;
        Ok(Peer::Tcp((ip, port).into()))
    }

    /// Takes two addresses. Returns the first.
    fn ip<const N: usize>(&mut self) -> Found<IpAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        let source = self.array::<N>()?;
        self.array::<N>()?;
        Ok(source.into())
    }

    /// Takes a type, a length, and so many bytes.
    fn skip_extension(&mut self) -> Found<()> {
        let [_kind, high, low] = self.array()?;
        self.take(u16::from_be_bytes([high, low]).into())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        BLOCK_MAX, HEADER_MAX, Header, PATH, Refusal, SIGNATURE, TCP4, TCP6, UNIX, UNSPECIFIED,
        header,
    };
    use crate::address::Peer;

    const PROXY: u8 = 0x21;
    const LOCAL: u8 = 0x20;

    /// 192.0.2.7:51324 to 198.51.100.1:443.
    const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 200, 124, 1, 187];

    /// A header of version 2 that says how long it is.
    fn block(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a block is short");
        [SIGNATURE, &[command, family], &length.to_be_bytes(), block].concat()
    }

    fn over_tcp4(extensions: &[u8]) -> Vec<u8> {
        block(PROXY, TCP4, &[&ADDRESSES, extensions].concat())
    }

    fn over_tcp6() -> Vec<u8> {
        let source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        block(PROXY, TCP6, &[&source[..], &[0xfd; 16], &[200, 124, 1, 187]].concat())
    }

    fn over_unix(path: &[u8]) -> Vec<u8> {
        let mut addresses = path.to_vec();
        addresses.resize(PATH, 0);
        addresses.resize(2 * PATH, b'd');
        block(PROXY, UNIX, &addresses)
    }

    /// An extension of this length, with its own 3 bytes.
    fn extension(length: usize) -> Vec<u8> {
        let value = u16::try_from(length - 3).expect("an extension is short");
        let mut bytes = [&[0xe0][..], &value.to_be_bytes()].concat();
        bytes.resize(length, 0x5a);
        bytes
    }

    fn unknown(length: usize) -> Vec<u8> {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(length - 2, b'x');
        [line, b"\r\n".to_vec()].concat()
    }

    /// Headers, and the real client that each names.
    pub(super) fn valid() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
        let [v4, v6] = ["192.0.2.7:51324", "[2001:db8::7]:51324"].map(Some);
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let longest = "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
        let nested = "TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51324 443";
        vec![
            ("v1 tcp4", line("TCP4 192.0.2.7 198.51.100.1 51324 443"), v4),
            ("v1 tcp6", line("TCP6 2001:db8::7 fd00::1 51324 443"), v6),
            ("v1 the longest of tcp4", line("TCP4 255.255.255.255 255.255.255.255 65535 65535"), {
                Some("255.255.255.255:65535")
            }),
            ("v1 the longest of tcp6", line(longest), {
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
            }),
            ("v1 upper case", line("TCP6 2001:DB8::7 FD00::1 51324 443"), v6),
            ("v1 full groups", line("TCP6 2001:0db8:0:0:0:0:0:0007 ::1 51324 443"), v6),
            ("v1 ipv4 within ipv6", line(nested), Some("[::ffff:192.0.2.7]:51324")),
            ("v1 port 0", line("TCP4 192.0.2.7 198.51.100.1 0 0"), Some("192.0.2.7:0")),
            ("v1 unknown", line("UNKNOWN"), None),
            ("v1 unknown with addresses", line("UNKNOWN ::1 ::1 1 2"), None),
            ("v1 unknown with anything", line("UNKNOWN  TCP4 \n\0 "), None),
            ("v1 unknown, as long as can be", unknown(107), None),
            ("v2 tcp4", over_tcp4(&[]), v4),
            ("v2 tcp6", over_tcp6(), v6),
            ("v2 unix", over_unix(b"/run/client.sock"), Some("unix:/run/client.sock")),
            ("v2 unix, not utf-8", over_unix(b"/\xff\n"), Some("unix:/\u{fffd}\\n")),
            ("v2 unix without a path", over_unix(b""), Some("unix")),
            ("v2 unix without a file", over_unix(b"\0name"), Some("unix")),
            ("v2 local", block(LOCAL, UNSPECIFIED, &[]), None),
            ("v2 local of a family", block(LOCAL, TCP4, &ADDRESSES), None),
            ("v2 local of no family", block(LOCAL, 0xff, b"whatever"), None),
            ("v2 unspecified", block(PROXY, UNSPECIFIED, &[]), None),
            ("v2 unspecified with a block", block(PROXY, UNSPECIFIED, b"whatever"), None),
            ("v2 with extensions", over_tcp4(&[extension(3), extension(40)].concat()), v4),
            ("v2 as long as can be", over_tcp4(&extension(BLOCK_MAX - 12)), v4),
        ]
    }

    #[test]
    fn every_cut_of_a_header_is_its_beginning() {
        for (name, bytes, source) in valid() {
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]), Header::Incomplete, "{name}, cut at {cut}");
            }
            assert!(bytes.len() <= HEADER_MAX);
            for behind in [&b""[..], b"\r\n", b"PROXY ", &[0; 200]] {
                let Header::Complete { consumed, source: found } =
                    header(&[&bytes, behind].concat())
                else {
                    panic!("{name} is a header");
                };
                assert_eq!(consumed, bytes.len(), "{name}");
                assert_eq!(found.map(|peer| peer.to_string()).as_deref(), source, "{name}");
            }
        }
        let Header::Complete { source, .. } = header(&over_unix(&[b'x'; PATH])) else {
            panic!("a path may fill its field");
        };
        let longest = "x".repeat(PATH);
        assert_eq!(source, Some(Peer::UnixPath(Path::new(&longest).into())));
    }

    /// Bytes, at which of them it is known that no header begins like this, and why.
    type Malformed = (&'static str, Vec<u8>, usize, Refusal);

    pub(super) fn malformed() -> Vec<Malformed> {
        [malformed_lines(), malformed_blocks()].concat()
    }

    fn malformed_lines() -> Vec<Malformed> {
        use Refusal::{Address, LineEnd, LineTooLong, NoHeader, Port, Protocol};
        let tcp4 = |rest: &str| format!("PROXY TCP4 {rest}").into_bytes();
        let tcp6 = |rest: &str| format!("PROXY TCP6 {rest}").into_bytes();
        let long = format!("::ffff:255.255.255.255 {} 65535 65535\r\n", "0:".repeat(30) + ":1");
        vec![
            ("a request", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1, NoHeader),
            ("a request after an empty line", b"\r\nGET /".to_vec(), 3, NoHeader),
            ("lower case", b"proxy TCP4 ".to_vec(), 1, NoHeader),
            ("no space", b"PROXY\r\n".to_vec(), 6, NoHeader),
            ("two spaces", b"PROXY  TCP4 ".to_vec(), 7, Protocol),
            ("another protocol", b"PROXY UDP4 192.0.2.7 ".to_vec(), 8, Protocol),
            ("a protocol of lower case", b"PROXY tcp4 ".to_vec(), 7, Protocol),
            ("a protocol alone", b"PROXY TCP4\r\n".to_vec(), 11, Protocol),
            ("a longer protocol", b"PROXY UNKNOWNS\r\n".to_vec(), 14, Protocol),
            ("no address", tcp4("\r\n"), 12, Address),
            ("two spaces before an address", tcp4(" 192.0.2.7"), 12, Address),
            ("an address of the other family", tcp4("::1 ::1 1 2\r\n"), 12, Address),
            ("the other way round", tcp6("192.0.2.7 198.51.100.1 1 2\r\n"), 21, Address),
            ("one of each", tcp6("::1 198.51.100.1 1 2\r\n"), 28, Address),
            ("a leading zero in an address", tcp4("192.0.2.07 198.51.100.1 1 2\r\n"), 22, Address),
            ("three parts", tcp4("192.0.2 198.51.100.1 1 2\r\n"), 19, Address),
            ("a part of 256", tcp4("192.0.2.256 198.51.100.1 1 2\r\n"), 23, Address),
            ("an address that does not end", tcp4(&"1".repeat(16)), 27, Address),
            ("a zone", tcp6("fe80::1%2 ::1 1 2\r\n"), 19, Address),
            ("two gaps", tcp6("1::2::3 ::1 1 2\r\n"), 19, Address),
            ("a name", tcp4("localhost 198.51.100.1 1 2\r\n"), 12, Address),
            ("a leading zero in a port", tcp4("192.0.2.7 198.51.100.1 01 2\r\n"), 37, Port),
            ("the same at the other end", tcp4("192.0.2.7 198.51.100.1 1 02\r\n"), 39, Port),
            ("a port of two zeros", tcp4("192.0.2.7 198.51.100.1 00 2\r\n"), 37, Port),
            ("a port above 65535", tcp4("192.0.2.7 198.51.100.1 65536 2\r\n"), 40, Port),
            ("a port of six digits", tcp4("192.0.2.7 198.51.100.1 100000 2\r\n"), 40, Port),
            ("a port with a sign", tcp4("192.0.2.7 198.51.100.1 +1 2\r\n"), 35, Port),
            ("no port", tcp4("192.0.2.7 198.51.100.1\r\n"), 34, Address),
            ("one port", tcp4("192.0.2.7 198.51.100.1 1\r\n"), 36, Port),
            ("an empty port", tcp4("192.0.2.7 198.51.100.1  2\r\n"), 35, Port),
            ("a port and a space", tcp4("192.0.2.7 198.51.100.1 1 2 \r\n"), 38, Port),
            ("no carriage return", tcp4("192.0.2.7 198.51.100.1 1 2\n"), 38, Port),
            ("no line feed", tcp4("192.0.2.7 198.51.100.1 1 2\r\r\n"), 39, LineEnd),
            ("unknown without a line feed", b"PROXY UNKNOWN\rx".to_vec(), 15, LineEnd),
            ("unknown that goes on", b"PROXY UNKNOWN \rx\r\n".to_vec(), 16, LineEnd),
            ("a line of 108 bytes", unknown(108), 106, LineTooLong),
            ("addresses of 46 bytes", tcp6(&long), 80, Address),
        ]
    }

    fn malformed_blocks() -> Vec<Malformed> {
        use Refusal::{
            BlockTooLong, BlockTooShort, Command, Datagram, Extension, Family, NoHeader, Version,
        };
        let with = |at: usize, byte: u8| {
            let mut bytes = over_tcp4(&[]);
            bytes[at] = byte;
            bytes
        };
        let length = |family: u8, length: u16| {
            [SIGNATURE, &[PROXY, family], &length.to_be_bytes(), &[0; 300]].concat()
        };
        vec![
            ("version 1 in binary", with(12, 0x11), 13, Version),
            ("version 3", with(12, 0x31), 13, Version),
            ("no command", with(12, 0x22), 13, Command),
            ("datagrams over IPv4", with(13, 0x12), 14, Datagram),
            ("datagrams over IPv6", with(13, 0x22), 14, Datagram),
            ("Unix datagrams", with(13, 0x32), 14, Datagram),
            ("datagrams of no family", with(13, 0x02), 14, Datagram),
            ("a family without a transport", with(13, 0x10), 14, Family),
            ("a transport without a family", with(13, 0x01), 14, Family),
            ("an unknown family", with(13, 0x41), 14, Family),
            ("an unknown transport", with(13, 0x13), 14, Family),
            ("another signature", with(11, b'\r'), 12, NoHeader),
            ("a block of 4097 bytes", length(TCP4, 4097), 16, BlockTooLong { length: 4097 }),
            ("a block of 65535 bytes", length(TCP4, 65535), 16, BlockTooLong { length: 65535 }),
            ("the same, local", [SIGNATURE, &[LOCAL, 0, 16, 1]].concat(), 16, {
                BlockTooLong { length: 4097 }
            }),
            ("no block", length(TCP4, 0), 16, BlockTooShort { length: 0 }),
            ("11 of 12 bytes", length(TCP4, 11), 16, BlockTooShort { length: 11 }),
            ("35 of 36 bytes", length(TCP6, 35), 16, BlockTooShort { length: 35 }),
            ("215 of 216 bytes", length(UNIX, 215), 16, BlockTooShort { length: 215 }),
            ("one byte of an extension", over_tcp4(&[4]), 29, Extension),
            ("two bytes of an extension", over_tcp4(&[4, 0]), 30, Extension),
            ("an extension without its value", over_tcp4(&[4, 0, 1]), 31, Extension),
            ("an extension of 65535 bytes", over_tcp4(&[4, 255, 255, 0]), 32, Extension),
            ("the second extension", over_tcp4(&[4, 0, 1, 0, 4, 0, 2, 0]), 36, Extension),
        ]
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_is_known() {
        for (name, bytes, known, why) in malformed() {
            for cut in 0..known {
                assert_eq!(header(&bytes[..cut]), Header::Incomplete, "{name}, cut at {cut}");
            }
            for cut in known..=bytes.len() {
                assert_eq!(header(&bytes[..cut]), Header::Refused(why), "{name}, cut at {cut}");
            }
            for behind in [&b"\r\n"[..], &[0; 5000], &[b'1'; 200]] {
                let more = [&bytes, behind].concat();
                assert_eq!(header(&more), Header::Refused(why), "{name}, with more behind it");
            }
            let said = why.to_string();
            assert!(!said.ends_with('.') && !said.contains('\n'), "a phrase: {said}");
        }
    }
}
