//! No framing: whatever has arrived is a frame.
//!
//! ```text
//!  bytes received together ──▶ one frame, or several of at most `max` bytes
//! ```
//!
//! The one codec whose frames depend on how the bytes were cut up on the way. What does not depend
//! on it is their concatenation: every byte is in one frame, in order, at once. Nothing is ever
//! incomplete, so nothing is kept.

use super::{Codec, DEFAULT_FRAME_MAX, Decoded, Encode, EncodeError, FrameError};

/// No framing: every batch of received bytes is a frame, and replies are sent as they are.
///
/// For handlers that relay, count or echo bytes, and for those that do their own framing. Where a
/// frame ends says nothing about the peer: it may have sent the same bytes in any other way.
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Raw};
///
/// let mut raw = Raw::with_max(4);
/// assert_eq!(
///     raw.decode(b"abcdef"),
///     Ok(Decoded::Frame { frame: b"abcd".as_slice(), consumed: 4 }),
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Raw {
    /// The most bytes of one frame, at least 1.
    max: usize,
}

impl Raw {
    /// Frames of at most [`DEFAULT_FRAME_MAX`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max(DEFAULT_FRAME_MAX)
    }

    /// Frames of at most `max` bytes; 0 is taken for 1.
    ///
    /// If more bytes have arrived together, they become several frames. Replies are not limited.
    #[must_use]
    pub const fn with_max(max: usize) -> Self {
        Self { max: if max == 0 { 1 } else { max } }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Raw {
    type Frame<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let frame = input.get(..self.max).unwrap_or(input);
        Ok(Decoded::Frame { frame, consumed: frame.len() })
    }
}

#[diagnostic::do_not_recommend]
impl<R: AsRef<[u8]>> Encode<R> for Raw {
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(reply.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{Codec, Decoded, Encode, Raw};
    use crate::codec::check;

    /// What arrived together, and the frames that must come of it.
    struct Case {
        name: &'static str,
        raw: Raw,
        batch: &'static [u8],
        frames: &'static [&'static [u8]],
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { name: "a batch is a frame", raw: Raw::new(), batch: b"a\nb\0", frames: &[b"a\nb\0"] },
        Case { name: "exactly the limit", raw: Raw::with_max(4), batch: b"abcd", frames: &[b"abcd"] },
        Case { name: "more than the limit", raw: Raw::with_max(4), batch: b"abcdefghi", frames: &[b"abcd", b"efgh", b"i"] },
        Case { name: "no limit below one byte", raw: Raw::with_max(0), batch: b"abc", frames: &[b"a", b"b", b"c"] },
    ];

    /// Every frame of a batch, in order.
    fn frames(mut raw: Raw, mut batch: &[u8]) -> Vec<&[u8]> {
        let mut frames = Vec::new();
        while !batch.is_empty() {
            let Ok(Decoded::Frame { frame, consumed }) = raw.decode(batch) else {
                panic!("raw bytes are frames")
            };
            assert!(consumed > 0, "{raw:?} makes no progress");
            frames.push(frame);
            batch = batch.split_at(consumed).1;
        }
        frames
    }

    #[test]
    fn a_batch_is_a_frame_up_to_the_limit() {
        for Case { name, raw, batch, frames: expected } in CASES {
            assert_eq!(frames(raw.clone(), batch), *expected, "{name}");
        }
    }

    #[test]
    fn single_bytes_do_not_depend_on_how_they_arrive() {
        let (frames, end) = check::cuts(&Raw::with_max(1), b"a\nb\0\r\n", <[u8]>::to_vec);
        assert_eq!(frames.concat(), b"a\nb\0\r\n");
        assert_eq!(end, Ok(()));
    }

    #[test]
    fn nothing_is_kept() {
        check::bound(&Raw::new(), b"x", 0);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(replies in vec(vec(any::<u8>(), 0..12), 0..6), max in 0..9usize) {
            let mut stream = Vec::new();
            for reply in &replies {
                Raw::new().encode(reply, &mut stream).unwrap();
            }
            let frames = frames(Raw::with_max(max), &stream);
            prop_assert_eq!(frames.concat(), replies.concat());
            prop_assert!(frames.iter().all(|frame| frame.len() <= max.max(1)));
        }
    }
}
