//! The lines of the tagged protocol.
//!
//! ```text
//!  to a worker:    open ID ADDRESS   data ID PAYLOAD   close ID REASON
//!  from a worker:                    data ID PAYLOAD   close ID
//! ```
//!
//! One blank ends the ID. What follows is the payload, byte for byte, and may be empty; `data ID` alone is
//! an empty one, too.

use crate::{address::Peer, error::CloseReason};

/// What a worker has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Data {
        id: Option<u64>,
        payload: &'a [u8],
    },
    Close {
        id: Option<u64>,
    },
    /// What is no line of the protocol.
    Nothing,
}

impl<'a> Said<'a> {
    /// Reads a line. An ID that never was one is none.
    pub(super) fn read(line: &'a [u8]) -> Self {
        if let Some(rest) = line.strip_prefix(b"data ") {
            let end = rest.iter().position(|&byte| byte == b' ');
            let (id, payload) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &[][..]),
            };
            if !id.is_empty() {
                return Self::Data { id: number(id), payload };
            }
        } else if let Some(id) = line.strip_prefix(b"close ")
            && !id.is_empty()
            && !id.contains(&b' ')
        {
            return Self::Close { id: number(id) };
        }
        Self::Nothing
    }
}

/// An ID as it was given: digits, without any before that count for nothing.
fn number(id: &[u8]) -> Option<u64> {
    let is_plain = id.iter().all(u8::is_ascii_digit) && id.first() != Some(&b'0');
    if is_plain { std::str::from_utf8(id).ok()?.parse().ok() } else { None }
}

pub(super) fn open(id: u64, peer: &Peer) -> Vec<u8> {
    match peer {
        Peer::Tcp(address) => format!("open {id} {address}").into_bytes(),
        Peer::Unix | Peer::UnixPath(_) | Peer::Program => format!("open {id} unix").into_bytes(),
    }
}

pub(super) fn data(id: u64, payload: &[u8]) -> Vec<u8> {
    [b"data ", id.to_string().as_bytes(), b" ", payload].concat()
}

pub(super) fn close(id: u64, why: Why) -> Vec<u8> {
    let why = match why {
        Why::End => "end",
        Why::Reset => "reset",
        Why::Timeout => "timeout",
        Why::Limit => "limit",
        Why::Drain => "drain",
        Why::Worker => "worker",
    };
    format!("close {id} {why}").into_bytes()
}

/// Why a client is gone, in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It has finished sending.
    End,
    /// Its connection broke.
    Reset,
    /// It was late.
    Timeout,
    /// It has sent, or was sent, what may not be.
    Limit,
    /// The server drains, or the client was old.
    Drain,
    /// A worker has closed it.
    Worker,
}

impl From<&CloseReason> for Why {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::PeerFinished | CloseReason::Truncated => Self::End,
            CloseReason::Broken(_)
            | CloseReason::Tls(_)
            | CloseReason::ConnectFailed(_)
            | CloseReason::Aborted
            | CloseReason::RelayEnded
            | CloseReason::RelayFault => Self::Reset,
            CloseReason::FrameTimeout
            | CloseReason::WriteTimeout
            | CloseReason::Unused
            | CloseReason::IdleTimeout
            | CloseReason::AnswerTimeout => Self::Timeout,
            CloseReason::ByHandler => Self::Worker,
            CloseReason::Drained | CloseReason::Stopped => Self::Drain,
            CloseReason::Rejected(_)
            | CloseReason::Encode(_)
            | CloseReason::HandlerFailed(_)
            | CloseReason::Panicked
            | CloseReason::CodecDefect
            | CloseReason::Unanswered
            | CloseReason::OutputOverflow
            | CloseReason::Evicted
            | CloseReason::Defect => Self::Limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, Why, close, data, open};
    use crate::address::Peer;

    #[test]
    fn lines_are_read_as_they_are_meant() {
        let data = |id, payload| Said::Data { id, payload };
        for (line, said) in [
            (&b"data 7 hello"[..], data(Some(7), &b"hello"[..])),
            (b"data 7  two  blanks ", data(Some(7), b" two  blanks ")),
            (b"data 7 \x00\xff\r", data(Some(7), b"\x00\xff\r")),
            (b"data 7 ", data(Some(7), b"")),
            (b"data 7", data(Some(7), b"")),
            (b"data 18446744073709551615 x", data(Some(u64::MAX), b"x")),
            (b"data 18446744073709551616 x", data(None, b"x")),
            (b"data 07 x", data(None, b"x")),
            (b"data +7 x", data(None, b"x")),
            (b"data 7\r", data(None, b"")),
            (b"data  7 x", Said::Nothing),
            (b"data ", Said::Nothing),
            (b"data", Said::Nothing),
            (b"close 7", Said::Close { id: Some(7) }),
            (b"close seven", Said::Close { id: None }),
            (b"close 7 ", Said::Nothing),
            (b"close 7 end", Said::Nothing),
            (b"close ", Said::Nothing),
            (b"Data 7 x", Said::Nothing),
            (b" data 7 x", Said::Nothing),
            (b"hello", Said::Nothing),
            (b"", Said::Nothing),
        ] {
            assert_eq!(Said::read(line), said, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn lines_are_written_as_the_page_says() {
        let address = Peer::Tcp("[::1]:7".parse().expect("an address"));
        assert_eq!(open(1, &address), b"open 1 [::1]:7");
        assert_eq!(open(2, &Peer::Unix), b"open 2 unix");
        assert_eq!(data(3, b" x "), b"data 3  x ");
        assert_eq!(data(3, b""), b"data 3 ");
        assert_eq!(close(4, Why::End), b"close 4 end");
        assert_eq!(close(5, Why::Worker), b"close 5 worker");
    }
}
