//! How much each flag of `nonforker bench` may ask for, and why not more.
//!
//! A value beyond its bound is refused with the bound. What only all flags together can say, such as
//! requests in flight times their size, is checked in `flags`.

use std::{num::NonZeroUsize, time::Duration};

use crate::values;

type Parsed<T> = Result<T, String>;

/// The most bytes of a request, and the most that a connection may have in flight.
pub(crate) const WINDOW_MAX: usize = 256 * 1024 * 1024;

/// The most connections of one kind.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The most requests that a connection keeps unanswered: 16 bytes of books for each.
const IN_FLIGHT_MAX: usize = 1_000_000;

/// The most requests before a connection is held.
const EXCHANGE_MAX: usize = 1_000_000;

/// The least and the most requests per second.
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 1e9;

/// The most bytes per second of an open loop: those of the two longest phases fit a `u64`.
pub(crate) const BYTES_PER_SECOND_MAX: f64 = 1e12;

/// The longest phase of a run: at the highest rate, an `f64` still counts its requests exactly.
const PHASE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The longest that one thing is waited for: longer latencies are not told from each other.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Connections, 0 included.
pub(crate) fn connections(text: &str) -> Parsed<usize> {
    whole(text, 0, CONNECTIONS_MAX, "each takes a descriptor")
}

/// Requests in flight.
pub(crate) fn in_flight(text: &str) -> Parsed<NonZeroUsize> {
    let count = whole(text, 1, IN_FLIGHT_MAX, "the time of each is kept")?;
    Ok(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
}

/// Requests that are exchanged, 0 included.
pub(crate) fn exchange(text: &str) -> Parsed<usize> {
    whole(text, 0, EXCHANGE_MAX, "they are exchanged one after the other")
}

/// Bytes of a request.
pub(crate) fn size(text: &str) -> Parsed<usize> {
    match values::some_size(text)? {
        size if size > WINDOW_MAX => Err(format!(
            "bad size {text:?}: at most 256 MiB, since requests are kept in memory whole"
        )),
        size => Ok(size),
    }
}

/// Requests per second.
pub(crate) fn rate(text: &str) -> Parsed<f64> {
    match text.replace('_', "").parse() {
        Ok(rate) if (RATE_MIN..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "bad rate {text:?}: write requests per second, such as 50000, from {RATE_MIN} to \
             {RATE_MAX}: time is counted in nanoseconds"
        )),
    }
}

/// How long to measure.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    some(text, warm_up(text)?)
}

/// How long to load before that, 0 included.
pub(crate) fn warm_up(text: &str) -> Parsed<Duration> {
    time(text, PHASE_MAX, "all requests of a run are numbered")
}

/// How long to wait for a reply.
pub(crate) fn timeout(text: &str) -> Parsed<Duration> {
    some(text, time(text, WAIT_MAX, "latencies are told from each other up to that")?)
}

/// How long to wait between two bytes.
pub(crate) fn trickle_interval(text: &str) -> Parsed<Duration> {
    some(text, time(text, WAIT_MAX, "what sends less is idle; see --mode idle")?)
}

fn whole(text: &str, least: usize, most: usize, why: &str) -> Parsed<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(number) if number < least => {
            Err(format!("bad number {text:?}: write a whole number of at least {least}"))
        }
        // More digits than fit are too much, too.
        Ok(_) => Err(format!("bad number {text:?}: at most {most}, since {why}")),
        Err(_) if is_number => Err(format!("bad number {text:?}: at most {most}, since {why}")),
        Err(_) => Err(format!(
            "bad number {text:?}: write a whole number of at least {least} and at most {most}"
        )),
    }
}

fn time(text: &str, most: Duration, why: &str) -> Parsed<Duration> {
    let time = match humantime::parse_duration(text) {
        Err(humantime::DurationError::NumberOverflow) => Duration::MAX,
        _ => values::duration(text)?,
    };
    if time > most {
        let most = humantime::format_duration(most);
        return Err(format!("bad duration {text:?}: at most {most}, since {why}"));
    }
    Ok(time)
}

fn some(text: &str, time: Duration) -> Parsed<Duration> {
    match time {
        Duration::ZERO => Err(format!("bad duration {text:?}: it must not be 0")),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_included() {
        assert_eq!(connections("1000000"), Ok(CONNECTIONS_MAX));
        assert_eq!(connections("0"), Ok(0));
        assert_eq!(in_flight("1000000").map(NonZeroUsize::get), Ok(IN_FLIGHT_MAX));
        assert_eq!(exchange("1000000"), Ok(EXCHANGE_MAX));
        assert_eq!(size("256MiB"), Ok(WINDOW_MAX));
        assert_eq!((rate("0.001"), rate("1_000_000_000")), (Ok(RATE_MIN), Ok(RATE_MAX)));
        assert_eq!((duration("30d"), warm_up("30d")), (Ok(PHASE_MAX), Ok(PHASE_MAX)));
        assert_eq!((timeout("1h"), trickle_interval("1h")), (Ok(WAIT_MAX), Ok(WAIT_MAX)));
        assert_eq!(warm_up("0s"), Ok(Duration::ZERO));
        assert!(2.0 * PHASE_MAX.as_secs_f64() * BYTES_PER_SECOND_MAX < u64::MAX as f64);
        assert!(2.0 * PHASE_MAX.as_secs_f64() * RATE_MAX < 2f64.powi(f64::MANTISSA_DIGITS as i32));
    }
}
