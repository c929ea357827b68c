//! Redis replies: what a server says, in RESP2.
//!
//! ```text
//!  +OK\r\n    -ERR what\r\n    :42\r\n    $3\r\nfoo\r\n    $-1\r\n    *2\r\n… …
//! ```
//!
//! Every reply can be encoded: what would break the framing of a line is replaced.

use std::io::Write;

use super::Resp;
use crate::codec::{Encode, EncodeError, FrameError};

/// A reply to a [`Command`](super::Command).
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Encode, Resp, resp::Reply};
///
/// let mut out = Vec::new();
/// let pair = [Reply::Bulk(b"save"), Reply::Null];
/// Resp::new().encode(Reply::Array(&pair), &mut out)?;
/// assert_eq!(out, b"*2\r\n$4\r\nsave\r\n$-1\r\n");
/// # Ok::<(), nonforker::codec::EncodeError>(())
/// ```
///
/// Where the elements of an array are not at hand together, its head is sent and then they are:
///
/// ```
/// use nonforker::{Server, codec::{Resp, resp::Reply}};
///
/// let server = Server::new().serve("127.0.0.1:0", Resp::new(), |conn, command| {
///     conn.send(Reply::ArrayHead(command.len()));
///     for argument in &command {
///         conn.send(Reply::Bulk(argument));
///     }
/// });
/// # let _ = server;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// A short text that is not an error. Line endings in it are sent as spaces.
    Simple(&'a str),
    /// An error: a word in capitals such as `ERR`, and what went wrong. Line endings in it are
    /// sent as spaces.
    Error(&'a str),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(&'a [u8]),
    /// There is no such thing: a bulk string of −1 bytes.
    Null,
    /// There is no such list: an array of −1 elements.
    NullArray,
    /// A list of replies.
    Array(&'a [Self]),
    /// The start of a list: this many replies must be sent behind it.
    ArrayHead(usize),
}

impl Reply<'static> {
    /// What a command that has nothing to tell answers.
    pub const OK: Self = Self::Simple("OK");
}

impl Encode<Reply<'_>> for Resp {
    #[inline]
    fn encode(&mut self, reply: Reply<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match reply {
            // Said to every SET and to every PING: they deserve the short way.
            Reply::Simple("OK") => out.extend_from_slice(b"+OK\r\n"),
            Reply::Simple("PONG") => out.extend_from_slice(b"+PONG\r\n"),
            Reply::Simple(text) => line(b'+', text, out),
            Reply::Error(text) => line(b'-', text, out),
            Reply::Integer(number) => integer(number, out),
            Reply::Bulk(bytes) => {
                head(b'$', bytes.len(), bytes.len() + 2, out);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(replies) => return array(self, replies, out),
            Reply::ArrayHead(count) => head(b'*', count, 0, out),
        }
        Ok(())
    }
}

/// The last word to a peer whose bytes are no commands: the error as Redis would put it.
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Encode, Resp};
///
/// let mut resp = Resp::new();
/// let error = resp.decode(b"*1\r\n:1\r\n").unwrap_err();
/// let mut out = Vec::new();
/// resp.encode(&error, &mut out)?;
/// assert_eq!(out, b"-ERR Protocol error: malformed frame: expected '$' at byte 4\r\n");
/// # Ok::<(), nonforker::codec::EncodeError>(())
/// ```
impl Encode<&FrameError> for Resp {
    fn encode(&mut self, error: &FrameError, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        // To write to a vector cannot fail.
        let _ = write!(out, "-ERR Protocol error: {error}\r\n");
        Ok(())
    }
}

