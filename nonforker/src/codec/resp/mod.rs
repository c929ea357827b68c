//! Redis requests: arrays of bulk strings, and lines typed by hand.
//!
//! ```text
//!  *2\r\n $3\r\nGET\r\n $3\r\nkey\r\n      an array: how many, then each with its length
//!  ──┬──  ─────┬───────
//!  count   argument                     at, left ──▶ where the next argument begins, and
//!                                                    how many are to come
//!  GET key\r\n                          inline: words, until the line ends
//! ```
//!
//! What is read is a [`Command`], what is sent a [`Reply`]: RESP2, the protocol that every client
//! of Redis speaks.
//!
//! Invariants:
//!
//! - Of an array in progress, the arguments before `at` are complete, and `left` are missing. They
//!   are not looked at again, so a command costs O(n) in however many pieces it arrives. Of a line
//!   in progress, `at` bytes hold no line feed.
//! - Nothing behind the limit decides anything: what is said about a command depends on its first
//!   bytes only, never on how many more are there. What announces more than the limit leaves room
//!   for is refused at once.
//!
//! Not here: commands that are there at once, as most are, in `short.rs`; words and quotes, in
//! `inline.rs`; replies, in `reply.rs`.

mod command;
mod inline;
mod reply;
mod short;

use memchr::memchr;

use super::{Codec, DEFAULT_FRAME_MAX, Decoded, FrameError};
use command::{Bulks, Source};

pub use command::{Args, Command};
pub use reply::Reply;

/// The most bytes of an inline command, its line ending included: 64 KiB, as in Redis.
pub const INLINE_MAX: usize = 64 * 1024;

/// The most arguments of a command unless a codec is given another limit: 1,048,576, as in Redis. With
/// the default limit for a whole command there is no room for that many.
pub const DEFAULT_ARGS_MAX: usize = 1024 * 1024;

/// The fewest bytes that an argument takes: `$0\r\n\r\n`.
const ARGUMENT_MIN: usize = 6;

/// Above every limit, so that no sum of lengths overflows.
const LIMIT_MAX: usize = usize::MAX / 64;

/// Redis requests, and replies to them: RESP2.
///
/// A frame is a [`Command`]: the name and what follows it, as bytes. Arrays of bulk strings are
/// borrowed as they arrived. A line that does not begin with `*` is an inline command, split at
/// spaces; quotes and escapes in it mean what they mean to Redis. An array without elements and a
/// line without words are skipped.
///
/// A reply is a [`Reply`]. A [`FrameError`] can be sent too: it becomes the error reply that a
/// client of Redis expects before the connection closes.
///
/// Stricter than Redis: lengths and bulk strings must really end with `\r\n`. More lenient: a NUL
/// in an inline command is data.
///
/// | limit | default | beyond it |
/// |---|---|---|
/// | a whole command, framing included | [`DEFAULT_FRAME_MAX`] | [`FrameError::TooLong`] |
/// | an inline command, its ending included | [`INLINE_MAX`] | [`FrameError::TooLong`] |
/// | one argument | as long as the command | [`FrameError::TooLong`] |
/// | the number of arguments | [`DEFAULT_ARGS_MAX`] | [`FrameError::Malformed`] |
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Resp};
///
/// let mut resp = Resp::new();
/// for request in [b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".as_slice(), b"get key\r\n"] {
///     let Ok(Decoded::Frame { frame, consumed }) = resp.decode(request) else {
///         panic!("a command")
///     };
///     assert_eq!(consumed, request.len());
///     assert!(frame.is("GET"));
///     assert_eq!(&frame[1], b"key");
/// }
/// ```
///
/// As a server, with a store in ten lines: `examples/key_value.rs`.
#[derive(Clone, Debug)]
pub struct Resp {
    /// The most bytes of a command, framing included.
    max: usize,
    /// The most bytes of one argument.
    bulk_max: usize,
    args_max: usize,
    /// Where to go on in the command in progress.
    at: usize,
    /// How many arguments are missing. 0 if their number is not known yet.
    left: usize,
}

