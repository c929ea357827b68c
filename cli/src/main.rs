//! The `nonforker` program: serves many clients from one process, without writing any code.
//!
//! ```text
//!  flags ──▶ args ◀── config (a file whose keys are the flags)
//!             │
//!             ▼
//!           serve ──▶ handlers ──▶ nonforker::Server
//!             │  ╲
//!         signals  log ──▶ sink ──▶ standard error
//! ```
//!
//! `relay` is served in the same way. And `sim` and `bench`, which need none of this: see `sim.rs` and `bench/mod.rs`.
//!
//! Exit status: 0 if it ended and cut nobody off, 1 if it could not serve or cut clients off, 2 if
//! it was asked for something that cannot be.

mod access;
mod allocator;
mod args;
mod bench;
mod check;
mod codecs;
mod complaint;
mod config;
mod console;
mod ending;
mod exec;
mod faults;
mod handlers;
mod log;
mod relay;
mod scenarios;
mod serve;
mod signals;
mod sim;
mod sink;
mod tls;
mod to_tls;
mod values;
mod worker;

use std::process::ExitCode;

use args::Task;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let task = signals::survive_full_files().and_then(|()| args::from(std::env::args_os()));
    let ended = task.and_then(|task| match task {
        Task::Serve(args) => serve::run(&args),
        Task::Relay(args) => relay::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Bench(args) => bench::run(&args),
    });
    ended.unwrap_or_else(ending::Ending::tell)
}
