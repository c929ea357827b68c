//! The codecs of `nonforker bench`, from their text: those of `serve`, and RESP.

use std::{borrow::Cow, str::FromStr};

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
    /// The text that it is read from.
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

    /// What the load sends with it.
    pub(crate) fn to_load(&self) -> nonforker_load::Codec {
        match self {
            Self::Framed(values::Codec::Lines) => nonforker_load::Codec::Lines,
            Self::Framed(values::Codec::Crlf | values::Codec::StrictCrlf) => {
                nonforker_load::Codec::Crlf
            }
            Self::Framed(values::Codec::Delimited(end)) => {
                nonforker_load::Codec::Delimited(end.clone())
            }
            Self::Framed(values::Codec::Raw) => nonforker_load::Codec::Raw,
            Self::Resp => nonforker_load::Codec::Resp,
        }
    }
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
}
