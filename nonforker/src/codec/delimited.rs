//! Frames that end with a delimiter of one's own: a NUL, a blank line, a marker.
//!
//! ```text
//!  delimiter "aab":  … x a a a b y …     a frame ends at the first match
//!                          └─┬─┘
//!  so far:           … x a a             not done with: these may begin a delimiter
//!                        └┬┘
//! ```
//!
//! Invariants:
//!
//! - No delimiter begins in the first `scanned` bytes of the frame in progress. They are not
//!   searched again, so a frame costs O(n), and at most one delimiter's length more for each
//!   piece in which it arrives.
//! - The delimiter and its search tables exist once, however many connections there are.

use std::sync::Arc;

use memchr::memmem::Finder;
use thiserror::Error;

use super::{Codec, DEFAULT_FRAME_MAX, Decoded, Encode, EncodeError, FrameError};

/// Frames that end with a delimiter: any byte string that is not empty.
///
/// A frame is what is before the delimiter, and may be empty. It ends at the first place where the
/// delimiter can be found. A last frame without a delimiter is [`FrameError::Truncated`].
///
/// A reply is not searched for the delimiter: with delimiters in it, it is several frames to the
/// peer.
///
/// The search takes linear time, whatever the peer sends. For `\n` and `\r\n` there is
/// [`Lines`](super::Lines).
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Delimited};
///
/// # fn main() -> Result<(), nonforker::codec::EmptyDelimiter> {
/// let mut records = Delimited::new("\n--\n")?;
/// assert_eq!(records.decode(b"two\nlines\n-"), Ok(Decoded::Incomplete { need: 1 }));
/// assert_eq!(
///     records.decode(b"two\nlines\n--\n"),
///     Ok(Decoded::Frame { frame: b"two\nlines".as_slice(), consumed: 13 }),
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Arc<Finder<'static>>,
    /// The most bytes of payload.
    max: usize,
    /// No delimiter begins in this many bytes of the frame in progress.
    scanned: usize,
}

/// A delimiter has no bytes, so that it separates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the delimiter is empty")]
#[non_exhaustive]
pub struct EmptyDelimiter;

impl Delimited {
    /// Frames that end with `delimiter` and have at most [`DEFAULT_FRAME_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`EmptyDelimiter`] if there is nothing to look for.
    pub fn new(delimiter: impl AsRef<[u8]>) -> Result<Self, EmptyDelimiter> {
        Self::with_max(delimiter, DEFAULT_FRAME_MAX)
    }

    /// Frames that end with `delimiter` and have at most `max` bytes, the delimiter not counted.
    ///
    /// A frame is [`FrameError::TooLong`] once `max` bytes and a delimiter's length have arrived
    /// without one. With a `max` of 0 only empty frames pass. Replies are not limited.
    ///
    /// # Errors
    ///
    /// [`EmptyDelimiter`] if there is nothing to look for.
    pub fn with_max(delimiter: impl AsRef<[u8]>, max: usize) -> Result<Self, EmptyDelimiter> {
        let delimiter = delimiter.as_ref();
        if delimiter.is_empty() {
            return Err(EmptyDelimiter);
        }
        let delimiter = Arc::new(Finder::new(delimiter).into_owned());
        Ok(Self { delimiter, max, scanned: 0 })
    }
}

impl Codec for Delimited {
    type Frame<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let delimiter = self.delimiter.needle();
        let unscanned = input.get(self.scanned..).unwrap_or_default();
        let found = self.delimiter.find(unscanned).map(|at| self.scanned + at);

        // If not here, the frame ends further on; the last bytes may be half a delimiter.
        let end = found.unwrap_or_else(|| (input.len() + 1).saturating_sub(delimiter.len()));
        if end > self.max {
            return Err(FrameError::TooLong { max: self.max });
        }
        let Some(frame) = found.and_then(|end| input.get(..end)) else {
            self.scanned = end;
            return Ok(Decoded::Incomplete { need: 1 });
        };
        self.scanned = 0;
        Ok(Decoded::Frame { frame, consumed: frame.len() + delimiter.len() })
    }
}

#[diagnostic::do_not_recommend]
impl<R: AsRef<[u8]>> Encode<R> for Delimited {
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (reply, delimiter) = (reply.as_ref(), self.delimiter.needle());
        // Once for both: the delimiter must not double the memory of a large reply.
        out.reserve(reply.len() + delimiter.len());
        out.extend_from_slice(reply);
        out.extend_from_slice(delimiter);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use memchr::memmem;
    use proptest::{collection::vec, prelude::*};

    use super::{Delimited, EmptyDelimiter, Encode, FrameError};
    use crate::codec::check;

    const MAX: usize = 4;

