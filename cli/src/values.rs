//! The values that flags and configuration take, from their text.
//!
//! What is wrong with a value says what to write instead, and repeats the value: it may come from
//! a file.

use std::{
    num::{IntErrorKind, NonZeroUsize},
    str::FromStr,
    thread,
    time::Duration,
};

use bytesize::ByteSize;
use nix::unistd::{Uid, User};
use nonforker::{Error, Limits};

/// The most shards that the library takes.
const SHARDS_MAX: usize = 256;

/// The most workers that the library takes.
const WORKERS_MAX: usize = 256;

type Parsed<T> = Result<T, String>;

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// Which codec splits the bytes into frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Lines,
    Crlf,
    StrictCrlf,
    Delimited(Vec<u8>),
    Raw,
}

/// A number of bytes: `65536`, `64KiB`, `64kB`.
pub(crate) fn size(text: &str) -> Parsed<usize> {
    let size = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.ok_or_else(|| {
        format!("bad size {text:?}: write a number of bytes such as 65536, 64KiB or 1.5MiB")
    })
}

/// A number of bytes that is not 0.
pub(crate) fn some_size(text: &str) -> Parsed<usize> {
    match size(text)? {
        0 => Err(format!("bad size {text:?}: at least 1 byte is needed")),
        size => Ok(size),
    }
}

/// The bytes of a frame: not 0, and bounded as the bytes that are queued are.
pub(crate) fn frame_size(text: &str) -> Parsed<usize> {
    let size = some_size(text)?;
    match Limits::new().output_cap(size).check() {
        Err(Error::Limits { bound, .. }) => Err(format!("bad size {text:?}: it is {bound}")),
        _ => Ok(size),
    }
}

/// A number that is not 0.
pub(crate) fn count(text: &str) -> Parsed<NonZeroUsize> {
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => format!("bad number {text:?}: at most {}", i32::MAX),
        _ => format!("bad number {text:?}: write a whole number of at least 1"),
    })
}

/// A command, split into words as a shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words(Vec<String>);

impl Words {
    /// The program, and its arguments.
    pub(crate) fn split(&self) -> (&str, &[String]) {
        self.0.split_first().map_or(("", &[]), |(first, more)| (first.as_str(), more))
    }
}

/// A command: `python3 -u 'my worker.py'`.
pub(crate) fn command(text: &str) -> Parsed<Words> {
    match shell_words::split(text) {
        Ok(words) if words.first().is_some_and(|first| !first.is_empty()) => Ok(Words(words)),
        Ok(_) => {
            Err(format!("bad command {text:?}: it is empty; write a program and its arguments"))
        }
        Err(_) => Err(format!("bad command {text:?}: a quote is not closed")),
    }
}

/// A number of workers.
pub(crate) fn workers(text: &str) -> Parsed<NonZeroUsize> {
    match text.parse::<NonZeroUsize>() {
        Ok(workers) if workers.get() <= WORKERS_MAX => Ok(workers),
        _ => Err(format!("bad number {text:?}: write a whole number from 1 to {WORKERS_MAX}")),
    }
}

/// A user, by name or number, and the group of that user.
pub(crate) fn user(text: &str) -> Parsed<(u32, u32)> {
    let found = match text.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(text),
    };
    match found {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        _ => Err(format!("bad user {text:?}: this system has none of that name or number")),
    }
}

/// A number of shards, or one for each core.
pub(crate) fn shards(text: &str) -> Parsed<usize> {
    if text == "auto" {
        return Ok(thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX));
    }
    match text.parse() {
        Ok(shards) if (1..=SHARDS_MAX).contains(&shards) => Ok(shards),
        _ => {
            Err(format!("bad number {text:?}: write auto or a whole number from 1 to {SHARDS_MAX}"))
        }
    }
}

/// A number of connections for the kernel's queue.
pub(crate) fn backlog(text: &str) -> Parsed<u16> {
    match text.parse() {
        Ok(0) | Err(_) => {
            Err(format!("bad number {text:?}: write a whole number from 1 to {}", u16::MAX))
        }
        Ok(backlog) => Ok(backlog),
    }
}

/// A duration with its unit: `30s`, `1m 30s`, `250ms`.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    humantime::parse_duration(text)
        .map_err(|error| format!("bad duration {text:?}: {}", what_is_wrong(&error)))
}

/// What to write instead of such a duration.
fn what_is_wrong(error: &humantime::DurationError) -> &'static str {
    match error {
        humantime::DurationError::NumberOverflow => "at most 100years, as in 30s or 5min",
        _ => "write a number with a unit, as in 30s or 5min",
    }
}

/// A duration that is not 0, or `off`.
pub(crate) fn timeout(text: &str) -> Parsed<Timeout> {
    if text == "off" {
        return Ok(Timeout(None));
    }
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("bad duration {text:?}: write off for no timeout")),
        Ok(duration) => Ok(Timeout(Some(duration))),
        Err(error) => Err(format!("bad duration {text:?}: {}, or off", what_is_wrong(&error))),
    }
}

