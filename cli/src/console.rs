//! Prints to the terminal, or to whatever is in its place: closed, full, or stuck.
//!
//! `println!` panics where its reader has gone, and waits for ever where the reader does not read.
//! Here neither happens. What cannot be printed soon is not printed, unless it is the answer to a
//! question: that is printed to its end, also to a pipe that does not block.

use std::{
    env,
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use clap::builder::StyledStr;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};

use crate::ending::Ending;

/// Bytes that a pipe takes without waiting once it is writable: the least `PIPE_BUF` there is.
const PIECE: usize = 512;

/// How long to wait for a reader before giving up, in milliseconds.
const PATIENCE: u16 = 1000;

/// Prints `text`, or the part of it that is taken soon.
///
/// No lock of the standard library is held, so that a thread that is stuck in printing stops
/// nobody else.
pub(crate) fn print(to: impl AsFd, text: &str) {
    // What cannot be printed has no other place to go.
    let _ = print_within(to, text, PATIENCE.into());
}

/// Prints what was asked for to standard output: all of it, however long its reader takes.
pub(crate) fn answer(text: &StyledStr) -> Ending {
    let plain = !io::stdout().is_terminal()
        || env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty())
        || env::var_os("TERM").is_some_and(|term| term == "dumb");
    answer_text(&if plain { text.to_string() } else { text.ansi().to_string() })
}

/// As [`answer`], for a text without styles.
pub(crate) fn answer_text(text: &str) -> Ending {
    match print_within(io::stdout(), text, PollTimeout::NONE) {
        // A reader that has gone has read what it wanted.
        Ok(()) | Err(Errno::EPIPE) => Ending::Answered,
        Err(error) => Ending::Failed(format!("cannot print: {}", error.desc())),
    }
}

/// Prints `text`, and waits for its reader no longer than `patience` at a time.
fn print_within(to: impl AsFd, text: &str, patience: PollTimeout) -> nix::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let piece = rest.get(..PIECE).unwrap_or(rest);
        match when_writable(&to, patience).and_then(|()| write(&to, piece)) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if patience == PollTimeout::NONE => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn when_writable(to: &impl AsFd, patience: PollTimeout) -> nix::Result<()> {
    match poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], patience)? {
        0 => Err(Errno::EAGAIN),
        _ => Ok(()),
    }
}

/// What the log is coloured with: off, dim, italic, and the colours of the levels.
const COLOURS: [&str; 8] =
    ["\x1b[0m", "\x1b[2m", "\x1b[3m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m"];

/// `text` with its control characters written out, so that it is one line and nothing but text
/// to a terminal, wherever it came from.
///
/// What is written, `\n` or `\u009b`, is an escape in JSON, too.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            _ if character.is_control() => {
                line.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => line.push(character),
        }
    }
    line
}

/// As [`one_line`], with the line's end, and with colours where they are wanted.
///
/// `tracing-subscriber` writes out most of what is dangerous itself, but not in `%field`s.
pub(crate) fn log_line(text: &str, colours: bool) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for (nth, piece) in text.split('\x1b').enumerate() {
        let escape = if nth == 0 { "" } else { "\x1b" };
        let piece = format!("{escape}{piece}");
        let colour = COLOURS.iter().find(|&&colour| colours && piece.starts_with(colour));
        let colour = colour.copied().unwrap_or_default();
        line.push_str(colour);
        line.push_str(&one_line(piece.get(colour.len()..).unwrap_or_default()));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::{log_line, one_line};

    #[test]
    fn a_line_is_one_line_and_cannot_steer_a_terminal() {
        assert_eq!(one_line("a\nb\r\t\x1b[2J\u{9b}1m\0"), r"a\nb\r\t\u001b[2J\u009b1m\u0000");
        assert_eq!(one_line("pröst 🍺"), "pröst 🍺");
    }

    #[test]
    fn colours_are_all_that_a_log_line_does_to_a_terminal() {
        let line = "\x1b[2mnow\x1b[0m \x1b[8mhidden\x1b[2J\x1b[31mred\x1b";
        assert_eq!(
            log_line(line, true),
            "\x1b[2mnow\x1b[0m \\u001b[8mhidden\\u001b[2J\x1b[31mred\\u001b\n",
        );
        assert!(log_line(line, false).starts_with("\\u001b[2mnow\\u001b[0m"));
    }
}
