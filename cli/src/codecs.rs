//! The codecs of the flags, for whatever is served with them.

use nonforker::{
    BytesCodec,
    codec::{Delimited, Encode, Lines, Raw},
};

use crate::{args::LastLine, ending::Ending, values};

/// What is done with a codec, of whichever type it is.
pub(crate) trait UseCodec {
    /// What comes of it.
    type Made;

    /// Does it. `longer` is the same codec with another limit.
    fn with<C>(self, codec: C, longer: C) -> Result<Self::Made, Ending>
    where
        C: BytesCodec + Encode<Vec<u8>> + Encode<String>;
}

/// The codec that flags ask for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) codec: &'a values::Codec,
    pub(crate) last_line: LastLine,
    /// The most bytes of a frame, and of one of the longer codec.
    pub(crate) max: usize,
    pub(crate) longer: usize,
}

impl Wanted<'_> {
    pub(crate) fn hand_to<U: UseCodec>(&self, user: U) -> Result<U::Made, Ending> {
        let Self { codec, last_line, max, longer } = *self;
        let (lines, long_lines) = (Lines::with_max(max), Lines::with_max(longer));
        let with_last = |lines: Lines| match last_line {
            LastLine::Take => lines.accept_unterminated(),
            LastLine::Drop => lines,
        };
        match codec {
            values::Codec::Lines => user.with(with_last(lines), long_lines),
            values::Codec::Crlf => user.with(with_last(lines.crlf()), long_lines.crlf()),
            values::Codec::StrictCrlf => user.with(lines.strict_crlf(), long_lines.strict_crlf()),
            values::Codec::Raw => user.with(Raw::with_max(max), Raw::with_max(longer)),
            values::Codec::Delimited(delimiter) => {
                let make = |max| Delimited::with_max(delimiter, max);
                let refuse =
                    |error: nonforker::codec::EmptyDelimiter| Ending::Usage(error.to_string());
                user.with(make(max).map_err(refuse)?, make(longer).map_err(refuse)?)
            }
        }
    }
}
