//! Whether a codec keeps its promises: for tests of codecs, your own included.
//!
//! ```text
//!  a stream ──▶ cut in every way ──▶ the codec, as a connection would call it ──▶ frames, ending
//!                                                                  the same for every cut?
//! ```
//!
//! Three promises, three functions, each of which panics with what it saw if the promise is
//! broken:
//!
//! - [`cuts`]: the frames do not depend on how the bytes were cut up on their way.
//! - [`bound`]: a peer that never ends its frame is refused before much of it is kept.
//! - [`cost`]: a frame that arrives in *n* pieces costs O(n).
//!
//! All of them also hold the codec to the contract of [`Decoded`]: it consumes at least 1 byte and
//! no more than there are, and it does not ask for more bytes than its frame turns out to need.
//!
//! Nothing here is random or looks at a clock: the cuts of a long stream are drawn from fixed
//! seeds, and cost is measured by which bytes a codec looks at. What failed once fails again.

use std::{fmt::Debug, iter, mem};

use super::{Codec, Decoded, FrameError};
use crate::sim::Rng;

/// Streams up to this long, in bytes, are cut in every way there is: at most 2⁹.
const EVERY_WAY_MAX: usize = 10;

/// Streams up to this long, in bytes, are cut in two at every place, and into pieces of every
/// size. Longer ones are cut into pieces of every power of two.
const EVERY_PLACE_MAX: usize = 256;

/// So many more ways to cut are drawn for every stream that is not cut in every way.
const SEEDS: u64 = 64;

/// So many bytes at either end of what it has seen a codec may look at again: a header, or the
/// beginning of a delimiter.
const SLACK: usize = 64;

/// Splits `stream` with clones of `codec` under every cut, and asserts that always the same comes
/// of it.
///
/// Returns the frames, each as `show` showed it, and how the stream ended: with `Ok` if its last
/// byte was the last one of a frame, or if the codec accepts the unterminated tail. It is for the
/// caller to say whether these are the right ones.
///
/// Up to 10 bytes, every cut is every cut there is. Longer streams are cut in two at every place,
/// into pieces of the same size for every size, and at random with fixed seeds; above 256 bytes,
/// the places and most of the sizes are left to the seeds.
///
/// # Panics
///
/// If the frames or the ending depend on the cut, or if the codec breaks the contract of
/// [`Decoded`].
///
/// # Examples
///
/// Whether the carriage return arrives with its line feed must not matter:
///
/// ```
/// use nonforker::codec::{FrameError, Lines, check};
///
/// let (frames, end) = check::cuts(&Lines::new().crlf(), b"GET\r\nPUT\r\nDE", <[u8]>::to_vec);
/// assert_eq!(frames, [b"GET", b"PUT"]);
/// assert_eq!(end, Err(FrameError::Truncated { have: 2 }));
/// ```
///
/// Frames of any type are shown as something that owns what it shows:
///
/// ```
/// use nonforker::codec::{Lines, check};
///
/// let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
/// assert_eq!(check::cuts(&Lines::new(), b"a\n", text), (vec!["a".to_owned()], Ok(())));
/// ```
#[track_caller]
pub fn cuts<C: Codec, S: Debug + PartialEq>(
    codec: &C,
    stream: &[u8],
    show: impl Fn(C::Frame<'_>) -> S,
) -> (Vec<S>, Result<(), FrameError>) {
    let uncut = split(codec, stream, &[stream.len()], &show);
    for sizes in ways(stream.len()) {
        let seen = split(codec, stream, &sizes, &show);
        assert!(
            seen == uncut,
            "what comes of a stream depends on how it is cut\n   stream: \"{}\"\n    uncut: \
             {uncut:?}\n      cut: {seen:?}\nin pieces: {sizes:?}",
            stream.escape_ascii(),
        );
    }
    uncut
}

/// Sends `unit` again and again, and asserts that `codec` never keeps more than `max` bytes of an
/// incomplete frame, however few or many arrive at once.
///
/// `max` is the limit of the codec and whatever framing it has to keep with it. A codec passes by
/// giving frames or by refusing: this is about the memory that one peer can take.
///
/// # Panics
///
/// If more than `max` bytes are incomplete, if `unit` is empty, or if the codec breaks the contract
/// of [`Decoded`].
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Lines, check};
///
/// check::bound(&Lines::with_max(100), b"x", 100);
/// // The carriage return is kept: its line feed may follow.
/// check::bound(&Lines::with_max(100).crlf(), b"\r", 101);
/// ```
#[track_caller]
pub fn bound<C: Codec>(codec: &C, unit: &[u8], max: usize) {
    assert!(!unit.is_empty(), "without bytes there is nothing to keep");
    let flood: Vec<u8> = unit.iter().copied().cycle().take(2 * (max + unit.len())).collect();
    for size in [1, flood.len()] {
        let mut feed = Feed::new(codec);
        for piece in flood.chunks(size) {
            if feed.arrive(piece, |_| {}).is_err() {
                break;
            }
            assert!(
                feed.kept.len() <= max,
                "{} bytes are incomplete, and not refused: more than {max}; they came in pieces of \
                 {size}",
                feed.kept.len(),
            );
        }
    }
}

