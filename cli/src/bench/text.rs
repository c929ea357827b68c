//! The report for people.

use nonforker_load::{Histogram, Usage, human};

use super::{flags::Mode, json::PERCENTILES, report::Report};
use crate::console::one_line;

/// Lines of the histogram, and characters of its longest bar.
const LINES: usize = 12;
const BAR: f64 = 40.0;

/// A few lines that fit a terminal.
pub(crate) fn report(report: &Report<'_>) -> String {
    let mut text = head(report);
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<11} {value}\n"));
    if report.args.load.mode != Mode::Idle {
        row("throughput", throughput(report));
    }
    if !report.measured.tally.latencies.is_empty() {
        row("latency", percentiles(&report.measured.tally.latencies));
    }
    if report.args.company.flooding > 0 {
        let flooding = &report.args.company;
        let rate = report.measured.per_second(report.measured.tally.flooding);
        row(
            "flooding",
            format!(
                "{} with {} in flight: {rate:.0} msgs/s",
                flooding.flooding, flooding.flood_in_flight
            ),
        );
    }
    if report.args.company.never_reading + report.args.company.trickling > 0 {
        row("bad company", company(report));
    }
    if let Some(usage) = &report.measured.server {
        row("server", server(report, usage));
    } else if report.args.report.pid.is_some() {
        row("server", "it has ended, or cannot be looked at any more".into());
    }
    row("errors", errors(report));
    for note in notes(report) {
        row("note", note);
    }
    text
}

fn head(report: &Report<'_>) -> String {
    let load = &report.args.load;
    let what = match load.mode {
        Mode::Echo if load.rate.is_some() => "echo, open loop".into(),
        Mode::Echo => format!("echo, {} in flight", load.in_flight),
        Mode::Idle => format!("idle after {} requests", load.exchange),
        Mode::Broadcast => format!("broadcast, {} lines at a time", load.in_flight),
    };
    format!(
        "{}: {} connections{}, {what}, {} bytes, {:.2} s{}\n",
        one_line(&report.args.address.to_string()),
        load.connections,
        if load.tls { " over TLS" } else { "" },
        load.size,
        report.measured.time.as_secs_f64(),
        if report.measured.interrupted { ", interrupted" } else { "" },
    )
}

fn throughput(report: &Report<'_>) -> String {
    let what = if report.args.load.mode == Mode::Broadcast { "deliveries/s" } else { "msgs/s" };
    let mut text =
        format!("{:.0} {what}   {:.1} MB/s", report.measured.rate(), report.measured.megabytes());
    if let Some(rate) = report.args.load.rate {
        text.push_str(&format!("   {rate} wanted"));
    }
    text
}

fn percentiles(latencies: &Histogram<u64>) -> String {
    let value = |at| human(latencies.value_at_percentile(at));
    PERCENTILES.map(|(name, _, at)| format!("{name} {}", value(at))).join("   ")
}

fn company(report: &Report<'_>) -> String {
    let company = &report.args.company;
    format!(
        "{} never reading, {} trickling: {} KiB sent, {} closed by the server",
        company.never_reading,
        company.trickling,
        report.measured.tally.slow_bytes / 1024,
        report.measured.tally.slow_closed,
    )
}

fn server(report: &Report<'_>, usage: &Usage) -> String {
    let mut text = String::new();
    if let Some(bytes) = report.measured.rss_per_connection() {
        text.push_str(&format!("{bytes:.0} bytes resident per connection   "));
    }
    if let Some(cost) = report.measured.cpu_us_per_message(usage) {
        let what = if report.args.load.mode == Mode::Broadcast { "delivery" } else { "message" };
        let about = if usage.is_exact { "" } else { "about " };
        text.push_str(&format!("{about}{cost:.3} µs of CPU per {what}   "));
    }
    let grown = usage.rss_after.cast_signed() - usage.rss_before.cast_signed();
    text + &format!("{} KiB resident ({:+})", usage.rss_after / 1024, grown / 1024)
}

fn errors(report: &Report<'_>) -> String {
    let faults = &report.measured.faults;
    match faults.sum() {
        0 => "none".into(),
        _ => format!(
            "{} not connected, {} closed, {} wrong, {} without a reply in time",
            faults.connect, faults.closed, faults.wrong, faults.late,
        ),
    }
}

fn notes(report: &Report<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let unanswered = report.measured.unanswered;
    if report.measured.is_rate_reached() == Some(false) {
        notes.push(format!(
            "the wanted rate was not reached; {unanswered} requests had no reply in the end"
        ));
    } else if unanswered > 0 {
        notes.push(format!("{unanswered} requests had no reply in the end"));
    }
    if let Some(rate) = report.measured.rate_without_requests() {
        notes.push(format!(
            "no request was due: at {rate} a second there is one every {}",
            human(whole(1e9 / rate))
        ));
    }
    if let Some(used) = report.measured.busy_share() {
        notes.push(format!(
            "the load itself used {:.0} % of a processor, and may be what limits",
            used * 100.0
        ));
    }
    notes
}

/// How often which latency was seen, as bars: each line covers the same factor.
pub(crate) fn histogram(latencies: &Histogram<u64>) -> String {
    let (low, high) = (latencies.min().max(1), latencies.value_at_percentile(99.9).max(2));
    let step = (high as f64 / low as f64).powf(1.0 / LINES as f64).max(1.001);
    let mut counts = [0; LINES];
    for value in latencies.iter_recorded() {
        let nth = (value.value_iterated_to() as f64 / low as f64).ln() / step.ln();
        // What is above the last line is the slowest thousandth.
        if let Some(line) = counts.get_mut(usize::try_from(whole(nth)).unwrap_or(LINES)) {
            *line += value.count_at_value();
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut text = String::from("\n");
    for (nth, count) in (1..).zip(counts) {
        let to = whole(low as f64 * step.powi(nth));
        let bar = "█".repeat(usize::try_from(whole(count as f64 / most * BAR)).unwrap_or(0));
        let share = count as f64 * 100.0 / latencies.len().max(1) as f64;
        text.push_str(&format!("  ≤ {:>9} {share:>6.2} % {bar}\n", human(to)));
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "latencies and lengths of bars, which are positive and far below the bounds"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_in_one_line_of_the_histogram_each() {
        let mut latencies = Histogram::new(3).unwrap();
        for nanos in 1..=1000_u64 {
            latencies.record(nanos * 1000).unwrap();
        }
        let text = histogram(&latencies);
        let shares = text.lines().filter_map(|line| line.split_whitespace().nth(3));
        let sum: f64 = shares.map(|share| share.parse::<f64>().unwrap()).sum();
        assert!((99.5..100.1).contains(&sum), "all but the slowest thousandth: {sum} in {text}");
    }

    #[test]
    fn one_latency_is_a_histogram_too() {
        let mut latencies = Histogram::new(3).unwrap();
        latencies.record(5000).unwrap();
        assert!(histogram(&latencies).contains("100.00 %"), "{}", histogram(&latencies));
    }
}
