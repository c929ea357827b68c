//! One Redis command: a name and its arguments, borrowed from the bytes that arrived.
//!
//! ```text
//!  *6\r\n $3\r\nDEL\r\n $1\r\na\r\n $1\r\nb\r\n $1\r\nc\r\n $1\r\nd\r\n $1\r\ne\r\n
//!               └┬┘           │           │           │           │           │
//!  first:       [0]          [1]         [2]         [3]     found by walking through `all`
//! ```
//!
//! The commands that a server gets most of have few arguments, so those are at hand; the others
//! cost a walk over the lengths, which have been checked. An inline command with quotes in it is
//! the one that owns its arguments: what they mean is not what arrived.

use std::{fmt, ops::Index, slice};

use super::inline::Words;

/// So many arguments are to be had without a walk: `SET key value`, and one more.
pub(super) const FIRST: usize = 4;

/// A command: its name and its arguments, as bytes. There is always a name.
///
/// Indices count the name too, as in Redis: `command[0]` is the name, `command[1]` the first
/// argument. The first few cost nothing to find; to go through many of them, [`iter`](Self::iter)
/// takes O(n).
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Resp};
///
/// let mut resp = Resp::new();
/// let Ok(Decoded::Frame { frame: command, .. }) = resp.decode(b"set 'my key' 1\n") else {
///     panic!("a command")
/// };
/// match command.len() {
///     3 if command.is("SET") => assert_eq!((&command[1], &command[2]), (&b"my key"[..], &b"1"[..])),
///     _ => panic!("something else"),
/// }
/// ```
#[derive(Clone)]
pub struct Command<'a> {
    first: [&'a [u8]; FIRST],
    /// So many of `first` are arguments.
    at_hand: usize,
    len: usize,
    all: Source<'a>,
}

/// Where all the arguments are.
#[derive(Clone)]
pub(super) enum Source<'a> {
    /// In bulk strings: what is behind the count of an array.
    Bulks(&'a [u8]),
    /// In a line without quotes.
    Words(&'a [u8]),
    /// Here: they were quoted.
    Unquoted(Box<[Box<[u8]>]>),
}

impl<'a> Command<'a> {
    /// A command whose first arguments, as many as there are, are in `first`.
    #[inline]
    pub(super) fn new(len: usize, first: [&'a [u8]; FIRST], all: Source<'a>) -> Self {
        Self { first, at_hand: len.min(FIRST), len, all }
    }

    /// A command of `len` arguments which have to be found.
    pub(super) fn walk(len: usize, all: Source<'a>) -> Self {
        let mut first = [[].as_slice(); FIRST];
        match all {
            Source::Bulks(bytes) => fill(&mut first, Bulks(bytes).take(len)),
            Source::Words(line) => fill(&mut first, Words(line)),
            Source::Unquoted(_) => return Self { first, at_hand: 0, len, all },
        }
        Self::new(len, first, all)
    }

    /// How many arguments there are, the name included: at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a command is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The name, in the case in which it was sent.
    #[must_use]
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.get(0).unwrap_or_default()
    }

    /// Whether this is the name, in whatever case: Redis does not mind it.
    #[must_use]
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        let (sent, name) = (self.name(), name.as_bytes());
        // Programs mostly send what is in the manual, and to compare that is faster.
        sent == name || sent.eq_ignore_ascii_case(name)
    }

    /// The argument at `index`, where 0 is the name.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if index < self.at_hand {
            return self.first.get(index).copied();
        }
        self.iter().nth(index)
    }

    /// All arguments, the name first.
    #[must_use]
    pub fn iter(&self) -> Args<'_> {
        let rest = match &self.all {
            Source::Bulks(bytes) => Rest::Bulks(Bulks(bytes)),
            Source::Words(line) => Rest::Words(Words(line)),
            Source::Unquoted(args) => Rest::Unquoted(args.iter()),
        };
        Args { rest, left: self.len }
    }
}

/// As [`Command::get`].
///
/// # Panics
///
/// If there are not so many arguments: ask [`len`](Command::len) first.
impl Index<usize> for Command<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        let Some(argument) = self.get(index) else {
            panic_out_of_bounds(index, self.len);
        };
        argument
    }
}

#[cold]
#[expect(clippy::panic, reason = "as for any index: the handler asked for what is not there")]
fn panic_out_of_bounds(index: usize, len: usize) -> ! {
    panic!("argument {index} of a command that has {len}")
}

impl<'c> IntoIterator for &'c Command<'_> {
    type Item = &'c [u8];
    type IntoIter = Args<'c>;

    fn into_iter(self) -> Args<'c> {
        self.iter()
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|argument| argument.escape_ascii().to_string());
        f.debug_list().entries(shown).finish()
    }
}

/// The arguments of a [`Command`], the name first.
#[derive(Clone)]
pub struct Args<'c> {
    rest: Rest<'c>,
    left: usize,
}

#[derive(Clone)]
enum Rest<'c> {
    Bulks(Bulks<'c>),
    Words(Words<'c>),
    Unquoted(slice::Iter<'c, Box<[u8]>>),
}

impl<'c> Iterator for Args<'c> {
    type Item = &'c [u8];

    #[inline]
    fn next(&mut self) -> Option<&'c [u8]> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.rest {
            Rest::Bulks(bulks) => bulks.next(),
            Rest::Words(words) => words.next(),
            Rest::Unquoted(args) => args.next().map(|argument| &**argument),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Args<'_> {}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.clone().map(|argument| argument.escape_ascii().to_string());
        f.debug_list().entries(shown).finish()
    }
}

/// The bulk strings in bytes that are known to be nothing else.
#[derive(Clone)]
struct Bulks<'a>(&'a [u8]);

impl<'a> Iterator for Bulks<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // "$", digits, "\r\n", as many bytes, "\r\n".
        let digits = self.0.iter().skip(1).take_while(|byte| byte.is_ascii_digit());
        let (length, count) = digits.fold((0, 0), |(length, count), digit| {
            (length * 10 + usize::from(digit - b'0'), count + 1)
        });
        let (argument, rest) = self.0.get(1 + count + 2..)?.split_at_checked(length)?;
        self.0 = rest.get(2..)?;
        Some(argument)
    }
}

fn fill<'a>(first: &mut [&'a [u8]; FIRST], args: impl Iterator<Item = &'a [u8]>) {
    for (slot, argument) in first.iter_mut().zip(args) {
        *slot = argument;
    }
}
