//! The comparison as a picture: for each case a panel of bars, shortest first. Bars are the server's
//! CPU time per message, or bytes where memory is what was measured.

use super::Comparison;
use crate::{
    cases::Case,
    results::{Metric, Row},
};

const WIDTH: f64 = 640.0;
/// Where bars begin, right of the names.
const LEFT: f64 = 130.0;
/// What the numbers right of the bars need.
const RIGHT: f64 = 150.0;
const BAR: f64 = 14.0;
const STEP: f64 = 20.0;
const HEAD: f64 = 34.0;

pub(super) fn text(comparison: &Comparison) -> String {
    let mut panels = String::new();
    let mut y = 0.0;
    for case in &comparison.cases {
        let rows = comparison.rows(case);
        let Some(metric) = [Metric::Cpu, Metric::Memory]
            .into_iter()
            .find(|metric| rows.iter().any(|row| row.medians.contains_key(metric)))
        else {
            continue;
        };
        y += panel(case, metric, &rows, y, &mut panels);
    }
    let height = y + 10.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #333 }} .own {{ fill: #c2410c }} .limit {{ fill: #64748b }} \
         .peer {{ fill: #93b4d8 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}\
         </style>\n{panels}</svg>\n"
    )
}

/// Draws a case below `y`; how high it is.
fn panel(case: &Case, metric: Metric, rows: &[Row], y: f64, svg: &mut String) -> f64 {
    let mut bars: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((row, row.medians.get(&metric).copied()?.max(0.0))))
        .collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let longest = bars.last().map_or(0.0, |(_, value)| *value).max(f64::MIN_POSITIVE);
    let what = if metric == Metric::Cpu { "server CPU, µs per message" } else { "resident bytes" };
    let title = y + 22.0;
    *svg += &format!(
        "<text x=\"4\" y=\"{title}\" font-weight=\"bold\">{}: {what}</text>\n",
        escape(&case.name)
    );
    for (nth, (row, value)) in bars.iter().enumerate() {
        let top = y + HEAD + STEP * nth as f64;
        let (base, length) = (top + 11.0, (WIDTH - LEFT - RIGHT) * value / longest);
        let (name_end, number) = (LEFT - 6.0, LEFT + length + 6.0);
        let ratio = row.ratios.get(&metric).map(|ratio| format!(" (×{ratio:.2})"));
        *svg += &format!(
            "<text x=\"{name_end}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR}\"/>\
             <text x=\"{number:.1}\" y=\"{base:.1}\">{}{}</text>\n",
            escape(row.peer),
            class(row.peer),
            metric.text(*value),
            ratio.unwrap_or_default(),
        );
    }
    HEAD + STEP * bars.len() as f64
}

/// Ours, the limits, and the peers look different.
fn class(peer: &str) -> &'static str {
    match peer {
        "epoll" | "uring" => "limit",
        _ if peer.starts_with("nonforker") => "own",
        _ => "peer",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let text = text(&super::super::example());
        let widths: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_once("<rect class")?.1.split_once("width=\""))
            .map(|(_, rest)| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 2, "what failed has no bar: {text}");
        assert!((widths[0] / widths[1] - 7.5 / 8.25).abs() < 0.01, "{widths:?}");
        assert!(text.contains("(×1.10)"), "{text}");
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let mut comparison = super::super::example();
        comparison.runs.clear();
        let text = text(&comparison);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n") && !text.contains("<rect"));
    }
}
