//! What lies between the bytes of the wire and the frames of a codec.
//!
//! ```text
//!  wire ──▶ Header ── complete ──▶ Plain ──▶ frames
//!              │ └──── complete ──▶ Tls ── handshake done ──▶ Tls, decrypted ──▶ frames
//!              └── refused ──▶ the connection ends before its handler knows it
//! ```
//!
//! A connection whose pipe is not plain is [`Arriving`](super::state::State::Arriving) at first: nothing
//! that its client sends is a frame before the pipe has been opened up. What TLS does to its bytes is in
//! [`encrypted`](super::encrypted).

use super::proxy::{self, Refusal};
use crate::address::Peer;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipe {
    /// What arrives is what the codec gets.
    Plain,
    /// A PROXY header comes first.
    Header,
    /// What arrives are records of TLS.
    Tls,
}

/// How far a pipe could be opened up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// More has to arrive.
    Incomplete,
    /// The first `consumed` bytes are done with; what follows is the client's, who is `source` if the
    /// proxy said so.
    Opened { consumed: usize, source: Option<Peer> },
    /// This is no connection that may open.
    Refused(Refusal),
}

impl Pipe {
    /// Opens it up with all bytes that have arrived so far.
    pub(super) fn open_up(&mut self, input: &[u8]) -> Opening {
        let (consumed, source) = match self {
            Self::Plain | Self::Tls => (0, None),
            Self::Header => match proxy::header(input) {
                proxy::Header::Incomplete => return Opening::Incomplete,
                proxy::Header::Refused(why) => return Opening::Refused(why),
                proxy::Header::Complete { consumed, source } => (consumed, source),
            },
        };
        Opening::Opened { consumed, source }
    }
}
