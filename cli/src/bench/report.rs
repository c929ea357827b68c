//! What came of a run: for people as text, for programs as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{faults::Faults, flags::BenchArgs, process::Usage};

/// The percentiles that are reported: how they are called, as text and in JSON, and where they are.
const PERCENTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 50.0),
    ("p90", "p90", 90.0),
    ("p99", "p99", 99.0),
    ("p99.9", "p99_9", 99.9),
    ("max", "max", 100.0),
];

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) args: &'a BenchArgs,
    /// Connections that were opened.
    pub(crate) connections: usize,
    /// How long was measured.
    pub(crate) time: Duration,
    pub(crate) messages: u64,
    pub(crate) latencies: Histogram<u64>,
    pub(crate) faults: Faults,
    /// What the server used meanwhile.
    pub(crate) server: Option<(u32, Usage)>,
    /// What we used meanwhile.
    pub(crate) own: Option<Usage>,
    pub(crate) interrupted: bool,
}

impl Report<'_> {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.time.as_secs_f64().max(1e-9)
    }

    fn megabytes(&self) -> f64 {
        self.rate() * self.args.load.size as f64 / 1e6
    }

    /// CPU time per message in microseconds; None if there was none.
    fn per_message(&self, usage: &Usage) -> Option<f64> {
        (self.messages > 0).then(|| usage.cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// A few lines for people.
    pub(crate) fn text(&self) -> String {
        let load = &self.args.load;
        let mut text = format!(
            "{}: {} connections, {} in flight, {} bytes\n\n{:>12.0} msgs/s {:>12.1} MB/s, each way, over {:.2} s{}\n",
            self.args.address,
            self.connections,
            load.in_flight,
            load.size,
            self.rate(),
            self.megabytes(),
            self.time.as_secs_f64(),
            if self.interrupted { " (interrupted)" } else { "" },
        );
        text.push_str("\nlatency    ");
        for (name, _, percentile) in PERCENTILES {
            let value = self.latencies.value_at_percentile(percentile);
            text.push_str(&format!("{name} {}   ", human(value)));
        }
        text.push('\n');
        if let Some((pid, usage)) = &self.server {
            let cost = self.per_message(usage);
            let cost = cost.map_or_else(|| "-".into(), |cost| format!("{cost:.3} µs"));
            text.push_str(&format!(
                "server     {cost} of CPU per message, {} KiB resident ({:+} KiB), process {pid}\n",
                usage.rss_after / 1024,
                (usage.rss_after.cast_signed() - usage.rss_before.cast_signed()) / 1024,
            ));
        }
        text
    }

    /// Everything, for programs. `docs/bench.md` says what each field is.
    pub(crate) fn json(&self) -> Value {
        let load = &self.args.load;
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let mut latency: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .map(|&(_, key, at)| {
                (key.to_owned(), json!(micros(self.latencies.value_at_percentile(at))))
            })
            .collect();
        latency.insert("mean".into(), json!(self.latencies.mean() / 1e3));
        latency.insert("count".into(), json!(self.latencies.len()));
        json!({
            "format": 1,
            "address": self.args.address.to_string(),
            "connections": self.connections,
            "in_flight": load.in_flight.get(),
            "size": load.size,
            "verified": !load.no_verify,
            "interrupted": self.interrupted,
            "seconds": self.time.as_secs_f64(),
            "messages": self.messages,
            "messages_per_second": self.rate(),
            "megabytes_per_second": self.megabytes(),
            "latency_us": latency,
            "errors": {
                "connect": self.faults.connect,
                "closed": self.faults.closed,
                "wrong": self.faults.wrong,
                "timeout": self.faults.late,
                "first": self.faults.first,
            },
            "server": self.server.as_ref().map(|(pid, usage)| self.usage_json(*pid, usage)),
            "client": self.own.as_ref().map(|usage| self.usage_json(std::process::id(), usage)),
        })
    }

    fn usage_json(&self, pid: u32, usage: &Usage) -> Value {
        json!({
            "pid": pid,
            "cpu_us_per_message": self.per_message(usage),
            "cpu_seconds": usage.cpu.as_secs_f64(),
            "cpu_exact": usage.is_exact,
            "context_switches": usage.switches,
            "rss_start": usage.rss_before,
            "rss_end": usage.rss_after,
        })
    }
}

/// Nanoseconds with the unit that suits them.
pub(crate) fn human(nanos: u64) -> String {
    match nanos as f64 {
        value if value < 1e3 => format!("{value} ns"),
        value if value < 1e6 => format!("{:.1} µs", value / 1e3),
        value if value < 1e9 => format!("{:.2} ms", value / 1e6),
        value => format!("{:.2} s", value / 1e9),
    }
}