/// Asserts that `codec` remembers how far it has looked, so that `frame` costs the same in however
/// many pieces it arrives.
///
/// `frame` is one frame with its framing: a long one, of 260 bytes or more.
///
/// A codec that does not remember spends O(n²) on a frame that comes byte by byte, and a peer can
/// keep a server busy with very little. This is measured without a clock: `frame` is fed byte by byte,
/// and now and then the bytes in the middle, which have been seen, are changed into what
/// ended the frame. A codec that begins from the start is led to answer differently; one that
/// remembers does not notice. The first and the last 64 bytes it has seen it may look at again.
///
/// What cannot be measured this way: the cost of looking at bytes that do not influence the answer.
///
/// # Panics
///
/// If the codec looks again at bytes it has called incomplete, or if `frame` is too short for this
/// or is not one frame.
///
/// # Examples
///
/// ```
/// use nonforker::codec::{Lines, check};
///
/// let mut line = vec![b'x'; 1000];
/// line.push(b'\n');
/// check::cost(&Lines::new(), &line);
/// ```
#[track_caller]
pub fn cost<C: Codec>(codec: &C, frame: &[u8]) {
    assert!(frame.len() >= 4 * SLACK + 4, "{} bytes are too few to tell", frame.len());
    let mut codec = codec.clone();
    let fresh = codec.clone();
    for seen in 1..frame.len() {
        assert!(
            is_incomplete(&mut codec, frame.split_at(seen).0),
            "the first {seen} of {} bytes are a frame already",
            frame.len(),
        );
        if seen < 4 * SLACK || !seen.is_power_of_two() && seen + 2 != frame.len() {
            continue;
        }
        for decoy in decoys(frame, seen) {
            let is_tempting = !is_incomplete(&mut fresh.clone(), decoy.split_at(seen).0);
            assert!(
                !is_tempting || is_incomplete(&mut codec.clone(), &decoy),
                "after {seen} bytes of an incomplete frame the codec looks at them again",
            );
        }
    }
    let answer = codec.decode(frame);
    if let Ok(Decoded::Frame { consumed, .. } | Decoded::Skip(consumed)) = answer {
        counts(consumed, frame.len());
    }
    let is_incomplete = matches!(answer, Ok(Decoded::Incomplete { .. }));
    assert!(!is_incomplete, "these {} bytes are not a frame", frame.len());
}

/// Asserts that a frame took at least a byte, and no more than there are.
#[track_caller]
fn counts(consumed: usize, have: usize) {
    assert!((1..=have).contains(&consumed), "{consumed} of {have} bytes were consumed");
}

/// The first `seen` bytes of `frame` and one more, with the end of `frame` copied into their
/// middle: its last byte, its last two bytes, and so on.
fn decoys(frame: &[u8], seen: usize) -> impl Iterator<Item = Vec<u8>> {
    (1..SLACK).map(move |len| {
        let ending = frame.iter().rev().take(len).rev();
        let mut decoy = frame.split_at(seen + 1).0.to_vec();
        for (byte, end) in decoy.iter_mut().skip(seen / 2 - len / 2).zip(ending) {
            *byte = *end;
        }
        decoy
    })
}

