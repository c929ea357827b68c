//! Frames that end at a line feed.
//!
//! ```text
//!  GET key\r\nPUT …
//!  └──┬──┘             payload; the \r belongs to it too, unless `crlf` is asked for
//!  └─────┬────┘        consumed
//! ```
//!
//! A payload is bytes: no encoding is assumed, and a NUL or a carriage return inside a line is
//! data.
//!
//! Invariants:
//!
//! - `scanned` bytes of the frame in progress are known to hold no line feed. They are not looked
//!   at again, so a line costs O(n) in however many pieces it arrives.
//! - What is said about a frame depends on its first bytes only, never on how many more are there.
//!   The limit is therefore applied before the ending is judged.

use super::{Codec, DEFAULT_FRAME_MAX, Decoded, Encode, EncodeError, FrameError, scan};

/// A reply of so many bytes is worth some care about the memory it takes.
const LARGE: usize = 4096;

/// Lines: every frame ends at a line feed.
///
/// | | ends a frame | appended to a reply |
/// |---|---|---|
/// | [`Lines::new`] | `\n`; a `\r` before it is data | `\n` |
/// | [`crlf`](Self::crlf) | `\n` or `\r\n` | `\r\n` |
/// | [`strict_crlf`](Self::strict_crlf) | `\r\n`; a `\n` without `\r` is an error | `\r\n` |
///
/// A frame is the line without its ending, and may be empty. A last line without an ending is
/// [`FrameError::Truncated`], unless [`accept_unterminated`](Self::accept_unterminated) says that
/// it is a frame.
///
/// A reply is not searched for line feeds: with several of them, it is several lines to the peer.
/// A handler that passes on what others wrote has to see to that itself.
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Lines};
///
/// let mut lines = Lines::new().crlf();
/// assert_eq!(lines.decode(b"PI"), Ok(Decoded::Incomplete { need: 1 }));
/// assert_eq!(
///     lines.decode(b"PING\r\nPI"),
///     Ok(Decoded::Frame { frame: b"PING".as_slice(), consumed: 6 }),
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    /// The most bytes of payload.
    max: usize,
    /// How many bytes of the frame in progress are known to hold no line feed.
    scanned: usize,
    ending: Ending,
    /// The end of the stream ends a line, too.
    takes_last: bool,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Lf,
    LfOrCrlf,
    Crlf,
}

impl Lines {
    /// Lines that end with `\n` and have at most [`DEFAULT_FRAME_MAX`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max(DEFAULT_FRAME_MAX)
    }

    /// Lines that end with `\n` and have at most `max` bytes, the ending not counted.
    ///
    /// One byte more, and the frame is [`FrameError::TooLong`], whether its ending is in sight or
    /// not. With a `max` of 0 only empty lines pass. Replies are not limited.
    #[must_use]
    pub const fn with_max(max: usize) -> Self {
        Self { max, scanned: 0, ending: Ending::Lf, takes_last: false }
    }

    /// Takes one carriage return before the line feed for part of the ending, and ends replies
    /// with `\r\n`.
    ///
    /// For protocols that say `\r\n` and peers that may not: a person at `nc`, for one.
    #[must_use]
    pub const fn crlf(mut self) -> Self {
        self.ending = Ending::LfOrCrlf;
        self
    }

    /// As [`crlf`](Self::crlf), but a line feed without a carriage return before it is
    /// [`FrameError::Malformed`].
    ///
    /// Where a proxy and a server do not agree on what ends a line, a request can be smuggled past
    /// the one to the other. A carriage return *without a line feed* is data here too.
    #[must_use]
    pub const fn strict_crlf(mut self) -> Self {
        self.ending = Ending::Crlf;
        self
    }

    /// Takes a last line without an ending for a frame, once the peer has finished sending: what
    /// `printf x | nc -N` sends. Without this it is [`FrameError::Truncated`].
    ///
    /// The limit counts as for any line. A carriage return at its end is half an ending with
    /// [`crlf`](Self::crlf) and [`strict_crlf`](Self::strict_crlf), and not part of the frame; with
    /// both of them the line needs no carriage return. The end of a stream does not tell whether
    /// the peer had more to say: a client that was killed in the middle of a line looks the same.
    /// A connection that breaks, or that the server cuts while it drains, has no such line.
    #[must_use]
    pub const fn accept_unterminated(mut self) -> Self {
        self.takes_last = true;
        self
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Lines {
    type Frame<'a> = &'a [u8];

    #[inline(always)]
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let (_, unscanned) = input.split_at(self.scanned.min(input.len()));
        let Some(at) = scan::first::<b'\n'>(unscanned) else {
            return self.incomplete(input).map(|()| Decoded::Incomplete { need: 1 });
        };
        let end = self.scanned + at;
        self.scanned = 0;
        let (mut line, _) = input.split_at(end.min(input.len()));
        if self.ending != Ending::Lf || end > self.max {
            line = self.judge(line)?;
        }
        Ok(Decoded::Frame { frame: line, consumed: end + 1 })
    }

    fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        let line = self.payload(tail);
        match self.takes_last {
            false => Err(FrameError::Truncated { have: tail.len() }),
            true if line.len() > self.max => Err(FrameError::TooLong { max: self.max }),
            true => Ok(Some(line)),
        }
    }
}

