//! How much each flag of `nonforker bench` may ask for, and why not more.
//!
//! A value beyond its bound is refused with the bound. The load itself checks what only all flags
//! together can say, such as requests in flight times their size.

use std::{num::NonZeroUsize, time::Duration};

use nonforker_load::bounds::{
    CONNECTIONS_MAX, EXCHANGE_MAX, IN_FLIGHT_MAX, PHASE_MAX, RATE_MAX, RATE_MIN, WAIT_MAX,
    WINDOW_MAX,
};

use crate::values;

type Parsed<T> = Result<T, String>;

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
    some(text, time(text, WAIT_MAX, "longer latencies all count as that")?)
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
    }
}