fn is_incomplete<C: Codec>(codec: &mut C, input: &[u8]) -> bool {
    matches!(codec.decode(input), Ok(Decoded::Incomplete { .. }))
}

/// What comes of `stream` when it arrives in pieces of these sizes.
#[track_caller]
fn split<C: Codec, S>(
    codec: &C,
    stream: &[u8],
    sizes: &[usize],
    show: &impl Fn(C::Frame<'_>) -> S,
) -> (Vec<S>, Result<(), FrameError>) {
    let mut feed = Feed::new(codec);
    let mut frames = Vec::new();
    let mut rest = stream;
    for &size in sizes {
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        if let Err(error) = feed.arrive(piece, |frame| frames.push(show(frame))) {
            return (frames, Err(error));
        }
    }
    let end = feed.finish(|frame| frames.push(show(frame)));
    (frames, end)
}

/// A connection, as far as a codec can tell.
struct Feed<C> {
    codec: C,
    /// The bytes that no frame has taken yet.
    kept: Vec<u8>,
    /// How long the next frame must be, in bytes, after what the codec said it needed.
    expected_min: usize,
}

impl<C: Codec> Feed<C> {
    fn new(codec: &C) -> Self {
        Self { codec: codec.clone(), kept: Vec::new(), expected_min: 0 }
    }

    /// Passes the frames to `sink` that are complete once `piece` has arrived.
    #[track_caller]
    fn arrive(
        &mut self,
        piece: &[u8],
        mut sink: impl FnMut(C::Frame<'_>),
    ) -> Result<(), FrameError> {
        self.kept.extend_from_slice(piece);
        let mut input = self.kept.as_slice();
        while !input.is_empty() {
            let consumed = match self.codec.decode(input)? {
                Decoded::Frame { frame, consumed } => {
                    sink(frame);
                    consumed
                }
                Decoded::Skip(consumed) => consumed,
                Decoded::Incomplete { need } => {
                    assert!(need >= 1, "an incomplete frame was said to need {need} more bytes");
                    self.expected_min = input.len().saturating_add(need);
                    break;
                }
            };
            counts(consumed, input.len());
            assert!(
                consumed >= self.expected_min,
                "{consumed} bytes were enough, but the codec said it needed {}",
                self.expected_min,
            );
            self.expected_min = 0;
            input = input.split_at(consumed).1;
        }
        let consumed = self.kept.len() - input.len();
        self.kept.drain(..consumed);
        Ok(())
    }

    /// Passes the frame to `sink` that the unterminated tail may be.
    fn finish(&mut self, sink: impl FnOnce(C::Frame<'_>)) -> Result<(), FrameError> {
        if !self.kept.is_empty()
            && let Some(frame) = self.codec.decode_end(&self.kept)?
        {
            sink(frame);
        }
        Ok(())
    }
}

/// The ways to cut `len` bytes that are tried, each as the sizes of the pieces.
fn ways(len: usize) -> impl Iterator<Item = Vec<usize>> {
    let is_short = len <= EVERY_WAY_MAX;
    let masks = if is_short { 1u32 << len.saturating_sub(1) } else { 0 };
    let places = if is_short || len > EVERY_PLACE_MAX { 0 } else { len };
    let sizes = if is_short { 0 } else { len };
    let seeds = if is_short { 0 } else { SEEDS };

    let every_way = (0..masks).map(move |mask| cut(len, |at| mask >> (at - 1) & 1 == 1));
    let in_two = (1..places).map(move |place| cut(len, |at| at == place));
    let same_size = (1..sizes)
        .filter(move |size| len <= EVERY_PLACE_MAX || size.is_power_of_two())
        .map(move |size| cut(len, |at| at % size == 0));
    let at_random = (0..seeds).map(move |seed| {
        let rng = Rng::new(seed);
        // A cut every other byte, every fourth, …, down to a few in all.
        let rarity = 1 + rng.next() % u64::from(len.max(2).ilog2());
        cut(len, |_| u64::from(rng.next().trailing_zeros()) >= rarity)
    });
    every_way.chain(in_two).chain(same_size).chain(at_random)
}

/// The sizes of the pieces of `len` bytes, cut before each place that `is_cut` chooses.
fn cut(len: usize, mut is_cut: impl FnMut(usize) -> bool) -> Vec<usize> {
    let mut start = 0;
    let places = (1..len).filter(|&at| is_cut(at)).chain(iter::once(len));
    places.map(|at| at - mem::replace(&mut start, at)).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use super::{Codec, Decoded, FrameError, bound, cost, cuts, ways};

    /// Lines of at most 300 bytes, with one thing wrong.
    #[derive(Clone, Debug)]
    struct Faulty {
        fault: Fault,
        scanned: usize,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        None,
        ConsumesNothing,
        ConsumesTooMuch,
        SkipsNothing,
        SkipsTooMuch,
        NeedsNothing,
        NeedsTooMuch,
        TakesWhatThereIs,
        LimitsWhatArrives,
        KeepsItsPosition,
        NoLimit,
        LimitOnlyInTime,
        Forgets,
        AcceptsTheTail,
    }

    const MAX: usize = 300;

    impl Codec for Faulty {
        type Frame<'a> = &'a [u8];

        fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
            let fault = self.fault;
            let from = if fault == Fault::Forgets { 0 } else { self.scanned };
            let end = input.iter().skip(from).position(|&byte| byte == b'\n').map(|at| from + at);
            let Some(end) = end else {
                let too_long = match fault {
                    Fault::NoLimit => false,
                    Fault::LimitOnlyInTime => (MAX + 1..MAX + 9).contains(&input.len()),
                    _ => input.len() > MAX,
                };
                if too_long {
                    return Err(FrameError::TooLong { max: MAX });
                }
                self.scanned = input.len();
                return Ok(match fault {
                    Fault::NeedsNothing => Decoded::Incomplete { need: 0 },
                    Fault::NeedsTooMuch => Decoded::Incomplete { need: 3 },
                    Fault::TakesWhatThereIs => {
                        Decoded::Frame { frame: input, consumed: input.len() }
                    }
                    _ => Decoded::Incomplete { need: 1 },
                });
            };
            if fault != Fault::KeepsItsPosition {
                self.scanned = 0;
            }
            if fault == Fault::LimitsWhatArrives && input.len() > 4 {
                return Err(FrameError::TooLong { max: 4 });
            }
            let consumed = match fault {
                Fault::ConsumesNothing => 0,
                Fault::ConsumesTooMuch => input.len() + 1,
                _ => end + 1,
            };
            Ok(match fault {
                Fault::SkipsNothing => Decoded::Skip(0),
                Fault::SkipsTooMuch => Decoded::Skip(input.len() + 1),
                _ => Decoded::Frame { frame: input.split_at(end).0, consumed },
            })
        }

        fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
            match self.fault {
                Fault::AcceptsTheTail => Ok(Some(tail)),
                _ => Err(FrameError::Truncated { have: tail.len() }),
            }
        }
    }

    /// Runs every check, and returns what the first one that failed had to say.
    fn verdict(fault: Fault) -> Option<String> {
        let codec = Faulty { fault, scanned: 0 };
        let line = [b"x".repeat(MAX - 1).as_slice(), b"\n"].concat();
        let checks = || {
            let _ = cuts(&codec, b"a\nbc\n\nd", <[u8]>::to_vec);
            bound(&codec, b"x", MAX);
            cost(&codec, &line);
        };
        let panic = catch_unwind(AssertUnwindSafe(checks)).err()?;
        Some(panic.downcast_ref::<String>().map_or("", String::as_str).to_owned())
    }

    #[rustfmt::skip]
    const CASES: &[(Fault, &str)] = &[
        (Fault::ConsumesNothing,   "0 of 7 bytes were consumed"),
        (Fault::ConsumesTooMuch,   "8 of 7 bytes were consumed"),
        (Fault::SkipsNothing,      "0 of 7 bytes were consumed"),
        (Fault::SkipsTooMuch,      "8 of 7 bytes were consumed"),
        (Fault::NeedsNothing,      "an incomplete frame was said to need 0 more bytes"),
        (Fault::NeedsTooMuch,      "2 bytes were enough, but the codec said it needed 4"),
        (Fault::TakesWhatThereIs,  "depends on how it is cut"),
        (Fault::LimitsWhatArrives, "depends on how it is cut"),
        (Fault::KeepsItsPosition,  "depends on how it is cut"),
        (Fault::NoLimit,           "301 bytes are incomplete, and not refused: more than 300"),
        (Fault::LimitOnlyInTime,   "602 bytes are incomplete, and not refused: more than 300"),
        (Fault::Forgets,           "after 256 bytes of an incomplete frame the codec looks at them again"),
    ];

    #[test]
    fn every_fault_is_found_and_named() {
        for &(fault, expected) in CASES {
            let verdict = verdict(fault);
            assert!(
                verdict.as_ref().is_some_and(|verdict| verdict.contains(expected)),
                "{fault:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn every_check_finds_a_codec_that_miscounts() {
        let line = [b"x".repeat(MAX - 1).as_slice(), b"\n"].concat();
        for (fault, cut, bounded, whole) in [
            (Fault::ConsumesNothing, "0 of 4", "0 of 2", "0 of 300"),
            (Fault::ConsumesTooMuch, "5 of 4", "3 of 2", "301 of 300"),
            (Fault::SkipsNothing, "0 of 4", "0 of 2", "0 of 300"),
            (Fault::SkipsTooMuch, "5 of 4", "3 of 2", "301 of 300"),
        ] {
            let codec = Faulty { fault, scanned: 0 };
            let checks: [(&str, &dyn Fn()); 3] = [
                (cut, &|| drop(cuts(&codec, b"a\nbc", <[u8]>::len))),
                (bounded, &|| bound(&codec, b"x\n", MAX)),
                (whole, &|| cost(&codec, &line)),
            ];
            for (counts, check) in checks {
                let panic = catch_unwind(AssertUnwindSafe(check)).unwrap_err();
                let expected = format!("{counts} bytes were consumed");
                assert_eq!(panic.downcast_ref::<String>(), Some(&expected), "{fault:?}");
            }
        }
    }

    #[test]
    fn what_is_no_fault_passes() {
        for fault in [Fault::None, Fault::AcceptsTheTail] {
            assert_eq!(verdict(fault), None, "{fault:?}");
        }
    }

    #[test]
    fn frames_and_ending_are_returned() {
        let lines = Faulty { fault: Fault::None, scanned: 0 };
        let cut_off = Err(FrameError::Truncated { have: 1 });
        assert_eq!(cuts(&lines, b"a\nb", <[u8]>::len), (vec![1], cut_off));
        let lines = Faulty { fault: Fault::AcceptsTheTail, scanned: 0 };
        assert_eq!(cuts(&lines, b"a\nbc", <[u8]>::len), (vec![1, 2], Ok(())));
    }

    #[test]
    fn a_frame_must_be_one_frame_to_tell_its_cost() {
        let lines = Faulty { fault: Fault::None, scanned: 0 };
        let (early, never) = ([b'\n'; 300], [b'x'; 300]);
        for (frame, expected) in [
            (&early[..], "the first 1 of 300 bytes are a frame already"),
            (&never[..], "these 300 bytes are not a frame"),
            (&never[..259], "259 bytes are too few to tell"),
        ] {
            let panic = catch_unwind(|| cost(&lines, frame)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(expected));
        }
    }

    #[test]
    fn every_way_to_cut_adds_up() {
        for len in [0, 1, 2, 10, 11, 256, 257, 5000] {
            for sizes in ways(len) {
                assert_eq!(sizes.iter().sum::<usize>(), len);
                assert!(len == 0 || !sizes.contains(&0), "{len} in {sizes:?}");
            }
        }
        let unique: HashSet<Vec<usize>> = ways(10).collect();
        assert_eq!(unique.len(), 512);
    }
}
