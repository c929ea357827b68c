//! `nonforker bench`: loads a server, checks every reply, reports speed, latency and cost.
//!
//! ```text
//!  flags ──▶ prepare ──▶ measure ──▶ report ──▶ text, json, plot
//!             │           │    ╲
//!          connect       load   process (what the server used)
//!                         │
//!                       client ── messages ── codec
//! ```
//!
//! It has a loop of its own and not the library's: a client that is to be faster than any server
//! cannot afford to be one.

mod client;
mod clock;
mod codec;
mod connect;
mod faults;
mod flags;
mod json;
mod load;
mod measure;
mod messages;
mod plot;
mod prepare;
mod process;
mod progress;
mod report;
mod text;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use self::flags::{BenchArgs, EXAMPLES};
use self::report::Report;
use crate::{console, ending::Ending};

/// Loads a server, and reports.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Ending> {
    args.check()?;
    let interrupted = until_interrupted()?;
    let report = measure::run(args, &interrupted)?;
    publish(&report)?;
    match &report.faults.first {
        None => Ok(ExitCode::SUCCESS),
        Some(first) => Err(Ending::Failed(format!(
            "{} connections failed; the first: {first}",
            report.faults.sum(),
        ))),
    }
}

/// Set by the first SIGINT or SIGTERM; the second ends the program as if nobody listened.
fn until_interrupted() -> Result<Arc<AtomicBool>, Ending> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|error| Ending::Failed(format!("cannot take over the signals: {error}")))?;
    }
    Ok(flag)
}

/// Prints the report, and writes the files that were asked for.
fn publish(report: &Report<'_>) -> Result<(), Ending> {
    let files = &report.args.report;
    let latencies = &report.tally.latencies;
    let is_stdout = files.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &files.json {
        let json = format!("{:#}\n", json::report(report));
        let written = match is_stdout {
            true => io::stdout().write_all(json.as_bytes()),
            false => fs::write(path, json),
        };
        written.map_err(|error| cannot_write(path, &error))?;
    }
    if let Some(path) = files.plot.as_ref().filter(|_| !latencies.is_empty()) {
        let title = format!("{}: latency by percentile", report.args.address);
        fs::write(path, plot::svg(&title, latencies))
            .map_err(|error| cannot_write(path, &error))?;
    }
    if !is_stdout {
        let mut text = text::report(report);
        if io::stdout().is_terminal() && !latencies.is_empty() {
            text.push_str(&text::histogram(latencies));
        }
        console::print(io::stdout(), &text);
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> Ending {
    Ending::Failed(format!("cannot write {}: {error}", path.display()))
}
