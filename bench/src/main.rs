//! Compares nonforker with its peers. `docs/performance.md` says how, and what came of it.
//!
//! ```text
//! args ──▶ peers, cases ──▶ prepare ──▶ server + load ──▶ results ──▶ report
//!          what there is    build       run, measure      medians     Markdown, JSON, SVG
//! ```
//!
//! `instructions` and `syscalls` load with `lockstep` instead, and need no clock. `ticks` asks a server
//! how late its timers are, `publish` what it costs to deliver a message to many, and `operators`
//! measures the tools that put a program behind a port.

mod args;
mod baseline;
mod cases;
mod compare;
mod instructions;
mod job;
mod load;
mod lockstep;
mod operators;
mod peers;
mod prepare;
mod process;
mod publish;
mod report;
mod results;
mod server;
mod syscalls;
mod ticks;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, What},
    process::{Stop, say},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Stop::on_signals().and_then(|stop| match &cli.command {
        What::Compare(args) => compare::compare(args, &stop),
        What::Instructions(args) => instructions::instructions(args, &stop),
        What::Syscalls(args) => syscalls::syscalls(args, &stop),
        What::Ticks(args) => ticks::ticks(args, &stop),
        What::Publish(args) => publish::publish(args, &stop),
        What::Operators(args) => operators::operators(args, &stop),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(format_args!("bench: {why}"));
            ExitCode::FAILURE
        }
    }
}