impl Resp {
    /// Commands of at most [`DEFAULT_FRAME_MAX`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max(DEFAULT_FRAME_MAX)
    }

    /// Commands of at most `max` bytes, framing included; an inline command has at most
    /// [`INLINE_MAX`] all the same. Replies are not limited.
    ///
    /// This is the memory that a peer can take with a command it never finishes.
    #[must_use]
    pub const fn with_max(max: usize) -> Self {
        let max = if max < LIMIT_MAX { max } else { LIMIT_MAX };
        Self { max, bulk_max: max, args_max: DEFAULT_ARGS_MAX, at: 0, left: 0 }
    }

    /// Arguments of at most `max` bytes each, in arrays; by default whatever the whole command
    /// has room for.
    #[must_use]
    pub const fn bulk_max(mut self, max: usize) -> Self {
        self.bulk_max = if max < LIMIT_MAX { max } else { LIMIT_MAX };
        self
    }

    /// Commands of at most `max` arguments, the name included.
    #[must_use]
    pub const fn args_max(mut self, max: usize) -> Self {
        self.args_max = if max < LIMIT_MAX { max } else { LIMIT_MAX };
        self
    }

    /// Reads what is in pieces, is wrong, or is no array: whatever it is.
    #[inline(never)]
    fn any<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<Command<'a>>, FrameError> {
        let input = input.get(..self.max).unwrap_or(input);
        match input.first() {
            Some(b'*') => self.array(input),
            Some(_) => self.inline(input),
            None => Err(FrameError::TooLong { max: self.max }),
        }
    }

    /// Reads an array from `input`, which begins with `*` and is not longer than the limit.
    fn array<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<Command<'a>>, FrameError> {
        let Some((count, body)) = self.count(input)? else {
            return self.incomplete(input, 1);
        };
        if count == 0 {
            return Ok(Decoded::Skip(body));
        }
        let (known, at) = match self.left {
            0 => (0, body),
            left => (count - left, self.at),
        };
        let mut rest = input.get(at..).unwrap_or_default();
        for index in known..count {
            rest = match short::argument(rest, self.bulk_max) {
                Some((_, behind)) => behind,
                None => match self.argument(input, input.len() - rest.len(), count - index)? {
                    Argument::Complete(behind) => behind,
                    Argument::Incomplete { need } => {
                        (self.at, self.left) = (input.len() - rest.len(), count - index);
                        return self.incomplete(input, need);
                    }
                },
            };
        }
        let consumed = input.len() - rest.len();
        (self.at, self.left) = (0, 0);
        let frame = Command::of(count, Source::Bulks(Bulks(input.get(body..).unwrap_or_default())));
        Ok(Decoded::Frame { frame, consumed })
    }

    /// How many arguments an array says it has, and where the first one begins.
    #[inline]
    fn count(&self, input: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        if let Some(b'-') = input.get(1) {
            return self.negative_count(input);
        }
        match number(input, 1, self.args_max) {
            Number::Is(count, body) if body + count * ARGUMENT_MIN > self.max => {
                Err(FrameError::TooLong { max: self.max })
            }
            Number::Is(count, body) => Ok(Some((count, body))),
            Number::Incomplete => Ok(None),
            Number::TooBig => Err(malformed(1, TOO_MANY)),
            Number::Malformed(offset) => Err(malformed(offset, "a multibulk length")),
        }
    }

    /// An array of −1 elements is how RESP2 writes "no array": it counts as empty.
    #[cold]
    fn negative_count(&self, input: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        match number(input, 2, self.args_max) {
            Number::Is(0, _) => Err(malformed(2, "a multibulk length")),
            Number::Is(_, body) => Ok(Some((0, body))),
            Number::Incomplete => Ok(None),
            Number::TooBig => Err(malformed(1, TOO_MANY)),
            Number::Malformed(offset) => Err(malformed(offset, "a multibulk length")),
        }
    }

    /// Reads the argument at `at`, the first one of `left`: a long one, or what is wrong with it.
    ///
    /// What the arguments before it have left no room for is judged here, before anything else. Of
    /// those that are complete it need not be asked: each takes what the ones behind it would lack.
    #[inline(never)]
    fn argument<'a>(
        &self,
        input: &'a [u8],
        at: usize,
        left: usize,
    ) -> Result<Argument<'a>, FrameError> {
        let room = |least| match least {
            _ if least > self.max => Err(FrameError::TooLong { max: self.max }),
            _ => Ok(()),
        };
        room(at + left * ARGUMENT_MIN)?;
        match input.get(at) {
            Some(b'$') => {}
            Some(_) => return Err(malformed(at, "'$'")),
            None => return Ok(Argument::Incomplete { need: left * ARGUMENT_MIN }),
        }
        let (length, start) = match number(input, at + 1, self.bulk_max) {
            Number::Is(length, start) => (length, start),
            Number::Incomplete => return Ok(Argument::Incomplete { need: 1 }),
            Number::TooBig => return Err(FrameError::TooLong { max: self.bulk_max }),
            Number::Malformed(offset) => return Err(malformed(offset, "a bulk length")),
        };
        let end = start + length;
        let least = end + 2 + (left - 1) * ARGUMENT_MIN;
        room(least)?;
        match *input.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ref behind @ ..] => Ok(Argument::Complete(behind)),
            [] | [b'\r'] => Ok(Argument::Incomplete { need: least - input.len() }),
            [b'\r', ..] => Err(malformed(end + 1, "a line feed")),
            _ => Err(malformed(end, "a carriage return")),
        }
    }

    /// Reads a line from `input`, which is not longer than the limit for arrays.
    fn inline<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<Command<'a>>, FrameError> {
        let max = self.max.min(INLINE_MAX);
        let input = input.get(..max).unwrap_or(input);
        let unscanned = input.get(self.at..).unwrap_or_default();
        let Some(found) = memchr(b'\n', unscanned) else {
            if input.len() == max {
                return Err(FrameError::TooLong { max });
            }
            self.at = input.len();
            return Ok(Decoded::Incomplete { need: 1 });
        };
        let end = self.at + found;
        self.at = 0;
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(command) = inline::command(line) else {
            return Err(malformed(end, "balanced quotes"));
        };
        match command.len() {
            0 => Ok(Decoded::Skip(end + 1)),
            len if len > self.args_max => Err(malformed(0, TOO_MANY)),
            _ => Ok(Decoded::Frame { frame: command, consumed: end + 1 }),
        }
    }

    /// More bytes are needed. If the limit leaves no room for any, the command is too long.
    const fn incomplete<'a>(
        &self,
        input: &[u8],
        need: usize,
    ) -> Result<Decoded<Command<'a>>, FrameError> {
        if input.len() >= self.max {
            return Err(FrameError::TooLong { max: self.max });
        }
        Ok(Decoded::Incomplete { need })
    }
}

