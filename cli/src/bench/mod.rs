//! `nonforker bench`: loads a server, checks every reply, reports speed, latency and cost.
//!
//! ```text
//!  flags ──▶ nonforker_load ──▶ report ──▶ text, files (json, plot)
//!                  │
//!              progress
//! ```

mod bounds;
mod codec;
mod files;
mod flags;
mod json;
mod plot;
mod progress;
mod report;
mod text;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

pub(crate) use self::flags::{BenchArgs, EXAMPLES};
use self::{files::Files, progress::Bar, report::Report};
use crate::{console, ending::Ending, signals};

/// Loads a server, and reports.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Ending> {
    args.check()?;
    let files = Files::open(&args.report)?;
    let interrupted = signals::interrupt_flag()?;
    let measured = args.to_load().run(&interrupted, &mut Bar::new())?;
    let report = Report { args, measured };
    let faults = &report.measured.faults;
    let failed = faults
        .first
        .as_ref()
        .map(|first| format!("{} connections failed; the first: {first}", faults.sum()));
    let wrong: Vec<String> = failed.into_iter().chain(publish(&report, files)).collect();
    match wrong.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Ending::Failed(wrong.join("; "))),
    }
}

/// Prints the report, then writes the files that were asked for. Returns what could not be written.
fn publish(report: &Report<'_>, mut files: Files) -> Vec<String> {
    let latencies = &report.measured.tally.latencies;
    let text = text::report(report);
    if !files.take_stdout() {
        console::print(io::stdout(), &text);
        if io::stdout().is_terminal() && !latencies.is_empty() {
            console::print(io::stdout(), &text::histogram(latencies));
        }
    }
    let json = files.write_json(report);
    if json.is_err() && files.take_stdout() {
        // What was measured is not to be lost.
        console::print(io::stderr(), &text);
    }
    json.err().into_iter().chain(files.write_plot(report).err()).collect()
}