#[inline(never)]
fn array(resp: &mut Resp, replies: &[Reply<'_>], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    head(b'*', replies.len(), 0, out);
    replies.iter().try_for_each(|&reply| resp.encode(reply, out))
}

#[inline]
fn line(kind: u8, text: &str, out: &mut Vec<u8>) {
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return line(kind, &text.replace(['\r', '\n'], " "), out);
    }
    out.reserve(1 + text.len() + 2);
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The most bytes of a head: its kind, 20 digits, a line ending.
const HEAD_MAX: usize = 1 + 20 + 2;

/// Appends a kind and a length. So many more bytes will follow.
#[inline]
fn head(kind: u8, length: usize, more: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(digit @ 0..=9) => out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']),
        Ok(number @ 10..=99) => {
            let (tens, ones) = (b'0' + number / 10, b'0' + number % 10);
            out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        }
        _ => long_head(kind, length, more, out),
    }
}

#[inline(never)]
fn long_head(kind: u8, length: usize, more: usize, out: &mut Vec<u8>) {
    // Once for all of it: the framing must not double the memory of a large reply.
    out.reserve(HEAD_MAX + more);
    decimal(&[kind], length as u64, out);
}

fn integer(number: i64, out: &mut Vec<u8>) {
    let sign: &[u8] = if number < 0 { b":-" } else { b":" };
    decimal(sign, number.unsigned_abs(), out);
}

/// Appends what goes before it, `number`, and a line ending.
#[inline(never)]
fn decimal(before: &[u8], mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        // What is left of a division by ten is a digit.
        *slot += u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(before);
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Encode, FrameError, Reply, Resp};

    fn encoded<R>(reply: R) -> Vec<u8>
    where
        Resp: Encode<R>,
    {
        let mut out = b"before".to_vec();
        Resp::new().encode(reply, &mut out).expect("every reply can be encoded");
        out.strip_prefix(b"before").expect("what was there is still there").to_vec()
    }

    const CASES: &[(Reply<'_>, &[u8])] = &[
        (Reply::OK, b"+OK\r\n"),
        (Reply::Simple("PONG"), b"+PONG\r\n"),
        (Reply::Simple("PING"), b"+PING\r\n"),
        (Reply::Simple(""), b"+\r\n"),
        (Reply::Simple("a\r\nb"), b"+a  b\r\n"),
        (Reply::Error("ERR no\n"), b"-ERR no \r\n"),
        (Reply::Integer(0), b":0\r\n"),
        (Reply::Integer(i64::MAX), b":9223372036854775807\r\n"),
        (Reply::Integer(i64::MIN), b":-9223372036854775808\r\n"),
        (Reply::Bulk(b""), b"$0\r\n\r\n"),
        (Reply::Bulk(b"a\r\n\0\xff"), b"$5\r\na\r\n\0\xff\r\n"),
        (Reply::Bulk(b"0123456789"), b"$10\r\n0123456789\r\n"),
        (Reply::Null, b"$-1\r\n"),
        (Reply::NullArray, b"*-1\r\n"),
        (Reply::Array(&[]), b"*0\r\n"),
        (
            Reply::Array(&[Reply::Array(&[Reply::Integer(-7)]), Reply::Null]),
            b"*2\r\n*1\r\n:-7\r\n$-1\r\n",
        ),
        (Reply::ArrayHead(12), b"*12\r\n"),
        (Reply::ArrayHead(12_345), b"*12345\r\n"),
    ];

    #[test]
    fn replies_are_what_clients_read() {
        for &(reply, expected) in CASES {
            assert_eq!(
                encoded(reply).escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn the_last_word_is_an_error() {
        assert_eq!(
            encoded(&FrameError::TooLong { max: 4 }),
            b"-ERR Protocol error: frame too long: more than 4 bytes\r\n"
        );
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_everybody_writes_them(number: i64, length in 0..3000usize) {
            prop_assert_eq!(encoded(Reply::Integer(number)), format!(":{number}\r\n").into_bytes());
            let bulk = vec![b'x'; length];
            let expected = [format!("${length}\r\n").as_bytes(), &bulk, b"\r\n"].concat();
            prop_assert_eq!(encoded(Reply::Bulk(&bulk)), expected);
        }
    }
}