impl Default for Resp {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Resp {
    type Frame<'a> = Command<'a>;

    #[inline]
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<Command<'a>>, FrameError> {
        if self.left == 0
            && let Some((frame, behind)) = short::command(input, self.args_max, self.bulk_max)
        {
            let consumed = input.len() - behind.len();
            if consumed <= self.max {
                return Ok(Decoded::Frame { frame, consumed });
            }
        }
        self.any(input)
    }
}

/// One argument of an array, as far as it has arrived.
enum Argument<'a> {
    /// What is behind it.
    Complete(&'a [u8]),
    Incomplete {
        need: usize,
    },
}

/// What stands where a number should.
enum Number {
    /// The number, and the offset behind its line ending.
    Is(usize, usize),
    Incomplete,
    TooBig,
    /// The byte at this offset does not belong there.
    Malformed(usize),
}

/// Reads a decimal number of at most `max`, and the `\r\n` behind it: no sign, no leading zero.
#[inline]
fn number(input: &[u8], start: usize, max: usize) -> Number {
    match *input.get(start..).unwrap_or_default() {
        [digit @ b'1'..=b'9', b'\r', b'\n', ..] if usize::from(digit - b'0') <= max => {
            Number::Is(usize::from(digit - b'0'), start + 3)
        }
        _ => any_number(input, start, max),
    }
}

#[inline(never)]
fn any_number(input: &[u8], start: usize, max: usize) -> Number {
    let mut value = 0;
    for (at, &byte) in input.iter().enumerate().skip(start) {
        let digit = usize::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return match input.get(at + 1) {
                _ if byte != b'\r' || at == start => Number::Malformed(at),
                Some(b'\n') => Number::Is(value, at + 2),
                Some(_) => Number::Malformed(at + 1),
                None => Number::Incomplete,
            };
        }
        if value == 0 && at > start {
            return Number::Malformed(at);
        }
        value = value * 10 + digit;
        if value > max {
            return Number::TooBig;
        }
    }
    Number::Incomplete
}

const TOO_MANY: &str = "a number of arguments within the limit";

const fn malformed(offset: usize, expected: &'static str) -> FrameError {
    FrameError::Malformed { offset, expected }
}

#[cfg(test)]
mod tests;
