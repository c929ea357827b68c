//! The log: what the library tells through `tracing`, as text or JSON, on standard error.

use std::{
    io::{self, IsTerminal},
    mem, panic,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tracing::{Subscriber, level_filters::LevelFilter};

use crate::{ending::Ending, sink::Sink};

/// What is logged: this and what is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing
    Off,
    /// What costs a connection and should not
    Error,
    /// What an operator should look at
    Warn,
    /// What happens once in a while
    Info,
    /// Every connection
    Debug,
    /// Everything
    Trace,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set
    Text,
    /// For machines: one object a line
    Json,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// The running log. When it is dropped, the last lines are printed.
#[derive(Debug)]
pub(crate) struct Log(Sink);

impl Log {
    /// Starts logging, panics included.
    pub(crate) fn start(level: Level, format: Format) -> Result<Self, Ending> {
        let sink = Sink::default();
        let colours = io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        sink.print_to(io::stderr(), colours)
            .map_err(|error| Ending::Failed(format!("cannot start a thread: {error}")))?;
        tracing::subscriber::set_global_default(subscriber(level, format, colours, sink.clone()))
            .map_err(|error| Ending::Failed(error.to_string()))?;
        panic::set_hook(Box::new(log_panic));
        Ok(Self(sink))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

fn subscriber(
    level: Level,
    format: Format,
    colours: bool,
    sink: Sink,
) -> Box<dyn Subscriber + Send + Sync> {
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(colours)
        .log_internal_errors(false)
        .with_writer(move || sink.clone());
    match format {
        Format::Text => Box::new(builder.finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

/// How many panics are logged in a second: a client may have a library panic, which costs it its connection, and
/// is not to have the log as well.
const PANICS_PER_SECOND: u64 = 5;

/// How many panics the present second had, and how many were left out in all since one was logged.
#[derive(Debug)]
struct Panics {
    since: Option<Instant>,
    count: u64,
    left_out: u64,
}

static PANICS: Mutex<Panics> = Mutex::new(Panics { since: None, count: 0, left_out: 0 });

impl Panics {
    /// Whether this one is logged, and then how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now > since + Duration::from_secs(1)) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        if self.count > PANICS_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        Some(mem::take(&mut self.left_out))
    }
}

/// Logs a panic where the default hook would print it, and might wait for ever to do so.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    #[expect(clippy::disallowed_methods, reason = "panics come in real time")]
    let now = Instant::now();
    let admitted = PANICS.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
    let Some(left_out) = admitted else { return };
    let payload = panic.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("of an unknown kind");
    let at = panic.location().map(ToString::to_string);
    tracing::error!(at, left_out, "panic: {message}");
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    const EVIL: &str = "a\x1b[2Jb\u{9b}2Jc\nd\re\u{7}";

    /// What is printed for one event, as text or JSON.
    fn printed(format: Format, colours: bool, log: impl FnOnce()) -> String {
        let (mut reader, writer) = pipe().unwrap();
        let sink = Sink::default();
        sink.print_to(writer, colours).unwrap();
        let subscriber = subscriber(Level::Trace, format, colours, sink.clone());
        tracing::subscriber::with_default(subscriber, log);
        sink.finish();
        let mut bytes = [0; 4096];
        let count = reader.read(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn what_a_peer_sends_cannot_steer_the_terminal_or_forge_a_line() {
        for format in [Format::Text, Format::Json] {
            for colours in [false, true] {
                let log = || tracing::info!(text = EVIL, shown = %EVIL, "{EVIL}");
                let line = printed(format, colours, log);
                let line = line.strip_suffix('\n').expect("it is a line");
                for evil in ["\x1b[2J", "\u{9b}", "\n", "\r", "\u{7}"] {
                    assert!(!line.contains(evil), "{format:?}: {line:?}");
                }
                if !colours {
                    assert!(!line.contains(char::is_control), "{format:?}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn colours_are_for_terminals() {
        let line = |colours| printed(Format::Text, colours, || tracing::warn!("hello"));
        assert!(line(true).contains("\x1b["));
        assert!(!line(false).contains('\x1b'));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn who_causes_panics_does_not_have_the_log() {
        let (mut panics, now) = (Panics { since: None, count: 0, left_out: 0 }, Instant::now());
        let logged: Vec<_> = (0..1000).filter_map(|_| panics.admit(now)).collect();
        assert_eq!(logged, [0; 5]);
        let later = now + Duration::from_millis(1001);
        assert_eq!((panics.admit(later), panics.admit(later)), (Some(995), Some(0)));
    }

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let line = printed(Format::Json, false, || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let _ = panic::catch_unwind(|| panic!("over\nthere"));
            panic::set_hook(before);
        });
        assert!(line.contains(r"panic: over\nthere") && line.contains("log.rs:"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
