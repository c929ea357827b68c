//! `nonforker bench`: loads a server, checks every reply, reports speed, latency and cost.
//!
//! ```text
//!  flags ──▶ prepare ──▶ measure ──▶ report ──▶ text, files (json, plot)
//!             │           │    ╲
//!          connect       load   process (what the server used)
//!                         │
//!                       client ── messages ── codec
//! ```
//!
//! It has a loop of its own and not the library's: a client that is to be faster than any server
//! cannot afford to be one.

mod bounds;
#[path = "../../../load/src/client.rs"]
mod client;
#[path = "../../../load/src/clock.rs"]
mod clock;
#[path = "../../../load/src/codec.rs"]
mod codec;
#[path = "../../../load/src/connect.rs"]
mod connect;
#[path = "../../../load/src/faults.rs"]
mod faults;
mod files;
mod flags;
mod json;
#[path = "../../../load/src/generator/mod.rs"]
mod load;
#[path = "../../../load/src/measure.rs"]
mod measure;
#[path = "../../../load/src/messages.rs"]
mod messages;
mod plot;
#[path = "../../../load/src/prepare.rs"]
mod prepare;
#[path = "../../../load/src/process.rs"]
mod process;
mod progress;
#[path = "../../../load/src/report.rs"]
mod report;
mod text;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use self::flags::{BenchArgs, EXAMPLES};
use self::{files::Files, report::Report};
use crate::{console, ending::Ending};

/// Loads a server, and reports.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Ending> {
    args.check()?;
    let files = Files::open(&args.report)?;
    let interrupted = until_interrupted()?;
    let report = measure::run(args, &interrupted)?;
    let failed = report
        .faults
        .first
        .as_ref()
        .map(|first| format!("{} connections failed; the first: {first}", report.faults.sum()));
    let wrong: Vec<String> = failed.into_iter().chain(publish(&report, files)).collect();
    match wrong.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Ending::Failed(wrong.join("; "))),
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

/// Prints the report, then writes the files that were asked for. Returns what could not be written.
fn publish(report: &Report<'_>, mut files: Files) -> Vec<String> {
    let latencies = &report.tally.latencies;
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
