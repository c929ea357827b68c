//! Redis requests, for any bytes and any limits: commands do not depend on how their bytes were cut
//! up, sent again as an array they are the same, and nobody keeps more than the limit.

use arbitrary::Arbitrary;
use nonforker::codec::{
    Codec, Decoded, Encode, FrameError, Resp,
    resp::{Command, Reply},
};

/// Limits, and a stream with the ways it is cut.
#[derive(Arbitrary, Debug)]
pub struct Input<'a> {
    max: u16,
    bulk_max: Option<u8>,
    args_max: Option<u8>,
    /// How long the pieces are, in turn.
    cuts: Vec<u8>,
    stream: &'a [u8],
}

/// Splits the stream whole, cut, and byte by byte.
pub fn run(input: Input<'_>) {
    let max = usize::from(input.max);
    let mut resp = Resp::with_max(max);
    if let Some(max) = input.bulk_max {
        resp = resp.bulk_max(max.into());
    }
    if let Some(max) = input.args_max {
        resp = resp.args_max(max.into());
    }
    let whole = commands(&resp, max, input.stream, &[]);
    assert_eq!(whole, commands(&resp, max, input.stream, &input.cuts));
    assert_eq!(whole, commands(&resp, max, input.stream, &[1]));
    again(&whole.0);
}

type Args = Vec<Vec<u8>>;

/// Decodes as the engine does: keeps what is incomplete, and goes on when more has arrived.
fn commands(
    resp: &Resp,
    max: usize,
    stream: &[u8],
    cuts: &[u8],
) -> (Vec<Args>, Result<(), FrameError>) {
    let mut resp = resp.clone();
    let mut commands = Vec::new();
    let (mut start, mut end, mut least) = (0, 0, 0);
    let mut cuts = cuts.iter().cycle();
    while end < stream.len() {
        let piece = cuts.next().map_or(stream.len(), |&cut| usize::from(cut).max(1));
        end = stream.len().min(end + piece);
        while start < end {
            let consumed = match resp.decode(&stream[start..end]) {
                Ok(Decoded::Frame { frame, consumed }) => {
                    commands.push(args(&frame));
                    consumed
                }
                Ok(Decoded::Skip(count)) => count,
                Ok(Decoded::Incomplete { need }) => {
                    assert!(need >= 1);
                    assert!(end - start < max, "{} bytes are kept", end - start);
                    least = end + need;
                    break;
                }
                Err(error) => return (commands, Err(error)),
            };
            assert!((1..=end - start).contains(&consumed));
            start += consumed;
            assert!(start >= least, "less was enough than was asked for");
        }
    }
    let tail = if start == end { Ok(()) } else { resp.decode_end(&stream[start..]).map(drop) };
    (commands, tail)
}

fn args(command: &Command<'_>) -> Args {
    assert!(command.len() > 0, "a command has a name");
    let args: Args = command.iter().map(<[u8]>::to_vec).collect();
    assert_eq!(args.len(), command.len());
    for (index, argument) in args.iter().enumerate() {
        assert_eq!(command.get(index), Some(&**argument));
    }
    args
}

/// A command and a reply look the same when both are arrays of bulk strings.
fn again(commands: &[Args]) {
    let mut resp = Resp::with_max(usize::MAX);
    let mut stream = Vec::new();
    for command in commands {
        let bulks: Vec<Reply<'_>> = command.iter().map(|argument| Reply::Bulk(argument)).collect();
        resp.encode(Reply::Array(&bulks), &mut stream).expect("every reply can be encoded");
    }
    let (seen, end) = self::commands(&resp, usize::MAX, &stream, &[]);
    assert_eq!((seen.as_slice(), end), (commands, Ok(())));
}
