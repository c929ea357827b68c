//! The flags, and the help that teaches them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{cases, peers};

const ABOUT: &str = "\
Compares nonforker with hand-written loops and with other frameworks.

Every server does the same job: lines, each sent back, correct with partial reads and writes. Peers
are built or installed quietly the first time; one that cannot be had is skipped, with why. All of
them are alive at once, on a core of their own, and are measured by turns in an order that is shuffled
in each round; ratios are taken within a round. Run it as root on Debian to have packages installed.";

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p bench -- compare --peers mio,nonforker-poll --scenarios 64x1x64,64x16x64
  cargo run --release -p bench -- compare --rounds 1 --duration 300ms    Does every peer work?
  cargo run --release -p bench -- compare                                All of it: about an hour
  cargo run --release -p bench -- instructions --check                   Has a message become dearer?
  cargo run --release -p bench -- syscalls
  cargo run --release -p bench -- publish                                A message to 5000
  cargo run --release -p bench -- operators                              A program behind a port
  cargo run --release -p bench -- ticks                                  How late is a timer?";

/// The program.
#[derive(Debug, Parser)]
#[command(name = "bench", about = ABOUT, after_help = EXAMPLES, version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: What,
}

/// What to find out.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Measure speed, CPU time per message, latency and memory; write tables
    #[command(after_help = lists())]
    Compare(CompareArgs),
    /// Count instructions per message in user space, with valgrind: a number without noise
    Instructions(InstructionArgs),
    /// Count system calls per message, with strace
    Syscalls(SyscallArgs),
    /// Measure how late a timer of 10 ms is, and what it and a message cost
    Ticks(TickArgs),
    /// Measure what it costs to deliver a message to many, also if some of them never read
    Publish(PublishArgs),
    /// Measure the program beside socat, ncat, tcpserver, websocketd, haproxy and systemd-socket-proxyd
    Operators(OperatorArgs),
}

/// Which tools, with how many clients.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Only these tools
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) tools: Vec<String>,

    /// Numbers of clients, each at most 3000
    #[arg(long, value_name = "N", value_delimiter = ',', default_values = ["1", "100", "2000"], value_parser = clients)]
    pub(crate) clients: Vec<usize>,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) duration: Duration,

    /// The core of the tools, and of what they start
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,

    /// The core of the load, and of the server that relays relay to
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub(crate) load_core: usize,
}

/// To whom is published, and what.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Only these servers; epoll is always there
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,

    /// Subscribers that read; at most 6000
    #[arg(long, value_name = "N", default_value = "5000", value_parser = count)]
    pub(crate) subscribers: usize,

    /// Subscribers besides that never read; at most 6000
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub(crate) stuck: usize,

    /// Bytes of a message, from 9 to 65000
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values = ["64", "4096"], value_parser = message)]
    pub(crate) sizes: Vec<usize>,

    /// How often each server is measured with each size
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) duration: Duration,

    /// Messages per second at most [default: the next one when all have the last]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// The core of the servers
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,
}

/// How many ticks.
#[derive(Debug, Args)]
pub(crate) struct TickArgs {
    /// Ticks of 10 ms, over each driver; the machine should be idle
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u16).range(10..))]
    pub(crate) ticks: u16,
}

/// What to compare, and how long.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Only these servers; the one that others are divided by is always there
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,

    /// Only these scenarios
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) scenarios: Vec<String>,

    /// How often each server is measured in each scenario
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) duration: Duration,

    /// How long the server is loaded before it
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = time)]
    pub(crate) warm_up: Duration,

    /// The core of the servers
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,

    /// The core of the load
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub(crate) load_core: usize,

    /// What the order is shuffled with
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Where compare.md, compare.json and compare.svg go [default: target/bench]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Whose instructions to count, and what to do with the numbers.
#[derive(Debug, Args)]
pub(crate) struct InstructionArgs {
    /// Only these servers [default: epoll,nonforker-poll,mio,tokio; nonforker-poll for --check]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,

    /// Write the numbers to bench/baseline.json
    #[arg(long, conflicts_with = "check")]
    pub(crate) record: bool,

    /// Fail if a number differs from bench/baseline.json by more than 2 %
    #[arg(long)]
    pub(crate) check: bool,
}

/// Whose system calls to count.
#[derive(Debug, Args)]
pub(crate) struct SyscallArgs {
    /// Only these servers [default: epoll,uring,nonforker-poll,nonforker-uring,mio,tokio,monoio]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("write a duration such as 300ms or 1s".into()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count <= 6000).ok_or_else(|| "from 0 to 6000".into())
}

fn clients(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=3000).contains(count))
        .ok_or_else(|| "from 1 to 3000".into())
}

fn message(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|size| (9..=65_000).contains(size))
        .ok_or_else(|| "from 9 to 65000".into())
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&rate| rate > 0.0 && rate < 1e9).ok_or_else(|| "more than 0".into())
}

/// The peers and the scenarios, for the help.
fn lists() -> String {
    let mut text = format!("Peers:\n  {}\n\nScenarios:\n", peers::names().join(", "));
    for (name, what) in cases::SCENARIOS {
        text += &format!("  {name:<14} {what}\n");
    }
    text + &format!("\nWithout --scenarios:\n  {}", cases::DEFAULT.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_sound_and_the_help_names_every_peer() {
        Cli::command().debug_assert();
        for name in peers::names() {
            assert!(lists().contains(name), "{name}");
        }
    }

    #[test]
    fn times_have_units_and_are_not_zero() {
        assert_eq!(time("300ms"), Ok(Duration::from_millis(300)));
        for bad in ["0s", "1", "", "-1s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
