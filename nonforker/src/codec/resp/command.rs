//! One Redis command: a name and its arguments, borrowed from the bytes that arrived.
//!
//! ```text
//!  *4\r\n $3\r\nSET\r\n $3\r\nkey\r\n $5\r\nvalue\r\n $2\r\nNX\r\n
//!               └┬┘           └┬┘  └─────────────┬───────────
//!               name         first             rest
//! ```
//!
//! Name and first argument are at hand: the name chooses the command, and most use the first argument
//! as a key. What is behind them is found again when it is asked for. To remember more of it would
//! make the command too large to be handed on in registers, and that takes longer.
//!
//! An inline command with quotes in it is the one that owns its arguments: what they mean is not
//! what arrived.

use std::{fmt, ops::Index, slice};

use super::{LIMIT_MAX, inline::Words, short};

/// A command: its name and its arguments, as bytes. There is always a name.
///
/// Indices count the name too, as in Redis: `command[0]` is the name, `command[1]` the first
/// argument. To find another one is to pass those before it, which is little for the first few; to
/// go through many of them, [`iter`](Self::iter) takes O(n).
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
    /// None if it was quoted: then `rest` has all.
    name: Option<&'a [u8]>,
    /// None if there is none, or it was quoted.
    first: Option<&'a [u8]>,
    /// How many there are, the name included.
    len: usize,
    rest: Source<'a>,
}

/// Where arguments are. There may be more than those behind them.
#[derive(Clone)]
pub(super) enum Source<'a> {
    Bulks(Bulks<'a>),
    /// In a line without quotes.
    Words(Words<'a>),
    /// Here: they were quoted.
    Unquoted(Box<[Box<[u8]>]>),
}

impl<'a> Command<'a> {
    #[inline]
    pub(super) const fn new(
        len: usize,
        name: &'a [u8],
        first: Option<&'a [u8]>,
        rest: Bulks<'a>,
    ) -> Self {
        Self { name: Some(name), first, len, rest: Source::Bulks(rest) }
    }

    /// A command of `len` arguments that have to be found.
    pub(super) fn of(len: usize, mut rest: Source<'a>) -> Self {
        let mut next = || match &mut rest {
            Source::Bulks(bulks) => bulks.next(),
            Source::Words(words) => words.next(),
            Source::Unquoted(_) => None,
        };
        let name = next();
        let first = if len > 1 { next() } else { None };
        Self { name, first, len, rest }
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

    /// Whether this is the name, in upper or lower case, as in Redis.
    #[must_use]
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        let (sent, name) = (self.name(), name.as_bytes());
        // Programs mostly send what is in the manual, and to compare that is faster.
        sent == name || (sent.len() == name.len() && in_other_case(sent, name))
    }

    /// The argument at `index`, where 0 is the name.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match (index, &self.rest) {
            (0, _) if self.name.is_some() => self.name,
            (1, _) if self.first.is_some() => self.first,
            (2.., Source::Bulks(rest)) if index < self.len => rest.clone().nth(index - 2),
            _ => self.find(index),
        }
    }

    #[cold]
    fn find(&self, index: usize) -> Option<&[u8]> {
        self.iter().nth(index)
    }

    /// All arguments, the name first.
    #[must_use]
    pub fn iter(&self) -> Args<'_> {
        let rest = match &self.rest {
            Source::Bulks(bulks) => Rest::Bulks(bulks.clone()),
            Source::Words(words) => Rest::Words(words.clone()),
            Source::Unquoted(args) => Rest::Unquoted(args.iter()),
        };
        Args { name: self.name, first: self.first, rest, left: self.len }
    }
}

/// As [`Command::get`].
///
/// # Panics
///
/// If there are fewer arguments: ask [`len`](Command::len) first.
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

#[inline(never)]
fn in_other_case(sent: &[u8], name: &[u8]) -> bool {
    sent.eq_ignore_ascii_case(name)
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
    name: Option<&'c [u8]>,
    first: Option<&'c [u8]>,
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
        if let Some(argument) = self.name.take().or_else(|| self.first.take()) {
            return Some(argument);
        }
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

/// The bulk strings at the start of these bytes, of which it is known how many they are.
#[derive(Clone)]
pub(super) struct Bulks<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Bulks<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (argument, behind) = short::argument(self.0, LIMIT_MAX)?;
        self.0 = behind;
        Some(argument)
    }
}
