//! Loading a server: with `nonforker bench`, or with `redis-benchmark`.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    process::{Result, Stop, now, run},
    results::{Metric, Sample},
    server::Server,
};

/// How much longer than asked for a load may take: connections have to be opened, and to fail.
const GRACE: Duration = Duration::from_secs(90);

/// How a server is loaded.
#[derive(Debug)]
pub(crate) struct Load<'s> {
    pub(crate) program: PathBuf,
    pub(crate) core: usize,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) stop: &'s Stop,
}

impl Load<'_> {
    /// Loads `server` with `nonforker bench` and these flags; its report.
    pub(crate) fn report(&self, server: &Server, flags: &[String]) -> Result<Value> {
        let mut command = self.pinned();
        command.arg(&self.program).arg("bench").arg(server.address.to_string()).args(flags);
        command.args(["--json", "-", "--pid", &server.pid().to_string()]);
        command.args(["-d", &format!("{}us", self.duration.as_micros())]);
        command.args(["--warm-up", &format!("{}us", self.warm_up.as_micros())]);
        let output = run(&mut command, self.duration + self.warm_up + GRACE, self.stop)?;
        // A run with wrong replies fails, and reports them.
        match serde_json::from_str(&output.stdout) {
            Ok(report) => Ok(report),
            Err(_) => Err(output.success("no report").err().unwrap_or_default()),
        }
    }

    /// The same, as a sample; a load that fails is one, too.
    pub(crate) fn sample(&self, server: &Server, flags: &[String]) -> Sample {
        self.report(server, flags).map_or_else(Sample::failed, |report| Sample::of_report(&report))
    }

    /// Loads a fresh server without and with a client that never reads.
    pub(crate) fn beside_never_reading(&self, server: &Server, flags: &[String]) -> Result<Sample> {
        let without = self.report(server, flags)?;
        let with = [flags, &["--never-reading".into(), "1".into()]].concat();
        let with = self.report(server, &with)?;
        let mut sample = Sample::of_report(&with);
        let rate = |report: &Value| report["messages_per_second"].as_f64();
        if let (Some(without), Some(with)) = (rate(&without), rate(&with)) {
            sample.values.insert(Metric::Kept, with / without);
        }
        let rss = |report: &Value| report["server"]["rss_end"].as_f64();
        if let (Some(without), Some(with)) = (rss(&without), rss(&with)) {
            sample.values.insert(Metric::Memory, with - without);
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
        let mut command = self.pinned();
        command.args(["redis-benchmark", "-p", &server.address.port().to_string(), "-c", "64"]);
        command.args(["-t", redis_test(what), "-P", &in_flight.to_string(), "--csv"]);
        command.args(["-n", &format!("{requests:.0}")]);
        let (cpu, begun) = (server.cpu()?, now());
        let output = run(&mut command, self.duration * 4 + GRACE, self.stop)?;
        let (spent, time) = (server.cpu()?.saturating_sub(cpu), begun.elapsed());
        let text = output.success("redis-benchmark")?;
        let rate = csv_rate(&text).unwrap_or(requests / time.as_secs_f64());
        Ok((rate, spent.as_secs_f64() * 1e6 / requests))
    }

    fn pinned(&self) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.core.to_string()]);
        command
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
