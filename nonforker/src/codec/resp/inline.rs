//! Redis commands as a person types them: words in a line, some of them quoted.
//!
//! ```text
//!  SET greeting "hello\tworld" 'it\'s'        four words
//! ```
//!
//! | in a line | means |
//! |---|---|
//! | `"…"` | one word; `\n` `\r` `\t` `\b` `\a` and `\xHH` are bytes, a backslash before another byte is that byte |
//! | `'…'` | one word; `\'` is a quote |
//! | `a"b c"` | one word: quotes may begin within it |
//! | `"a"b` | refused: behind closing quotes the word ends |
//!
//! The rules are those of Redis, down to the oddities: a vertical tab separates words only before
//! a word, and a backslash outside quotes is a backslash.

use std::iter::Peekable;

use memchr::memchr2;

use super::command::{Command, Source};

/// The words of `line` as a command, which may have none; `None` if its quotes are not balanced.
pub(super) fn command(line: &[u8]) -> Option<Command<'_>> {
    if memchr2(b'"', b'\'', line).is_none() {
        let count = Words(line).count();
        return Some(Command::of(count, Source::Words(Words(line))));
    }
    let args = unquote(line)?;
    Some(Command::of(args.len(), Source::Unquoted(args)))
}

/// The words of a line that has no quotes.
#[derive(Clone)]
pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&byte| !is_space(byte))?;
        let (_, line) = self.0.split_at(start);
        let end = line.iter().position(|&byte| ends_word(byte)).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

/// What may stand before a word, and behind closing quotes.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// What ends a word without quotes.
const fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The words of a line, quotes and escapes replaced by what they mean.
fn unquote(line: &[u8]) -> Option<Box<[Box<[u8]>]>> {
    let mut bytes = line.iter().copied().peekable();
    let mut words = Vec::new();
    loop {
        while bytes.next_if(|&byte| is_space(byte)).is_some() {}
        if bytes.peek().is_none() {
            return Some(words.into());
        }
        words.push(word(&mut bytes)?.into());
    }
}

fn word(bytes: &mut Peekable<impl Iterator<Item = u8> + Clone>) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    while let Some(byte) = bytes.next_if(|&byte| !ends_word(byte)) {
        match byte {
            b'"' | b'\'' => {
                quoted(byte, bytes, &mut word)?;
                return bytes.peek().is_none_or(|&byte| is_space(byte)).then_some(word);
            }
            _ => word.push(byte),
        }
    }
    Some(word)
}

/// Takes everything up to the closing `quote`; `None` if there is none.
fn quoted(
    quote: u8,
    bytes: &mut Peekable<impl Iterator<Item = u8> + Clone>,
    word: &mut Vec<u8>,
) -> Option<()> {
    loop {
        let byte = bytes.next()?;
        if byte == quote {
            return Some(());
        }
        let meant = match (quote, byte, bytes.peek()) {
            (b'"', b'\\', Some(_)) => escaped(bytes)?,
            (b'\'', b'\\', Some(b'\'')) => bytes.next()?,
            _ => byte,
        };
        word.push(meant);
    }
}

/// What the bytes behind a backslash mean.
fn escaped(bytes: &mut Peekable<impl Iterator<Item = u8> + Clone>) -> Option<u8> {
    let escaped = match bytes.next()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        b'x' => {
            let mut ahead = bytes.clone();
            let digits = ahead.next().and_then(hex).zip(ahead.next().and_then(hex));
            digits.map_or(b'x', |(high, low)| {
                *bytes = ahead;
                high << 4 | low
            })
        }
        byte => byte,
    };
    Some(escaped)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