impl Lines {
    /// The payload of a line whose end is in sight.
    #[inline(never)]
    fn judge<'a>(&self, line: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let payload = self.payload(line);
        if payload.len() > self.max {
            return Err(FrameError::TooLong { max: self.max });
        }
        if self.ending == Ending::Crlf && payload.len() == line.len() {
            return Err(FrameError::Malformed {
                offset: line.len(),
                expected: "a carriage return",
            });
        }
        Ok(payload)
    }

    /// A line without what may belong to its ending.
    #[inline]
    fn payload<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        match self.ending {
            Ending::Lf => line,
            Ending::LfOrCrlf | Ending::Crlf => line.strip_suffix(b"\r").unwrap_or(line),
        }
    }

    /// The line feed is yet to come, and the last carriage return may belong to it.
    #[cold]
    fn incomplete(&mut self, input: &[u8]) -> Result<(), FrameError> {
        if self.payload(input).len() > self.max {
            return Err(FrameError::TooLong { max: self.max });
        }
        self.scanned = input.len();
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<R: AsRef<[u8]>> Encode<R> for Lines {
    #[inline(always)]
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let reply = reply.as_ref();
        if reply.len() >= LARGE {
            // Once for both: the ending must not double the memory of a large reply.
            out.reserve(reply.len() + 2);
        }
        out.extend_from_slice(reply);
        match self.ending {
            Ending::Lf => out.push(b'\n'),
            Ending::LfOrCrlf | Ending::Crlf => out.extend_from_slice(b"\r\n"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{Encode, FrameError, Lines};
    use crate::codec::check;

    /// A stream, and what must come of it however its bytes are cut up on the way.
    struct Case {
        name: &'static str,
        lines: Lines,
        stream: &'static [u8],
        frames: &'static [&'static [u8]],
        end: Result<(), FrameError>,
    }

    const LF: Lines = Lines::with_max(3);
    const CRLF: Lines = Lines::with_max(3).crlf();
    const STRICT: Lines = Lines::with_max(3).strict_crlf();
    const LF_LAST: Lines = LF.accept_unterminated();
    const CRLF_LAST: Lines = CRLF.accept_unterminated();
    const STRICT_LAST: Lines = STRICT.accept_unterminated();

    const TOO_LONG: Result<(), FrameError> = Err(FrameError::TooLong { max: 3 });

    const fn truncated(have: usize) -> Result<(), FrameError> {
        Err(FrameError::Truncated { have })
    }

    const fn bare(offset: usize) -> Result<(), FrameError> {
        Err(FrameError::Malformed { offset, expected: "a carriage return" })
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { name: "nothing", lines: LF, stream: b"", frames: &[], end: Ok(()) },
        Case { name: "lines", lines: LF, stream: b"a\nbc\n", frames: &[b"a", b"bc"], end: Ok(()) },
        Case { name: "empty lines", lines: LF, stream: b"\n\na\n", frames: &[b"", b"", b"a"], end: Ok(()) },
        Case { name: "any byte", lines: LF, stream: b"\0\xff\r\n", frames: &[b"\0\xff\r"], end: Ok(()) },
        Case { name: "cut off", lines: LF, stream: b"a\nbc", frames: &[b"a"], end: truncated(2) },
        Case { name: "longest", lines: LF, stream: b"abc\nabc\n", frames: &[b"abc", b"abc"], end: Ok(()) },
        Case { name: "longest, cut off", lines: LF, stream: b"abc", frames: &[], end: truncated(3) },
        Case { name: "too long", lines: LF, stream: b"a\nabcd\nb\n", frames: &[b"a"], end: TOO_LONG },
        Case { name: "too long, cut off", lines: LF, stream: b"abcd", frames: &[], end: TOO_LONG },
        Case { name: "a return counts", lines: LF, stream: b"abc\r\n", frames: &[], end: TOO_LONG },
        Case { name: "only empty lines", lines: Lines::with_max(0), stream: b"\n\nx", frames: &[b"", b""], end: Err(FrameError::TooLong { max: 0 }) },
        Case { name: "no limit", lines: Lines::with_max(usize::MAX).crlf(), stream: b"abcd\r\n", frames: &[b"abcd"], end: Ok(()) },

        Case { name: "both endings", lines: CRLF, stream: b"a\nb\r\n", frames: &[b"a", b"b"], end: Ok(()) },
        Case { name: "empty lines", lines: CRLF, stream: b"\r\n\n", frames: &[b"", b""], end: Ok(()) },
        Case { name: "one return is stripped", lines: CRLF, stream: b"a\r\r\n", frames: &[b"a\r"], end: Ok(()) },
        Case { name: "lone return is data", lines: CRLF, stream: b"a\rb\n", frames: &[b"a\rb"], end: Ok(()) },
        Case { name: "return first", lines: CRLF, stream: b"\ra\n", frames: &[b"\ra"], end: Ok(()) },
        Case { name: "cut off in the ending", lines: CRLF, stream: b"a\r", frames: &[], end: truncated(2) },
        Case { name: "longest", lines: CRLF, stream: b"abc\r\nabc\n", frames: &[b"abc", b"abc"], end: Ok(()) },
        Case { name: "longest, with a return", lines: CRLF, stream: b"ab\r\r\n", frames: &[b"ab\r"], end: Ok(()) },
        Case { name: "longest, cut off", lines: CRLF, stream: b"abc\r", frames: &[], end: truncated(4) },
        Case { name: "too long", lines: CRLF, stream: b"abcd\r\n", frames: &[], end: TOO_LONG },
        Case { name: "too long, bare", lines: CRLF, stream: b"abcd\n", frames: &[], end: TOO_LONG },
        Case { name: "too long, by a return", lines: CRLF, stream: b"abc\r\r\n", frames: &[], end: TOO_LONG },
        Case { name: "too long, return is data", lines: CRLF, stream: b"abc\rd\n", frames: &[], end: TOO_LONG },
        Case { name: "too long, cut off", lines: CRLF, stream: b"abcd", frames: &[], end: TOO_LONG },

        Case { name: "lines", lines: STRICT, stream: b"a\r\n\r\n", frames: &[b"a", b""], end: Ok(()) },
        Case { name: "bare line feed", lines: STRICT, stream: b"a\r\nbc\nd\r\n", frames: &[b"a"], end: bare(2) },
        Case { name: "bare line feed first", lines: STRICT, stream: b"\n", frames: &[], end: bare(0) },
        Case { name: "bare line feed after the longest", lines: STRICT, stream: b"abc\n", frames: &[], end: bare(3) },
        Case { name: "return and line feed apart", lines: STRICT, stream: b"\ra\n", frames: &[], end: bare(2) },
        Case { name: "lone return is data", lines: STRICT, stream: b"a\rb\r\n", frames: &[b"a\rb"], end: Ok(()) },
        Case { name: "longest", lines: STRICT, stream: b"abc\r\n", frames: &[b"abc"], end: Ok(()) },
        Case { name: "too long before it is malformed", lines: STRICT, stream: b"abcd\n", frames: &[], end: TOO_LONG },

        Case { name: "last line", lines: LF_LAST, stream: b"a\nbc", frames: &[b"a", b"bc"], end: Ok(()) },
        Case { name: "no empty last line", lines: LF_LAST, stream: b"a\n", frames: &[b"a"], end: Ok(()) },
        Case { name: "nothing at all", lines: LF_LAST, stream: b"", frames: &[], end: Ok(()) },
        Case { name: "longest last line", lines: LF_LAST, stream: b"abc", frames: &[b"abc"], end: Ok(()) },
        Case { name: "too long a last line", lines: LF_LAST, stream: b"a\nabcd", frames: &[b"a"], end: TOO_LONG },
        Case { name: "last return is data", lines: LF_LAST, stream: b"a\r", frames: &[b"a\r"], end: Ok(()) },
        Case { name: "last return counts", lines: LF_LAST, stream: b"abc\r", frames: &[], end: TOO_LONG },
        Case { name: "last line", lines: CRLF_LAST, stream: b"a\r\nbc", frames: &[b"a", b"bc"], end: Ok(()) },
        Case { name: "last line in its ending", lines: CRLF_LAST, stream: b"abc\r", frames: &[b"abc"], end: Ok(()) },
        Case { name: "half an ending", lines: CRLF_LAST, stream: b"\r", frames: &[b""], end: Ok(()) },
        Case { name: "one return is half an ending", lines: CRLF_LAST, stream: b"a\r\r", frames: &[b"a\r"], end: Ok(()) },
        Case { name: "too long, by a return", lines: CRLF_LAST, stream: b"abc\r\r", frames: &[], end: TOO_LONG },
        Case { name: "last line", lines: STRICT_LAST, stream: b"a\r\nbc", frames: &[b"a", b"bc"], end: Ok(()) },
        Case { name: "last line in its ending", lines: STRICT_LAST, stream: b"abc\r", frames: &[b"abc"], end: Ok(()) },
        Case { name: "bare line feed before it", lines: STRICT_LAST, stream: b"a\nb", frames: &[], end: bare(1) },
    ];

    #[test]
    fn frames_do_not_depend_on_how_bytes_arrive() {
        for Case { name, lines, stream, frames, end } in CASES {
            let seen = check::cuts(lines, stream, <[u8]>::to_vec);
            assert_eq!(seen.0, *frames, "{name}: {lines:?}");
            assert_eq!(seen.1, *end, "{name}: {lines:?}");
        }
    }

    #[test]
    fn a_tail_that_no_decode_has_seen_is_bounded_too() {
        use crate::codec::Codec;
        assert_eq!(LF_LAST.clone().decode_end(b"abcd"), Err(FrameError::TooLong { max: 3 }));
    }

    #[test]
    fn a_line_that_never_ends_is_refused_before_it_is_kept() {
        for (lines, max) in [(LF, 3), (CRLF, 4), (STRICT, 4), (LF_LAST, 3), (CRLF_LAST, 4)] {
            check::bound(&lines, b"x", max);
            check::bound(&lines, b"\r", max);
        }
    }

    #[test]
    fn a_line_is_searched_once_in_however_many_pieces_it_arrives() {
        let line = [b"x".repeat(5000).as_slice(), b"\r\n"].concat();
        for lines in [Lines::new(), Lines::new().crlf(), Lines::new().strict_crlf()] {
            check::cost(&lines, &line);
        }
    }

    #[test]
    fn a_connection_pays_little_for_its_codec() {
        assert!(size_of::<Lines>() <= 24);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            payloads in vec(vec(prop_oneof![Just(b'\r'), any::<u8>()], 0..12), 0..6),
            mode in 0..3,
        ) {
            let mut lines = match mode {
                0 => Lines::with_max(12),
                1 => Lines::with_max(12).crlf(),
                _ => Lines::with_max(12).strict_crlf(),
            };
            let payloads: Vec<Vec<u8>> = payloads
                .into_iter()
                .map(|payload| payload.into_iter().filter(|&byte| byte != b'\n').collect())
                .collect();
            let mut stream = Vec::new();
            for payload in &payloads {
                lines.encode(payload, &mut stream).unwrap();
            }
            let (frames, end) = check::cuts(&lines, &stream, <[u8]>::to_vec);
            prop_assert_eq!(frames, payloads);
            prop_assert_eq!(end, Ok(()));
        }
    }
}