    /// A stream, and what must come of it however its bytes are cut up on the way.
    struct Case {
        name: &'static str,
        delimiter: &'static str,
        stream: &'static [u8],
        frames: &'static [&'static [u8]],
        end: Result<(), FrameError>,
    }

    const TOO_LONG: Result<(), FrameError> = Err(FrameError::TooLong { max: MAX });

    const fn truncated(have: usize) -> Result<(), FrameError> {
        Err(FrameError::Truncated { have })
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { name: "nothing", delimiter: "\0", stream: b"", frames: &[], end: Ok(()) },
        Case { name: "one byte", delimiter: "\0", stream: b"a\0\0\nb\0", frames: &[b"a", b"", b"\nb"], end: Ok(()) },
        Case { name: "cut off", delimiter: "\0", stream: b"a\0b", frames: &[b"a"], end: truncated(1) },
        Case { name: "longest", delimiter: "\0", stream: b"abcd\0efgh\0", frames: &[b"abcd", b"efgh"], end: Ok(()) },
        Case { name: "too long", delimiter: "\0", stream: b"a\0abcde\0", frames: &[b"a"], end: TOO_LONG },
        Case { name: "too long, cut off", delimiter: "\0", stream: b"abcde", frames: &[], end: TOO_LONG },

        Case { name: "two bytes", delimiter: "\r\n", stream: b"a\r\n\r\nb\n\rc\r\n", frames: &[b"a", b"", b"b\n\rc"], end: Ok(()) },
        Case { name: "cut off in the delimiter", delimiter: "\r\n", stream: b"a\r", frames: &[], end: truncated(2) },
        Case { name: "longest", delimiter: "\r\n", stream: b"abcd\r\n", frames: &[b"abcd"], end: Ok(()) },
        Case { name: "longest, cut off", delimiter: "\r\n", stream: b"abcd\r", frames: &[], end: truncated(5) },
        Case { name: "too long", delimiter: "\r\n", stream: b"abcde\r\n", frames: &[], end: TOO_LONG },
        Case { name: "too long, by half a delimiter", delimiter: "\r\n", stream: b"abcd\r\r\n", frames: &[], end: TOO_LONG },

        Case { name: "begins like itself", delimiter: "aab", stream: b"aaabaab", frames: &[b"a", b""], end: Ok(()) },
        Case { name: "overlaps itself", delimiter: "aba", stream: b"xababa", frames: &[b"x"], end: truncated(2) },
        Case { name: "one byte again and again", delimiter: "aa", stream: b"aaaaa", frames: &[b"", b""], end: truncated(1) },
        Case { name: "almost", delimiter: "aab", stream: b"aaaaaab", frames: &[b"aaaa"], end: Ok(()) },
        Case { name: "almost, too long", delimiter: "aab", stream: b"aaaaaaab", frames: &[], end: TOO_LONG },
    ];

    #[test]
    fn frames_do_not_depend_on_how_bytes_arrive() {
        for Case { name, delimiter, stream, frames, end } in CASES {
            let codec = Delimited::with_max(delimiter, MAX).unwrap();
            let seen = check::cuts(&codec, stream, <[u8]>::to_vec);
            assert_eq!(seen.0, *frames, "{name}, delimiter {delimiter:?}");
            assert_eq!(seen.1, *end, "{name}, delimiter {delimiter:?}");
        }
    }

    #[test]
    fn a_frame_that_never_ends_is_refused_before_it_is_kept() {
        for delimiter in ["b", "ab", "aaab"] {
            let codec = Delimited::with_max(delimiter, MAX).unwrap();
            check::bound(&codec, b"x", MAX + delimiter.len() - 1);
            check::bound(&codec, b"a", MAX + delimiter.len() - 1);
        }
    }

    #[test]
    fn a_frame_is_searched_once_in_however_many_pieces_it_arrives() {
        for delimiter in ["b", "ab", "xaaaaaaaab"] {
            let frame = ["a".repeat(5000).as_str(), delimiter].concat();
            check::cost(&Delimited::new(delimiter).unwrap(), frame.as_bytes());
        }
    }

    #[test]
    fn a_delimiter_has_at_least_one_byte() {
        assert_eq!(Delimited::new("").err(), Some(EmptyDelimiter));
    }

    #[test]
    fn a_connection_pays_little_for_its_codec() {
        assert!(size_of::<Delimited>() <= 24);
    }

    proptest! {
        // Two letters make delimiters that overlap themselves and payloads that almost match.
        #[test]
        fn what_is_encoded_is_decoded(
            delimiter in vec(b'a'..=b'b', 1..5),
            payloads in vec(vec(b'a'..=b'b', 0..12), 0..6),
        ) {
            let mut codec = Delimited::with_max(&delimiter, 12).unwrap();
            let mut stream = Vec::new();
            let mut sent = Vec::new();
            for payload in payloads {
                let start = stream.len();
                codec.encode(&payload, &mut stream).unwrap();
                let framed = stream.get(start..).unwrap_or_default();
                if memmem::find(framed, &delimiter) == Some(payload.len()) {
                    sent.push(payload);
                } else {
                    stream.truncate(start);
                }
            }
            let (frames, end) = check::cuts(&codec, &stream, <[u8]>::to_vec);
            prop_assert_eq!(frames, sent);
            prop_assert_eq!(end, Ok(()));
        }
    }
}
