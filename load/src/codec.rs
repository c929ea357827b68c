//! What requests look like, and the replies to them.
//!
//! ```text
//!  lines   letters\n                                      the same
//!  resp    *2\r\n$4\r\nECHO\r\n$7\r\nletters\r\n          $7\r\nletters\r\n
//! ```
//!
//! RESP has a command that every server of Redis' kind knows, changes nothing and is answered with
//! what was sent. So replies are told apart there, too.

use std::{borrow::Cow, str::FromStr};

use super::messages::Around;
use crate::values;

/// How requests are framed, and their replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// A reply is the request. Both end as this codec says.
    Framed(values::Codec),
    /// A request is Redis' command ECHO.
    Resp,
}

impl Codec {
    pub(crate) fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Framed(values::Codec::Lines) => "lines".into(),
            Self::Framed(values::Codec::Crlf) => "crlf".into(),
            Self::Framed(values::Codec::StrictCrlf) => "strict-crlf".into(),
            Self::Framed(values::Codec::Delimited(end)) => {
                format!("delimited:{}", end.escape_ascii()).into()
            }
            Self::Framed(values::Codec::Raw) => "raw".into(),
            Self::Resp => "resp".into(),
        }
    }

    /// What a request ends in, if that is where a reply ends, too.
    pub(crate) fn end(&self) -> &[u8] {
        match self {
            Self::Framed(values::Codec::Lines) => b"\n",
            Self::Framed(values::Codec::Crlf | values::Codec::StrictCrlf) => b"\r\n",
            Self::Framed(values::Codec::Delimited(end)) => end,
            Self::Framed(values::Codec::Raw) | Self::Resp => b"",
        }
    }

    /// How many letters there are in a message of this size; None if there is no room for any.
    pub(crate) fn letters(&self, size: usize) -> Option<usize> {
        size.checked_sub(self.end().len()).filter(|&letters| letters > 0)
    }

    /// What is around the letters of a request of this size.
    pub(crate) fn request(&self, size: usize) -> Around {
        match self {
            Self::Framed(_) => Around { head: Vec::new(), end: self.end().to_vec() },
            Self::Resp => bulk("*2\r\n$4\r\nECHO\r\n", size),
        }
    }

    /// What is around them in its reply, if that is something else.
    pub(crate) fn reply(&self, size: usize) -> Option<Around> {
        match self {
            Self::Framed(_) => None,
            Self::Resp => Some(bulk("", size)),
        }
    }

    /// Bytes of a request of this size, as they are sent.
    pub(crate) fn request_bytes(&self, size: usize) -> usize {
        let Around { head, end } = self.request(size);
        self.letters(size).unwrap_or(0).saturating_add(head.len() + end.len())
    }
}

/// What is around a bulk string of so many bytes.
fn bulk(before: &str, size: usize) -> Around {
    Around { head: format!("{before}${size}\r\n").into(), end: b"\r\n".into() }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "resp" => Ok(Self::Resp),
            Ok(codec) => Ok(Self::Framed(codec)),
            Err(what) if text.starts_with("delimited:") => Err(what),
            // It ends in the codecs that there are elsewhere.
            Err(what) => Err(format!("{what}, resp")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_called_what_they_are_read_from() {
        for text in
            ["lines", "crlf", "strict-crlf", "raw", "resp", r"delimited:\x1e", "delimited:;"]
        {
            let codec: Codec = text.parse().expect(text);
            assert_eq!(codec.name(), text);
        }
        for (text, hint) in [("redis", "raw, resp"), ("delimited:", "write delimited:;")] {
            let error = text.parse::<Codec>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert!("delimited:".parse::<Codec>().is_err_and(|error| !error.contains("resp")));
    }

    #[test]
    fn sizes_are_those_of_what_is_sent() {
        let size = |text: &str, size| text.parse::<Codec>().expect(text).request_bytes(size);
        assert_eq!((size("lines", 64), size("crlf", 3), size("raw", 1)), (64, 3, 1));
        assert_eq!(size("resp", 5), b"*2\r\n$4\r\nECHO\r\n$5\r\nabcde\r\n".len());
        assert_eq!(size("resp", 100), b"*2\r\n$4\r\nECHO\r\n$100\r\n\r\n".len() + 100);
    }
}
