//! What requests look like, and the replies to them.
//!
//! ```text
//!  lines   letters\n                                      the same
//!  resp    *2\r\n$4\r\nECHO\r\n$7\r\nletters\r\n          $7\r\nletters\r\n
//! ```
//!
//! RESP has a command that every server of Redis' kind knows, changes nothing and is answered with
//! what was sent. So each reply differs from the others there, too.

use crate::messages::Around;

/// How requests are framed, and their replies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// A request ends in `\n`, and its reply is the same bytes.
    Lines,
    /// The same, with `\r\n`.
    Crlf,
    /// The same, with these bytes. They must leave two letters or digits to write requests with.
    Delimited(Vec<u8>),
    /// A request has no end: its reply is the bytes that were sent.
    Raw,
    /// A request is Redis' command ECHO, and its reply is the string in it.
    Resp,
}

impl Codec {
    /// What a request ends in, if that is where a reply ends, too.
    pub(crate) fn end(&self) -> &[u8] {
        match self {
            Self::Lines => b"\n",
            Self::Crlf => b"\r\n",
            Self::Delimited(end) => end,
            Self::Raw | Self::Resp => b"",
        }
    }

    /// How many letters there are in a message of this size; None if there is no room for any.
    pub(crate) fn letters(&self, size: usize) -> Option<usize> {
        size.checked_sub(self.end().len()).filter(|&letters| letters > 0)
    }

    /// What is around the letters of a request of this size.
    pub(crate) fn request(&self, size: usize) -> Around {
        match self {
            Self::Resp => bulk("*2\r\n$4\r\nECHO\r\n", size),
            _ => Around { head: Vec::new(), end: self.end().to_vec() },
        }
    }

    /// What is around them in its reply, if that is something else.
    pub(crate) fn reply(&self, size: usize) -> Option<Around> {
        (*self == Self::Resp).then(|| bulk("", size))
    }

    /// Bytes of a request of this size, as they are sent.
    pub(crate) fn request_bytes(&self, size: usize) -> usize {
        let Around { head, end } = self.request(size);
        self.letters(size).unwrap_or(0).saturating_add(head.len() + end.len())
    }
}

/// What is around a bulk string of `size` bytes.
fn bulk(before: &str, size: usize) -> Around {
    Around { head: format!("{before}${size}\r\n").into(), end: b"\r\n".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_what_is_sent() {
        for (codec, size) in [(Codec::Lines, 64), (Codec::Crlf, 3), (Codec::Raw, 1)] {
            assert_eq!(codec.request_bytes(size), size, "{codec:?}");
        }
        let resp = |size| Codec::Resp.request_bytes(size);
        assert_eq!(resp(5), b"*2\r\n$4\r\nECHO\r\n$5\r\nabcde\r\n".len());
        assert_eq!(resp(100), b"*2\r\n$4\r\nECHO\r\n$100\r\n\r\n".len() + 100);
    }
}
