//! The comparison as Markdown: one table of ratios over all cases, and one table per case.

use super::Comparison;
use crate::{
    cases::Case,
    peers::Job,
    results::{Metric, Row},
};

/// What a median over nothing is shown as.
const NOTHING: &str = "–";

pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = String::from("# Comparison\n\n");
    for (name, fact) in &comparison.facts {
        text += &format!("- {}: {fact}\n", name.replace('_', " "));
    }
    if let Some(peak) = comparison.peak {
        text += &format!("- raw epoll's peak with 64 connections: {peak:.0} messages/s\n");
    }
    for (peer, why) in &comparison.skipped {
        text += &format!("- skipped: {peer}: {}\n", cell(why));
    }
    let mut versions: Vec<String> = Vec::new();
    for (peer, which) in &comparison.versions {
        let version = format!("{peer}: {which}");
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    text += &format!("- versions: {}\n", cell(&versions.join("; ")));
    text += &overview(comparison);
    for case in &comparison.cases {
        text += &table(case, &comparison.rows(case));
    }
    text
}

/// The server's CPU time per message, divided by raw epoll's: a row per server, a column per case.
fn overview(comparison: &Comparison) -> String {
    let is_echo = |case: &&Case| case.job() == Job::Echo;
    let tables: Vec<(&str, Vec<Row>)> = comparison
        .cases
        .iter()
        .filter(is_echo)
        .map(|case| (case.name.as_str(), comparison.rows(case)))
        .filter(|(_, rows)| rows.iter().any(|row| row.ratios.contains_key(&Metric::Cpu)))
        .collect();
    let mut peers: Vec<&str> = Vec::new();
    for row in tables.iter().flat_map(|(_, rows)| rows) {
        if !peers.contains(&row.peer) {
            peers.push(row.peer);
        }
    }
    if tables.is_empty() {
        return String::new();
    }
    peers.sort_by_key(|name| crate::peers::names().iter().position(|known| known == name));
    let mut head = vec!["CPU ÷ raw epoll's".to_owned()];
    head.extend(tables.iter().map(|(name, _)| (*name).to_owned()));
    let lines = peers.iter().map(|peer| {
        let mut line = vec![(*peer).to_owned()];
        line.extend(tables.iter().map(|(_, rows)| {
            let row = rows.iter().find(|row| row.peer == *peer);
            let ratio = row.and_then(|row| row.ratios.get(&Metric::Cpu));
            ratio.map_or_else(|| NOTHING.into(), |ratio| format!("{ratio:.2}"))
        }));
        line
    });
    format!("\n## Server CPU per message\n\n{}", grid(&head, lines))
}

/// A case: what was measured of any server is a column.
fn table(case: &Case, rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let has = |metric: &Metric| rows.iter().any(|row| row.medians.contains_key(metric));
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(has).collect();
    let is_compared = |metric: &Metric| rows.iter().any(|row| row.ratios.contains_key(metric));
    let compared: Vec<Metric> = Metric::COMPARED.into_iter().filter(is_compared).collect();
    let reference = case.job().reference().name;

    let mut head = vec!["server".to_owned()];
    head.extend(metrics.iter().map(|metric| metric.title().to_owned()));
    head.extend(compared.iter().map(|metric| {
        let what = metric.title().split_whitespace().next().unwrap_or_default();
        format!("{what} ÷ {reference}'s")
    }));
    head.push("runs".into());

    let mut rows: Vec<&Row> = rows.iter().collect();
    let key = |row: &Row| {
        let value = row.medians.get(&Metric::Cpu).or_else(|| row.medians.get(&Metric::Memory));
        value.copied().unwrap_or(f64::INFINITY)
    };
    rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let lines = rows.iter().map(|row| line(row, &metrics, &compared));
    format!("\n## {}\n\n{}", case.name, grid(&head, lines))
}

fn line(row: &Row, metrics: &[Metric], compared: &[Metric]) -> Vec<String> {
    let mut line = vec![row.peer.to_owned()];
    line.extend(metrics.iter().map(|metric| {
        row.medians.get(metric).map_or_else(|| NOTHING.into(), |value| metric.text(*value))
    }));
    line.extend(compared.iter().map(|metric| {
        row.ratios.get(metric).map_or_else(|| NOTHING.into(), |ratio| format!("{ratio:.2}"))
    }));
    line.push(match &row.fault {
        None => row.runs.to_string(),
        Some(fault) => format!("{}; {}", row.runs, cell(fault)),
    });
    line
}

/// A table whose first column is text and whose others are numbers.
fn grid(head: &[String], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|---|{}\n", head.join(" | "), "--:|".repeat(head.len() - 1));
    for line in lines {
        text += &format!("| {} |\n", line.join(" | "));
    }
    text
}

/// Text that does not end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_row_for_each_server_and_cells_for_each_column() {
        let text = text(&super::super::example());
        assert!(text.contains("| mio | 136364 | 8.25 | 1.10 | 0.91 | 2 |"), "{text}");
        assert!(text.contains("| may | – | – | – | – | 1; wrong \\| &lt;reply> |"), "{text}");
        assert!(text.contains("- skipped: go: cannot install golang-go\n"), "{text}");
        assert!(
            text.contains(
                "| CPU ÷ raw epoll's | 64x1x64 |\n|---|--:|\n| epoll | 1.00 |\n| mio | 1.10 |"
            ),
            "{text}"
        );
        for block in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let widths = block.lines().map(|line| line.replace("\\|", "").matches('|').count());
            let widths: Vec<usize> = widths.collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{block}");
        }
    }
}
