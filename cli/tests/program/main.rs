//! The program as its users meet it: a process with flags, sockets, signals and broken terminals.
//!
//! Every test starts processes of its own, on ports that the kernel chooses, and ends them by
//! their ids. What is waited for is bounded by [`support::PATIENCE`], far above what it takes.

#![expect(clippy::disallowed_methods, reason = "tests wait for other processes, in real time")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "that is how a test fails")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod access;
mod bench;
mod bench_faults;
mod bench_modes;
mod bench_refusals;
mod bench_resp;
mod bench_silence;
mod bounds;
mod clients;
mod config;
mod conversations;
mod drivers;
mod environment;
mod errors;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod every_signal;
mod exec;
mod help;
mod memory;
mod proxy;
mod relay;
mod signals;
mod sim;
mod stderr;
mod support;
mod tagged;
#[cfg(feature = "tls")]
mod tls;
mod unix;
mod workers;
