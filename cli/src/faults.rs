//! The flags for what a relay does wrong on purpose.

use std::time::Duration;

use clap::Args;
use nonforker::RelayFaults;

use crate::values;

/// See the [module](self).
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArgs {
    /// Delay what goes through by a time in this range, both ends included, in each direction: 50ms..200ms
    ///
    /// One time will do, too. The order stays, and so does the bound on what waits, --high-watermark.
    #[arg(long, value_name = "RANGE", value_parser = latency)]
    latency: Option<Latency>,

    /// Bound each direction of each connection to this many bytes a second: 10KiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = bandwidth)]
    bandwidth: Option<u64>,

    /// Close both ends of this share of connections in the middle: 1%
    ///
    /// It happens within the first 4 KiB of one direction, as do --reset and --stall. A connection has one
    /// of the three at most, and none if it is over before.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    cut: Option<f64>,

    /// Reset both ends of this share of connections: 1%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    reset: Option<f64>,

    /// Pass nothing more on, for ever, of this share of connections: 1%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    stall: Option<f64>,

    /// Pass bytes on in pieces of a length in this range, both ends included, each a send of its own: 1..7
    #[arg(long, value_name = "RANGE", value_parser = slice)]
    slice: Option<Slice>,

    /// On which number the faults depend, with the number of the connection and of the byte
    ///
    /// The same seed gives the same faults, whatever the time. With --shards the connections of each
    /// shard are counted by themselves.
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Latency(Duration, Duration);

#[derive(Clone, Copy, Debug)]
struct Slice(usize, usize);

impl FaultArgs {
    /// What cannot be done, if anything.
    pub(crate) fn check(&self) -> Option<(&'static str, String)> {
        let all: f64 = [self.cut, self.reset, self.stall].iter().flatten().sum();
        (all > 1.0 + 1e-9).then(|| {
            let what = "--cut, --reset and --stall are together more than 100%";
            (if self.cut.is_some() { "cut" } else { "reset" }, what.to_owned())
        })
    }

    pub(crate) fn faults(&self) -> RelayFaults {
        let faults = RelayFaults::new().seed(self.seed);
        let faults = faults.cut(self.cut.unwrap_or(0.0)).reset(self.reset.unwrap_or(0.0));
        let mut faults = faults.stall(self.stall.unwrap_or(0.0));
        if let Some(Latency(least, most)) = self.latency {
            faults = faults.latency(least, most);
        }
        if let Some(bandwidth) = self.bandwidth {
            faults = faults.bandwidth(bandwidth);
        }
        if let Some(Slice(least, most)) = self.slice {
            faults = faults.slice(least, most);
        }
        faults
    }
}

/// The two ends of `1..7`, or of `7`, which is both.
fn ends(text: &str) -> (&str, &str) {
    text.split_once("..").map_or((text, text), |(least, most)| {
        (least.trim(), most.strip_prefix('=').unwrap_or(most).trim())
    })
}

fn latency(text: &str) -> Result<Latency, String> {
    let (least, most) = ends(text);
    let hint =
        |_| format!("bad range {text:?}: write a duration with its unit, or two: 50ms..200ms");
    let least = values::duration(least).map_err(hint)?;
    let most = values::duration(most).map_err(hint)?;
    match (least <= most, most <= Duration::from_secs(3600)) {
        (true, true) => Ok(Latency(least, most)),
        (false, _) => Err(format!("bad range {text:?}: the first end is the lesser one")),
        (_, false) => Err(format!("bad range {text:?}: at most an hour")),
    }
}

fn bandwidth(text: &str) -> Result<u64, String> {
    let size = text.strip_suffix("/s").unwrap_or(text).trim();
    match values::size(size) {
        Ok(size @ 1..) => Ok(size as u64),
        _ => Err(format!("bad bandwidth {text:?}: write a size such as 10KiB/s, at least 1")),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("bad share {text:?}: write a percentage such as 1% or 0.5%")),
    }
}

fn slice(text: &str) -> Result<Slice, String> {
    let (least, most) = ends(text);
    match (least.parse::<usize>(), most.parse::<usize>()) {
        (Ok(least @ 1..), Ok(most)) if least <= most => Ok(Slice(least, most)),
        _ => Err(format!("bad range {text:?}: write two numbers such as 1..7, from 1 on")),
    }
}
