//! Frames do not depend on how their bytes were cut up, for any bytes, any limit and any codec.

use arbitrary::Arbitrary;
use nonforker::codec::{Codec, Decoded, Delimited, FrameError, Lines, Raw};

#[derive(Arbitrary, Debug)]
enum Which {
    Lines,
    Crlf,
    StrictCrlf,
    Delimited(Vec<u8>),
    Raw,
}

/// A codec, and a stream with the ways it is cut.
#[derive(Arbitrary, Debug)]
pub struct Input<'a> {
    which: Which,
    max: u8,
    /// How long the pieces are, in turn.
    cuts: Vec<u8>,
    stream: &'a [u8],
}

/// Splits the stream whole, cut, and byte by byte.
pub fn run(input: Input<'_>) {
    let max = usize::from(input.max);
    match &input.which {
        Which::Lines => same(&Lines::with_max(max), &input),
        Which::Crlf => same(&Lines::with_max(max).crlf(), &input),
        Which::StrictCrlf => same(&Lines::with_max(max).strict_crlf(), &input),
        Which::Delimited(delimiter) => {
            if let Ok(codec) = Delimited::with_max(delimiter, max) {
                same(&codec, &input);
            }
        }
        Which::Raw => {
            let whole = frames(&Raw::with_max(max), input.stream, &[]).0.concat();
            let cut = frames(&Raw::with_max(max), input.stream, &input.cuts).0.concat();
            assert_eq!(whole, cut, "raw bytes are neither lost nor changed");
            assert_eq!(whole, input.stream);
        }
    }
}

fn same<C: for<'a> Codec<Frame<'a> = &'a [u8]>>(codec: &C, input: &Input<'_>) {
    let whole = frames(codec, input.stream, &[]);
    assert_eq!(whole, frames(codec, input.stream, &input.cuts));
    assert_eq!(whole, frames(codec, input.stream, &[1]));
}

type Seen = (Vec<Vec<u8>>, Result<(), FrameError>);

/// Decodes as the engine does: keeps what is incomplete, and goes on when more has arrived.
fn frames<C: for<'a> Codec<Frame<'a> = &'a [u8]>>(codec: &C, stream: &[u8], cuts: &[u8]) -> Seen {
    let mut codec = codec.clone();
    let mut frames = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut cuts = cuts.iter().cycle();
    while end < stream.len() {
        let piece = cuts.next().map_or(stream.len(), |&cut| usize::from(cut).max(1));
        end = stream.len().min(end + piece);
        while start < end {
            match codec.decode(&stream[start..end]) {
                Ok(Decoded::Frame { frame, consumed }) => {
                    assert!((1..=end - start).contains(&consumed));
                    frames.push(frame.to_vec());
                    start += consumed;
                }
                Ok(Decoded::Skip(count)) => {
                    assert!((1..=end - start).contains(&count));
                    start += count;
                }
                Ok(Decoded::Incomplete { need }) => {
                    assert!(need >= 1);
                    break;
                }
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    if start == end {
        return (frames, Ok(()));
    }
    let tail = codec.decode_end(&stream[start..]).map(|frame| {
        frames.extend(frame.map(<[u8]>::to_vec));
    });
    (frames, tail)
}
