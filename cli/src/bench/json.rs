//! The report for programs. `docs/bench.md` says what each field is; `format` changes if one of
//! them changes its meaning or goes.

use nonforker_load::Usage;
use serde_json::{Map, Value, json};

use super::{flags::Mode, report::Report};

/// The percentiles that are reported: how they are called, as text and in JSON, and where they are.
pub(crate) const PERCENTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 50.0),
    ("p90", "p90", 90.0),
    ("p99", "p99", 99.0),
    ("p99.9", "p99_9", 99.9),
    ("max", "max", 100.0),
];

/// The whole report.
pub(crate) fn report(report: &Report<'_>) -> Value {
    let (args, load, faults) = (report.args, &report.args.load, &report.measured.faults);
    json!({
        "format": 1,
        "mode": load.mode.name(),
        "address": args.address.to_string(),
        "codec": load.codec.name(),
        "connections": load.connections,
        "connections_open": report.measured.open,
        "in_flight": load.in_flight.get(),
        "size": load.size,
        "spin": load.spin,
        "tls": load.tls,
        "verified": !load.no_verify,
        "interrupted": report.measured.interrupted,
        "seconds": report.measured.time.as_secs_f64(),
        "messages": report.measured.tally.messages,
        "messages_per_second": report.measured.rate(),
        "megabytes_per_second": report.measured.megabytes(),
        "target_rate": load.rate,
        "target_reached": report.measured.is_rate_reached(),
        "unanswered": report.measured.unanswered,
        "latency_us": latency(report),
        "errors": {
            "connect": faults.connect,
            "closed": faults.closed,
            "wrong": faults.wrong,
            "timeout": faults.late,
            "first": faults.first,
        },
        "flooding": flooding(report),
        "slow": slow(report),
        "idle": idle(report),
        "server": report.measured.server.as_ref().zip(args.report.pid).map(|(usage, pid)| used(report, pid, usage)),
        "client": report.measured.own.as_ref().map(|usage| used(report, std::process::id(), usage)),
    })
}

/// Null if there is none.
fn latency(report: &Report<'_>) -> Value {
    let latencies = &report.measured.tally.latencies;
    if latencies.is_empty() {
        return Value::Null;
    }
    let micros = |nanos: u64| json!(nanos as f64 / 1e3);
    let mut fields: Map<String, Value> = PERCENTILES
        .iter()
        .map(|&(_, key, at)| (key.into(), micros(latencies.value_at_percentile(at))))
        .collect();
    fields.insert("min".into(), micros(latencies.min()));
    fields.insert("mean".into(), json!(latencies.mean() / 1e3));
    fields.insert("count".into(), json!(latencies.len()));
    fields.into()
}

fn flooding(report: &Report<'_>) -> Option<Value> {
    let company = &report.args.company;
    (company.flooding > 0).then(|| {
        json!({
            "connections": company.flooding,
            "in_flight": company.flood_in_flight.get(),
            "messages": report.measured.tally.flooding,
            "messages_per_second": report.measured.per_second(report.measured.tally.flooding),
        })
    })
}

fn slow(report: &Report<'_>) -> Option<Value> {
    let company = &report.args.company;
    (company.never_reading + company.trickling > 0).then(|| {
        json!({
            "never_reading": company.never_reading,
            "trickling": company.trickling,
            "bytes_sent": report.measured.tally.slow_bytes,
            "closed_by_server": report.measured.tally.slow_closed,
        })
    })
}

fn idle(report: &Report<'_>) -> Option<Value> {
    (report.args.load.mode == Mode::Idle).then(|| {
        json!({
            "exchanged": report.args.load.exchange,
            "rss_per_connection": report.measured.rss_per_connection(),
        })
    })
}

fn used(report: &Report<'_>, pid: u32, usage: &Usage) -> Value {
    json!({
        "pid": pid,
        "cpu_us_per_message": report.measured.cpu_us_per_message(usage),
        "cpu_seconds": usage.cpu.as_secs_f64(),
        "cpu_exact": usage.is_exact,
        "context_switches": usage.switches,
        "rss_start": usage.rss_before,
        "rss_end": usage.rss_after,
    })
}
