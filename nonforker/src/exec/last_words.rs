//! What programs write to their standard error: lines for the log, and the last of them for an error.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most bytes of a line.
const LINE_MAX: usize = 1000;

/// The most lines of a program in a second.
const LINES_PER_SECOND: u32 = 20;

/// How many lines are kept.
const KEPT: usize = 4;

/// The last lines of one of the programs that were started alike: the one that spoke last.
#[derive(Debug, Default)]
pub(crate) struct LastWords(Mutex<(u32, VecDeque<String>)>);

impl LastWords {
    /// The process of this number says a line.
    pub(super) fn say(&self, process: u32, line: &str) {
        let (speaker, lines) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *speaker != process {
            *speaker = process;
            lines.clear();
        }
        keep(lines, line.to_owned());
    }

    pub(super) fn said(&self) -> String {
        let (_, lines) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// Splits what a program writes into lines that can be logged.
#[derive(Debug, Default)]
pub(super) struct ErrorLines {
    line: Vec<u8>,
    /// The rest of this line is left out.
    is_long: bool,
    /// The last of those that are not logged: what a program says at last may stand behind a flood.
    unsaid: VecDeque<String>,
    /// When the present second began, how many lines it had, and how many were left out in all.
    since: Option<Instant>,
    count: u32,
    left_out: u64,
}

impl ErrorLines {
    /// Calls `say` with lines: with how many were left out before it, or with None if it is not to be
    /// logged, and is only one of the last before such a line, or before the end.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        now: Instant,
        say: &mut dyn FnMut(&str, Option<u64>),
    ) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line(now, say);
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            } else {
                self.is_long = true;
            }
        }
    }

    /// All lines have ended.
    pub(super) fn end(&mut self, now: Instant, say: &mut dyn FnMut(&str, Option<u64>)) {
        self.end_line(now, say);
        self.unsaid.drain(..).for_each(|line| say(&escaped(&line), None));
    }

    fn end_line(&mut self, now: Instant, say: &mut dyn FnMut(&str, Option<u64>)) {
        if self.line.is_empty() {
            return;
        }
        if self.since.is_none_or(|since| now > since + Duration::from_secs(1)) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        let line = String::from_utf8_lossy(&self.line).into_owned()
            + if self.is_long { "…" } else { "" };
        self.line.clear();
        self.is_long = false;
        if self.count > LINES_PER_SECOND {
            self.left_out += 1;
            keep(&mut self.unsaid, line);
            return;
        }
        self.unsaid.drain(..).for_each(|line| say(&escaped(&line), None));
        say(&escaped(&line), Some(std::mem::take(&mut self.left_out)));
    }
}

/// Control characters as escapes. A quotation mark needs none.
fn escaped(line: &str) -> String {
    let text: String = line.escape_debug().collect();
    text.replace("\\\"", "\"").replace("\\'", "'")
}

/// As the last of a few.
fn keep(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ErrorLines, LastWords};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn lines_are_bounded_in_length_and_number_and_escaped() {
        let (mut lines, now) = (ErrorLines::default(), Instant::now());
        let mut logged = Vec::new();
        let mut unlogged = Vec::new();
        let mut say = |line: &str, left_out: Option<u64>| match left_out {
            Some(left_out) => logged.push((line.to_owned(), left_out)),
            None => unlogged.push(line.to_owned()),
        };
        lines.take(b"it's \"bad\"\n\x1b[2J\xff\n\nha", now, &mut say);
        lines.take(b"lf\n", now, &mut say);
        lines.take(&[b'x'; 5000], now, &mut say);
        lines.take(&b"y\n".repeat(1000), now, &mut say);
        lines.take(b"z\n", now, &mut say);
        lines.take(b"later\n", now + Duration::from_secs(2), &mut say);
        lines.take(&b"w\n".repeat(100), now + Duration::from_secs(3), &mut say);
        lines.take(b"at\x07last", now + Duration::from_secs(3), &mut say);
        lines.end(now + Duration::from_secs(3), &mut say);
        let line = |nth: usize| logged[nth].0.as_str();
        assert_eq!(line(0), "it's \"bad\"");
        assert_eq!(line(1), "\\u{1b}[2J\u{fffd}");
        assert_eq!(line(2), "half");
        assert_eq!(line(3).len(), 1000 + "…".len());
        assert_eq!(logged[20], ("later".to_owned(), 984));
        assert_eq!(logged.len(), 40, "and 19 more in that second");
        assert_eq!(unlogged, ["y", "y", "y", "z", "w", "w", "w", "at\\u{7}last"]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let words = LastWords::default();
        for line in ["1", "2", "3", "4", "5"] {
            words.say(7, line);
        }
        assert_eq!(words.said(), "2; 3; 4; 5");
        words.say(8, "another");
        assert_eq!(words.said(), "another");
    }
}
