//! The comparison as JSON: every measurement, and every median. `format` changes if a field changes
//! its meaning or goes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Comparison;
use crate::results::{Metric, Row};

pub(super) fn text(comparison: &Comparison) -> String {
    let facts: Map<String, Value> =
        comparison.facts.iter().map(|(name, fact)| ((*name).to_owned(), json!(fact))).collect();
    let skipped: Map<String, Value> =
        comparison.skipped.iter().map(|(peer, why)| ((*peer).to_owned(), json!(why))).collect();
    let versions: Map<String, Value> = comparison
        .versions
        .iter()
        .map(|(peer, which)| ((*peer).to_owned(), json!(which)))
        .collect();
    let cases: Map<String, Value> = comparison
        .cases
        .iter()
        .map(|case| (case.name.clone(), comparison.rows(case).iter().map(row).collect()))
        .collect();
    let runs: Vec<Value> = comparison
        .runs
        .iter()
        .map(|run| {
            json!({
                "case": run.case,
                "peer": run.peer,
                "round": run.round,
                "values": values(&run.sample.values),
                "fault": run.sample.fault,
            })
        })
        .collect();
    let all = json!({
        "format": 1,
        "facts": facts,
        "epoll_peak": comparison.peak,
        "versions": versions,
        "skipped": skipped,
        "cases": cases,
        "runs": runs,
    });
    format!("{all:#}\n")
}

fn row(row: &Row) -> Value {
    json!({
        "peer": row.peer,
        "runs": row.runs,
        "medians": values(&row.medians),
        "ratios": values(&row.ratios),
        "fault": row.fault,
    })
}

fn values(values: &BTreeMap<Metric, f64>) -> Map<String, Value> {
    values.iter().map(|(metric, value)| (metric.key().to_owned(), json!(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_and_every_median_is_there() {
        let value: Value = serde_json::from_str(&text(&super::super::example())).unwrap();
        assert_eq!(value["runs"].as_array().unwrap().len(), 5);
        let mio = &value["cases"]["64x1x64"][1];
        assert_eq!(mio["peer"], "mio");
        assert_eq!(mio["medians"]["cpu_us_per_message"], 8.25);
        assert_eq!(mio["ratios"]["cpu_us_per_message"], 1.1);
        assert_eq!(value["skipped"]["go"], "cannot install golang-go");
    }
}
