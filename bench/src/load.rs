//! Loading a server: with the load of `nonforker bench`, or with `redis-benchmark`.

use std::{error::Error, process::Command, thread, time::Duration};

use nonforker_load::{Load, Measured, Process};

use crate::{
    process::{Result, Stop, now, pause, run},
    results::{Metric, Sample},
    server::Server,
};

/// How much longer than asked for `redis-benchmark` may take: connections have to be opened, and to
/// fail.
const GRACE: Duration = Duration::from_secs(90);

/// How long a server may take to close what has ended.
const SETTLES: Duration = Duration::from_millis(100);

/// How a server is loaded.
#[derive(Debug)]
pub(crate) struct Loader<'s> {
    pub(crate) core: usize,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) stop: &'s Stop,
}

impl Loader<'_> {
    /// Loads `server` on a thread that has a core of its own.
    pub(crate) fn measure(&self, server: &Server, load: Load) -> Result<Measured> {
        let load = load.duration(self.duration).warm_up(self.warm_up).pid(Some(server.pid()));
        let run = || {
            pin(self.core)?;
            load.run(self.stop.flag(), &mut ()).map_err(|error| text(&error))
        };
        let ended = thread::scope(|scope| scope.spawn(run).join());
        ended.unwrap_or_else(|_| Err("the load panicked".into()))
    }

    /// The same, as a sample; a load that fails is one, too.
    pub(crate) fn sample(&self, server: &Server, load: Load) -> Sample {
        self.measure(server, load).map_or_else(Sample::failed, |measured| Sample::of(&measured))
    }

    /// Opens connections one after the other, has each exchange a line, and ends all: what that costs
    /// the server for each, and how many a core can do.
    pub(crate) fn connects(&self, server: &Server, load: Load) -> Result<Sample> {
        let process = Process::find(server.pid()).map_err(|error| text(&error))?;
        let before = process.snapshot().map_err(|error| text(&error))?;
        let moment = Loader { duration: Duration::from_millis(1), ..*self };
        let measured = moment.measure(server, load)?;
        // What their ends cost is in it, too.
        pause(SETTLES);
        let used = process.since(&before).ok_or("the server has ended")?;
        let micros = used.cpu.as_secs_f64() * 1e6 / measured.open as f64;
        let values = [(Metric::Rate, 1e6 / micros), (Metric::Cpu, micros)];
        Ok(Sample { values: values.into(), ..Sample::of(&measured) })
    }

    /// Loads a fresh server without and with a client that never reads.
    pub(crate) fn beside_never_reading(&self, server: &Server, load: Load) -> Result<Sample> {
        let without = self.measure(server, load.clone())?;
        let with = self.measure(server, load.never_reading(1))?;
        let mut sample = Sample::of(&with);
        sample.values.insert(Metric::Kept, with.rate() / without.rate());
        if let (Some(without), Some(with)) = (without.server, with.server) {
            let grown = with.rss_after as f64 - without.rss_after as f64;
            sample.values.insert(Metric::Memory, grown);
        }
        Ok(sample)
    }

    /// Loads a store with `redis-benchmark`: about as many requests as fit into the time.
    pub(crate) fn redis(&self, server: &Server, command: &str, in_flight: usize) -> Result<Sample> {
        // A short run first, to warm up and to see how many requests fit.
        let rate = self.redis_once(server, command, in_flight, 20_000.0)?.0;
        let wanted = (rate * self.duration.as_secs_f64()).clamp(20_000.0, 5e7).round();
        let (rate, cpu) = self.redis_once(server, command, in_flight, wanted)?;
        let values = [(Metric::Rate, rate), (Metric::Cpu, cpu)];
        Ok(Sample { values: values.into(), fault: None })
    }

    /// Requests per second, and the server's CPU time for each, in µs. Opening the connections is
    /// in both; it is little of it.
    fn redis_once(
        &self,
        server: &Server,
        what: &str,
        in_flight: usize,
        requests: f64,
    ) -> Result<(f64, f64)> {
        let mut command = Command::new("taskset");
        command.args([
            "-c",
            &self.core.to_string(),
            "redis-benchmark",
            "-p",
            &server.address.port().to_string(),
            "-c",
            "64",
        ]);
        command.args(["-t", redis_test(what), "-P", &in_flight.to_string(), "--csv"]);
        command.args(["-n", &format!("{requests:.0}")]);
        let process = Process::find(server.pid()).map_err(|error| text(&error))?;
        let before = process.snapshot().map_err(|error| text(&error))?;
        let begun = now();
        let output = run(&mut command, self.duration * 4 + GRACE, self.stop)?;
        let time = begun.elapsed();
        let used = process.since(&before).ok_or("the server has ended")?;
        let text = output.success("redis-benchmark")?;
        let rate = csv_rate(&text).unwrap_or(requests / time.as_secs_f64());
        Ok((rate, used.cpu.as_secs_f64() * 1e6 / requests))
    }
}

/// Has the calling thread run on this core only.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) -> Result<()> {
    use nix::{
        sched::{CpuSet, sched_setaffinity},
        unistd::Pid,
    };

    let mut cores = CpuSet::new();
    // Process 0 is the calling thread.
    cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
        .map_err(|error| format!("cannot run on core {core}: {error}"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(core: usize) -> Result<()> {
    Err(format!("cannot run on core {core}: this needs Linux"))
}

/// An error, and its cause.
fn text(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// What `redis-benchmark` calls it; `ping` alone would be two tests.
fn redis_test(command: &str) -> &str {
    if command == "ping" { "ping_mbulk" } else { command }
}

/// Requests per second in `"test","rps",…` and a line of values.
fn csv_rate(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_a_table_with_commas() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"95238.10\",\"0.3\"\n";
        assert_eq!(csv_rate(text), Some(95238.10));
        assert_eq!(csv_rate("\"test\",\"rps\"\n"), None);
        assert_eq!(csv_rate(""), None);
    }
}
