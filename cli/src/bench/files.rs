//! The files of a report: opened before the load begins, written when it has ended.
//!
//! A run may take hours. So a place that cannot be written is found out before it, as a shell does
//! it with `>`: what was in a file is gone from then on.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{flags::ReportArgs, json, plot, report::Report};
use crate::ending::Ending;

/// Where a report goes, besides the lines for people.
#[derive(Debug)]
pub(crate) struct Files {
    json: Option<Target>,
    plot: Option<Target>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// None is standard output.
    file: Option<File>,
}

impl Files {
    /// Opens what is asked for.
    pub(crate) fn open(args: &ReportArgs) -> Result<Self, Ending> {
        let json = match args.json.as_deref() {
            Some(path) if path == Path::new("-") => Some(Target { path: path.into(), file: None }),
            Some(path) => Some(Target::create("--json", path)?),
            None => None,
        };
        let plot = args.plot.as_deref().map(|path| Target::create("--plot", path)).transpose()?;
        Ok(Self { json, plot })
    }

    /// Whether standard output is to be JSON and nothing else.
    pub(crate) fn take_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|json| json.file.is_none())
    }

    /// Writes the report as JSON, if that is asked for.
    pub(crate) fn write_json(&mut self, report: &Report<'_>) -> Result<(), String> {
        let Some(json) = &mut self.json else { return Ok(()) };
        json.write("--json", &format!("{:#}\n", json::report(report)))
    }

    /// Draws its latencies, if that is asked for.
    pub(crate) fn write_plot(&mut self, report: &Report<'_>) -> Result<(), String> {
        let Some(plot) = &mut self.plot else { return Ok(()) };
        let title = format!("{}: latency by percentile", report.args.address);
        plot.write("--plot", &plot::svg(&title, &report.measured.tally.latencies))
    }
}

impl Target {
    fn create(flag: &str, path: &Path) -> Result<Self, Ending> {
        let file = File::create(path).map_err(|error| {
            Ending::Failed(format!("{flag}: cannot write {}: {error}", path.display()))
        })?;
        Ok(Self { path: path.into(), file: Some(file) })
    }

    fn write(&mut self, flag: &str, text: &str) -> Result<(), String> {
        let written = match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()),
            None => io::stdout().write_all(text.as_bytes()),
        };
        written.map_err(|error| format!("{flag}: cannot write {}: {error}", self.path.display()))
    }
}
