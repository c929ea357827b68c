//! The flags of `nonforker bench`, and what contradicts itself in them.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Args;
use nonforker::Address;

use crate::values::{self, Codec};

pub(crate) const EXAMPLES: &str = "\
Examples:
  nonforker bench 127.0.0.1:1685                  64 connections, one request each in flight
  nonforker bench unix:/run/x.sock -c 8 -p 128    Pipelined, over a Unix socket
  nonforker bench 127.0.0.1:1685 --rate 50000     Latency at a load, which is what users feel
  nonforker bench 127.0.0.1:1685 --pid $(pidof nonforker)
                                                  What a message costs the server, in CPU time

Exit status: 0 if every reply was right and in time, 1 if not, 2 if a flag is wrong.";

/// What to load a server with.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The server: IP:PORT or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) address: Address,

    #[command(flatten, next_help_heading = "Load")]
    pub(crate) load: LoadArgs,
    #[command(flatten, next_help_heading = "Report")]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Connections
    #[arg(short, long, value_name = "N", default_value = "64", value_parser = whole)]
    pub(crate) connections: usize,

    /// Requests that each connection keeps unanswered
    #[arg(short = 'p', long, value_name = "N", default_value = "1", value_parser = values::count)]
    pub(crate) in_flight: NonZeroUsize,

    /// Bytes of a request, its end counted
    #[arg(short, long, value_name = "SIZE", default_value = "64", value_parser = values::some_size)]
    pub(crate) size: usize,

    /// How long to measure
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
    pub(crate) duration: Duration,

    /// How long to load the server before anything is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub(crate) warm_up: Duration,

    /// Where a request ends: lines, crlf, strict-crlf, delimited:STRING or raw
    #[arg(long, value_name = "CODEC", default_value = "lines")]
    pub(crate) codec: Codec,

    /// Count replies without comparing them with the requests
    ///
    /// For servers that answer something else. A reply is whatever ends like a request; with the
    /// raw codec, as many bytes as a request has.
    #[arg(long)]
    pub(crate) no_verify: bool,

    /// How long a reply may take before its connection counts as failed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The server's process on this machine: report its CPU time per message, and its memory
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Write the report as JSON to this file, or - for standard output and nothing else there
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// A whole number, 0 included.
fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("bad number {text:?}: write a whole number"))
}

/// A duration that is not 0.
fn some_time(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        Duration::ZERO => Err(format!("bad duration {text:?}: it must not be 0")),
        time => Ok(time),
    }
}