/// A duration, 0 included, or `off`.
pub(crate) fn patience(text: &str) -> Parsed<Timeout> {
    duration(text).map(|duration| Timeout(Some(duration))).or_else(|_| timeout(text))
}

/// Permissions, in octal: `0600`, `660`.
pub(crate) fn mode(text: &str) -> Parsed<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= 0o777);
    mode.ok_or_else(|| {
        format!("bad permissions {text:?}: write them in octal, from 0000 to 0777, such as 0660")
    })
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        match text {
            "lines" => Ok(Self::Lines),
            "crlf" => Ok(Self::Crlf),
            "strict-crlf" => Ok(Self::StrictCrlf),
            "raw" => Ok(Self::Raw),
            _ => match text.strip_prefix("delimited:") {
                Some("") => Err(format!(
                    "bad codec {text:?}: the delimiter is empty; write delimited:; for example"
                )),
                Some(delimiter) => unescape(delimiter)
                    .map(Self::Delimited)
                    .map_err(|what| format!("bad codec {text:?}: {what}")),
                None => Err(format!(
                    "bad codec {text:?}: there are lines, crlf, strict-crlf, delimited:STRING, raw"
                )),
            },
        }
    }
}

/// The bytes that `text` stands for: `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` are one byte each.
pub(crate) fn unescape(text: &str) -> Parsed<Vec<u8>> {
    const KNOWN: &str = r"there are \r, \n, \t, \0, \\ and \xHH";

    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let mut characters = after.chars();
        bytes.push(match characters.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = characters.by_ref().take(2).collect();
                let hex =
                    digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| hex);
                byte.ok_or_else(|| format!(r"\x{digits} needs two hexadecimal digits, as in \x1e"))?
            }
            Some(other) => return Err(format!("unknown escape \\{other}; {KNOWN}")),
            None => return Err(format!(r"it ends in half an escape; {KNOWN}")),
        });
        rest = characters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("1", 1), ("64KiB", 65536), ("64kB", 64_000), ("1.5MiB", 1_572_864), ("0", 0)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64X", "-1", "KiB", "64 KiB extra"] {
            assert!(size(text).is_err_and(|error| error.contains("64KiB")), "{text}");
        }
        assert!(some_size("0").is_err_and(|error| error.contains("at least 1")));
    }

    #[test]
    fn durations_have_units_or_are_off() {
        let seconds = |count| Ok(Timeout(Some(Duration::from_secs(count))));
        for (text, timeout_is, patience_is) in [
            ("30s", seconds(30), seconds(30)),
            ("1m 30s", seconds(90), seconds(90)),
            ("off", Ok(Timeout(None)), Ok(Timeout(None))),
        ] {
            assert_eq!(timeout(text), timeout_is, "{text}");
            assert_eq!(patience(text), patience_is, "{text}");
        }
        assert!(timeout("0s").is_err_and(|error| error.contains("off")));
        assert_eq!(patience("0s"), seconds(0));
        for text in ["30", "", "soon", "-1s", "OFF", "99999999999999999999s"] {
            assert!(timeout(text).is_err_and(|error| error.contains("30s")), "{text}");
            assert!(patience(text).is_err_and(|error| error.contains("or off")), "{text}");
            assert!(duration(text).is_err_and(|error| error.contains("30s")), "{text}");
        }
    }

    #[test]
    fn numbers_and_permissions_are_bounded() {
        assert_eq!(count("7").map(NonZeroUsize::get), Ok(7));
        assert_eq!(backlog("65535"), Ok(65535));
        assert_eq!((mode("0660"), mode("600")), (Ok(0o660), Ok(0o600)));
        for text in ["0", "-1", "many", ""] {
            assert!(count(text).is_err_and(|error| error.contains("at least 1")), "{text}");
            assert!(backlog(text).is_err_and(|error| error.contains("1 to 65535")), "{text}");
        }
        for text in ["", "8", "1777", "+600", "rw", "0o600"] {
            assert!(mode(text).is_err_and(|error| error.contains("octal")), "{text}");
        }
    }

    #[test]
    fn a_delimiter_may_be_any_bytes() {
        for (text, bytes) in [
            (";", b";".as_slice()),
            (r"\r\n", b"\r\n"),
            (r"\n--\n", b"\n--\n"),
            (r"\0", b"\0"),
            (r"\x1e\xFF", b"\x1e\xff"),
            (r"a\\n", b"a\\n"),
            ("§", "§".as_bytes()),
        ] {
            let codec = format!("delimited:{text}").parse();
            assert_eq!(codec, Ok(Codec::Delimited(bytes.to_vec())), "{text}");
        }
        for (text, hint) in [
            ("delimited:", "empty"),
            (r"delimited:\", "half an escape"),
            (r"delimited:\q", r"unknown escape \q"),
            (r"delimited:\x1", "two hexadecimal digits"),
            (r"delimited:\x+1", "two hexadecimal digits"),
            (r"delimited:\xé", "two hexadecimal digits"),
            ("json", "there are lines"),
            ("", "there are lines"),
        ] {
            let error = text.parse::<Codec>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
