//! What a comparison found, for people (Markdown), programs (JSON) and the README (SVG).

mod json;
mod markdown;
mod svg;

use std::{fs, path::Path, process::Command};

use crate::{
    args::CompareArgs,
    cases::Case,
    prepare::{Ready, Skipped},
    process::Result,
    results::{Row, Run, rows},
    versions::version,
};

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) cases: Vec<Case>,
    pub(crate) skipped: Skipped,
    /// What was measured, and which version of it.
    versions: Vec<(&'static str, String)>,
    pub(crate) runs: Vec<Run>,
    /// Raw epoll's messages per second, if an open loop needed it.
    pub(crate) peak: Option<f64>,
    /// How it was measured, and where: names and values.
    facts: Vec<(&'static str, String)>,
}

impl Comparison {
    /// Of nothing so far. `root` is where the repository is.
    pub(crate) fn new(
        args: &CompareArgs,
        cases: Vec<Case>,
        (ready, skipped): (&[Ready], Skipped),
        root: &Path,
    ) -> Self {
        let facts = vec![
            ("rounds", args.rounds.to_string()),
            ("duration", format!("{:?}", args.duration)),
            ("warm_up", format!("{:?}", args.warm_up)),
            ("seed", args.seed.to_string()),
            ("processor", processor()),
            ("kernel", read_first_line("/proc/sys/kernel/osrelease")),
            ("compiler", rustc()),
        ];
        let of = |ready: &Ready| Some((ready.peer.name, version(ready.peer, root)?));
        let versions = ready.iter().filter_map(of).collect();
        Self { cases, skipped, versions, runs: Vec::new(), peak: None, facts }
    }

    fn rows(&self, case: &Case) -> Vec<Row> {
        rows(&self.runs, &case.name, case.job().reference().name)
    }
}

/// Writes everything that is known into a folder.
pub(crate) fn write(comparison: &Comparison, folder: &Path) -> Result<()> {
    let files = [
        ("compare.md", markdown::text(comparison)),
        ("compare.json", json::text(comparison)),
        ("compare.svg", svg::text(comparison)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    }
    Ok(())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| Some(line.split_once(": ")?.1))
        .collect();
    format!("{} × {}", models.len(), models.first().unwrap_or(&"unknown"))
}

fn read_first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The compiler's name and version.
pub(crate) fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".into())
}

#[cfg(test)]
pub(super) fn example() -> Comparison {
    use crate::{
        cases::cases,
        results::{Metric, Sample},
    };

    let mut runs = Vec::new();
    for (round, (epoll, mio)) in [(5.0, 5.5), (10.0, 11.0)].into_iter().enumerate() {
        for (peer, cpu) in [("epoll", epoll), ("mio", mio)] {
            let values = [(Metric::Cpu, cpu), (Metric::Rate, 1e6 / cpu)].into();
            let sample = Sample { values, fault: None };
            runs.push(Run { case: "64x1x64".into(), peer, round, sample });
        }
    }
    let sample = Sample::failed("wrong | <reply>".into());
    runs.push(Run { case: "64x1x64".into(), peer: "may", round: 0, sample });
    Comparison {
        cases: cases(&["64x1x64".to_owned()]).unwrap(),
        skipped: vec![("go", "cannot install golang-go".into())],
        versions: vec![("mio", "mio 1.2.5".into())],
        runs,
        peak: Some(150_000.0),
        facts: vec![("rounds", "2".into())],
    }
}
