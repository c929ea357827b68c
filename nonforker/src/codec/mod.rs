//! Where one request ends and the next begins.
//!
//! ```text
//!  bytes as they arrive ── decode ──▶ frames, borrowed from those bytes
//!  replies              ── encode ──▶ bytes, appended to the out-buffer
//! ```
//!
//! A codec is one of the three things a user of this crate chooses. Every connection has its own
//! clone of it, so a codec may remember: how far it has looked for a delimiter, or which version
//! of a protocol was agreed upon.
//!
//! What every codec keeps to, and [`check`] verifies for any codec:
//!
//! - The frames do not depend on how the bytes were cut up on their way.
//! - A frame is bounded. Bytes beyond the bound are an error before they are buffered.
//! - A frame that arrives in *n* pieces costs O(n): a codec that answers
//!   [`Decoded::Incomplete`] remembers how far it has looked.
//!
//! To write one, copy an example, which needs nothing but this crate: `examples/own_lines.rs` for
//! frames that end at a byte, `examples/own_codec.rs` for frames that say their length first.

#![warn(clippy::indexing_slicing)]

pub mod check;
mod delimited;
mod lines;
mod raw;
pub mod resp;
mod scan;

use thiserror::Error;

pub use delimited::{Delimited, EmptyDelimiter};
pub use lines::Lines;
pub use raw::Raw;
pub use resp::Resp;

/// The most bytes a frame may have unless a codec is given another limit: 64 KiB, like the inline
/// limit of Redis.
pub const DEFAULT_FRAME_MAX: usize = 64 * 1024;

/// Splits bytes into frames.
///
/// The codec given to [`Server::serve`](crate::Server::serve) is cloned for every connection.
/// Its [`Encode`] implementations are what it can *send*.
///
/// # Examples
///
/// A codec whose frames are one length byte and that many bytes of payload:
///
/// ```
/// use nonforker::codec::{Codec, Decoded, Encode, EncodeError, FrameError};
///
/// #[derive(Clone)]
/// struct Short;
///
/// impl Codec for Short {
///     type Frame<'a> = &'a [u8];
///
///     fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
///         let size = 1 + usize::from(input[0]);
///         Ok(match input.get(1..size) {
///             Some(frame) => Decoded::Frame { frame, consumed: size },
///             None => Decoded::Incomplete { need: size - input.len() },
///         })
///     }
/// }
///
/// impl<R: AsRef<[u8]>> Encode<R> for Short {
///     fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
///         let reply = reply.as_ref();
///         let size = u8::try_from(reply.len())
///             .map_err(|_| EncodeError::TooLong { len: reply.len(), max: 255 })?;
///         out.push(size);
///         out.extend_from_slice(reply);
///         Ok(())
///     }
/// }
/// ```
pub trait Codec: Clone + 'static {
    /// One frame, borrowed from the bytes that were received.
    type Frame<'a>;

    /// Looks for the first frame in `input`, which is never empty.
    ///
    /// After [`Decoded::Incomplete`] the same bytes come again with more behind them; after
    /// anything else `input` begins behind what was consumed.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when framing is lost or the frame is too long. It ends the connection:
    /// the codec is not called again.
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<Self::Frame<'a>>, FrameError>;

    /// Decides what an unterminated tail is, once the peer has finished sending.
    ///
    /// `tail` is what [`decode`](Self::decode) called incomplete, and never empty. The default
    /// is that a frame which was cut off is an error, as in the recipe this crate began with.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] unless an unterminated tail is a frame in this codec.
    fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<Self::Frame<'a>>, FrameError> {
        Err(FrameError::Truncated { have: tail.len() })
    }

    /// Whether what it sends looks like what any other codec of its service sends, so that a
    /// [published](crate::Connections::publish) message is encoded once for all of them.
    ///
    /// The default is yes. A codec whose encoding depends on its mode answers no, at least while it is
    /// in another mode than a new connection's: then the message is encoded for that connection
    /// alone, by its own codec.
    fn shares(&self) -> bool {
        true
    }
}

/// Turns a reply of type `R` into bytes.
///
/// A codec implements this once for each type that [`Conn::send`](crate::Conn::send) shall take. An
/// implementation for all types of a kind, as for all `R: AsRef<[u8]>`, is marked
/// `#[diagnostic::do_not_recommend]`: then the compiler says of a reply of another type that the codec
/// cannot send it, and not that the type lacks something.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot send a `{R}`: send a type that it encodes, such as text from \
               `.to_string()`, or implement `Encode` for it in a codec of your own",
    label = "this codec does not encode `{R}`"
)]
pub trait Encode<R>: Codec {
    /// Appends `reply` with its framing to `out`, and touches nothing that is in `out` already.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when this reply cannot be framed. It ends the connection, and whatever
    /// was appended is taken back.
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError>;
}

/// What [`Codec::decode`] found at the start of its input.
///
/// A frame and a skip take at least 1 byte, and no more than there are. A codec that answers
/// otherwise has a defect, which [`check`] finds. In a server it ends the connection with
/// [`CloseReason::CodecDefect`](crate::CloseReason::CodecDefect): such a frame is not handled, since
/// nobody knows where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a fourth answer would be a new contract")]
pub enum Decoded<F> {
    /// A complete frame.
    Frame {
        /// The frame, without its framing.
        frame: F,
        /// How many bytes of the input it took, framing included; at least 1.
        consumed: usize,
    },
    /// That many bytes, at least 1, mean nothing to the handler: a keep-alive, say.
    Skip(usize),
    /// The frame is not complete yet.
    Incomplete {
        /// How many more bytes are needed at least; at least 1, and only a hint.
        need: usize,
    },
}

/// Why a stream of bytes could not be split into frames.
///
/// Each of these ends its connection: once framing is lost, the start of the next frame is
/// unknown. Having too few bytes *so far* is not an error but [`Decoded::Incomplete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes at `offset` cannot belong to a frame of this codec.
    #[error("malformed frame: expected {expected} at byte {offset}")]
    Malformed {
        /// Where, counted from the start of the frame.
        offset: usize,
        /// What the codec was looking for, as a noun phrase: `"a decimal length"`.
        expected: &'static str,
    },
    /// A frame is longer than the configured limit; nothing beyond `max` was buffered.
    #[error("frame too long: more than {max} bytes")]
    TooLong {
        /// The limit that was crossed, in bytes.
        max: usize,
    },
    /// The peer finished sending in the middle of a frame.
    #[error("the peer stopped {have} bytes into a frame")]
    Truncated {
        /// How much of the frame had arrived, in bytes.
        have: usize,
    },
}

/// Why a reply could not be turned into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The reply is longer than the codec's framing can say.
    #[error("reply too long: {len} bytes, at most {max}")]
    TooLong {
        /// The length of the reply, in bytes.
        len: usize,
        /// The longest reply this codec can frame, in bytes.
        max: usize,
    },
    /// The reply would break the framing: it contains the delimiter, for example.
    #[error("the reply contains {what}")]
    Unframeable {
        /// What was found in the reply, as a noun phrase: `"the delimiter"`.
        what: &'static str,
    },
}
