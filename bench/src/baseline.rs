//! `bench/baseline.json`: instructions per message as they were when somebody last looked.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    instructions::Counts,
    process::{Result, say},
    report,
};

/// By how much a number may differ.
const TOLERANCE: f64 = 0.02;

const HOW: &str = "cargo run --release -p bench -- instructions --record";

/// The numbers, and what they were compiled with: another compiler makes other ones.
#[derive(Debug, PartialEq)]
pub(crate) struct Baseline {
    compiler: String,
    architecture: String,
    counts: Counts,
}

impl Baseline {
    /// What has just been counted.
    pub(crate) fn now(counts: Counts) -> Self {
        Self { compiler: report::rustc(), architecture: std::env::consts::ARCH.into(), counts }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|why| format!("cannot read {}: {why}; record it: {HOW}", path.display()))?;
        Self::parse(&text).ok_or_else(|| format!("{} is not as {HOW} writes it", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let mut counts = Counts::new();
        for (peer, by_shape) in value["instructions"].as_object()? {
            for (in_flight, count) in by_shape.as_object()? {
                let in_flight = in_flight.parse().ok()?;
                counts.entry(peer.clone()).or_default().insert(in_flight, count.as_f64()?);
            }
        }
        let text = |key: &str| value[key].as_str().map(ToOwned::to_owned);
        Some(Self { compiler: text("compiler")?, architecture: text("architecture")?, counts })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text())
            .map_err(|why| format!("cannot write {}: {why}", path.display()))?;
        say(format_args!("recorded in {}", path.display()));
        Ok(())
    }

    fn text(&self) -> String {
        let rounded = |count: f64| (count * 10.0).round() / 10.0;
        let instructions: serde_json::Map<String, Value> = self
            .counts
            .iter()
            .map(|(peer, by_shape)| {
                let counts =
                    by_shape.iter().map(|(shape, count)| (shape.to_string(), rounded(*count)));
                (peer.clone(), counts.map(|(shape, count)| (shape, json!(count))).collect())
            })
            .collect();
        let value = json!({
            "what": "user-space instructions per 64-byte line echoed, by lines in flight",
            "how": HOW,
            "compiler": self.compiler,
            "architecture": self.architecture,
            "instructions": instructions,
        });
        format!("{value:#}\n")
    }

    /// An error if a number differs by more than is allowed, or is not there. If it was compiled
    /// with something else, the numbers mean nothing, and that is said.
    pub(crate) fn check(&self, counts: &Counts) -> Result<()> {
        let now = Self::now(Counts::new());
        if (&now.compiler, &now.architecture) != (&self.compiler, &self.architecture) {
            say(format_args!(
                "skipped: the baseline is of {} on {}, this is {} on {}; record it: {HOW}",
                self.compiler, self.architecture, now.compiler, now.architecture
            ));
            return Ok(());
        }
        let differences = self.differences(counts);
        if differences.is_empty() {
            say("instructions per message are those of bench/baseline.json");
            return Ok(());
        }
        let list = differences.join("\n  ");
        Err(format!("instructions per message differ:\n  {list}\nIf that is meant to be: {HOW}"))
    }

    fn differences(&self, counts: &Counts) -> Vec<String> {
        let mut list = Vec::new();
        for (peer, by_shape) in counts {
            for (in_flight, &count) in by_shape {
                let before = self.counts.get(peer).and_then(|counts| counts.get(in_flight));
                let what = format!("{peer}, {in_flight} in flight: {count:.1}");
                match before {
                    None => list.push(format!("{what}, which is not recorded")),
                    Some(&before) if (count / before - 1.0).abs() > TOLERANCE => {
                        let percent = (count / before - 1.0) * 100.0;
                        list.push(format!("{what}, was {before:.1} ({percent:+.1} %)"));
                    }
                    Some(_) => {}
                }
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(one: f64, sixteen: f64) -> Counts {
        [("nonforker-poll".to_owned(), [(1, one), (16, sixteen)].into())].into()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline::now(counts(391.2, 101.0));
        assert_eq!(Baseline::parse(&baseline.text()), Some(baseline));
        assert_eq!(Baseline::parse("{}"), None);
    }

    #[test]
    fn two_percent_more_or_less_is_a_difference() {
        let baseline = Baseline::now(counts(400.0, 100.0));
        #[rustfmt::skip]
        let table = [
            (400.0, 100.0, 0),
            (407.9,  98.1, 0),
            (408.1, 100.0, 1),
            (391.9, 100.0, 1),
            (300.0, 200.0, 2),
        ];
        for (one, sixteen, expected) in table {
            let list = baseline.differences(&counts(one, sixteen));
            assert_eq!(list.len(), expected, "{one}, {sixteen}: {list:?}");
        }
        assert!(baseline.check(&counts(500.0, 100.0)).unwrap_err().contains("+25.0 %"));
        let other = [("mio".to_owned(), [(1, 300.0)].into())].into();
        assert!(baseline.differences(&other)[0].contains("not recorded"));
    }

    #[test]
    fn numbers_of_another_compiler_are_not_compared() {
        let baseline =
            Baseline { compiler: "rustc 1.0.0".into(), ..Baseline::now(counts(1.0, 1.0)) };
        assert_eq!(baseline.check(&counts(2.0, 2.0)), Ok(()));
    }

    #[test]
    fn the_baseline_in_the_repository_can_be_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
        let baseline = Baseline::read(&path).unwrap();
        assert!(baseline.counts["nonforker-poll"].contains_key(&16), "{baseline:?}");
    }
}
