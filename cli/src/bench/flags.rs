//! The flags of `nonforker bench`, and the load that they ask for.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use nonforker::Address;
use nonforker_load::{Error, Load};

use super::{bounds, codec::Codec};
use crate::ending::{Ending, chain};

pub(crate) const EXAMPLES: &str = "\
Examples:
  nonforker bench 127.0.0.1:1685                  64 connections, one request each in flight
  nonforker bench unix:/run/x.sock -c 8 -p 128    Pipelined, over a Unix socket
  nonforker bench 127.0.0.1:1685 --rate 50000     Latency at a given load, which is what users feel
  nonforker bench 127.0.0.1:1685 --pid $(pidof nonforker) --json -
                                                  What a message costs the server in CPU time
  nonforker bench 127.0.0.1:1685 --never-reading 1 --trickling 10
                                                  Do bad clients slow the good ones down?
  nonforker bench 127.0.0.1:1685 --flooding 4     Do greedy ones? Latency is that of the others
  nonforker bench 127.0.0.1:1685 --mode idle -c 10000 --exchange 1 -s 16KiB -d 2s --pid $PID
                                                  Memory per connection that has done its work
  nonforker bench 127.0.0.1:1685 --mode broadcast -c 5000
                                                  A chat: each line to all, then the next
  nonforker bench 127.0.0.1:1685 --tls            Over TLS
  nonforker bench 127.0.0.1:6379 --codec resp     A Redis server: ECHO, and each reply compared

For numbers that mean something, give the server and the load processors of their own:
  taskset -c 0 nonforker --quiet &
  taskset -c 1 nonforker bench 127.0.0.1:1685 --pid $!

When the time is up the load waits for what is in flight: until it is answered, or until nothing has
moved for 1 s and twice what the slowest reply took. What is unanswered then is an error.
Ctrl-C ends the run and reports what was measured so far.
Exit status: 0 if every reply was right and in time; 1 if not, or if the server cannot be reached or
a file cannot be written; 2 if a flag is wrong.";

/// What to load a server with.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The server: IP:PORT or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) address: Address,

    #[command(flatten, next_help_heading = "Load")]
    pub(crate) load: LoadArgs,
    #[command(flatten, next_help_heading = "Bad company")]
    pub(crate) company: CompanyArgs,
    #[command(flatten, next_help_heading = "Report")]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// What the connections do
    #[arg(short, long, value_name = "MODE", value_enum, default_value_t = Mode::Echo)]
    pub(crate) mode: Mode,

    /// Connections, at most 1000000; 0 leaves only the bad company
    #[arg(short, long, value_name = "N", default_value = "64", value_parser = bounds::connections)]
    pub(crate) connections: usize,

    /// Requests that each connection keeps unanswered; lines of a broadcast that go out together
    ///
    /// They leave in one write, and as many more as replies came with each read. At most 1000000, and
    /// 256 MiB.
    #[arg(short = 'p', long, value_name = "N", default_value = "1", value_parser = bounds::in_flight)]
    pub(crate) in_flight: NonZeroUsize,

    /// Bytes of a request, its end counted, at most 256MiB; with resp, of the string to be echoed
    #[arg(short, long, value_name = "SIZE", default_value = "64", value_parser = bounds::size)]
    pub(crate) size: usize,

    /// Send this many requests a second, over all connections, whether or not replies come
    ///
    /// Without this the loop is closed: a slow server is asked less. With it latency counts from
    /// when a request was due, not from when it could leave. From 0.001 to 1000000000, and at most
    /// 1 TB of requests a second.
    #[arg(long, value_name = "R", value_parser = bounds::rate)]
    pub(crate) rate: Option<f64>,

    /// How long to measure, at most 30days; how long to hold idle connections
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = bounds::duration)]
    pub(crate) duration: Duration,

    /// How long to load the server before anything is measured, at most 30days
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = bounds::warm_up)]
    pub(crate) warm_up: Duration,

    /// Where a request ends: lines, crlf, strict-crlf, delimited:STRING or raw; or resp
    ///
    /// With resp a request is Redis' command ECHO with a string of --size bytes, and its reply is
    /// that string: for redis-server, and whatever else its clients can talk to.
    #[arg(long, value_name = "CODEC", default_value = "lines")]
    pub(crate) codec: Codec,

    /// Count replies without comparing them with the requests
    ///
    /// For servers that answer something else. A reply is whatever ends like a request; with raw
    /// and resp, as many bytes as the right reply would have.
    #[arg(long)]
    pub(crate) no_verify: bool,

    /// Requests that each idle connection exchanges before it is held, at most 1000000
    #[arg(long, value_name = "N", default_value = "0", value_parser = bounds::exchange)]
    pub(crate) exchange: usize,

    /// Wait for replies without sleeping
    ///
    /// It takes a whole processor, and keeps the time that the load needs to wake up out of the
    /// latencies. Not for a processor that the server needs, too.
    #[arg(long)]
    pub(crate) spin: bool,

    /// Encrypt: each connection begins with a TLS handshake, which is not measured
    ///
    /// TLS 1.3, or 1.2 if the server knows no other. The server's certificate is not looked at. Needs a
    /// build with TLS.
    #[arg(long)]
    pub(crate) tls: bool,

    /// How long a reply may take before its connection counts as failed, at most 1h
    ///
    /// It counts from when the request was put up for sending; with --rate, from when it was due.
    /// It is also how long a connection may take to open.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = bounds::timeout)]
    pub(crate) timeout: Duration,
}

/// Connections that are there to be a burden. What is measured is how the others fare.
#[derive(Debug, Args)]
pub(crate) struct CompanyArgs {
    /// Connections that send requests for as long as they are taken, and never read; at most 1000000
    #[arg(long, value_name = "N", default_value = "0", value_parser = bounds::connections)]
    pub(crate) never_reading: usize,

    /// Connections that send a request byte by byte, at most 1000000
    #[arg(long, value_name = "N", default_value = "0", value_parser = bounds::connections)]
    pub(crate) trickling: usize,

    /// How long they wait between two bytes, at most 1h
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = bounds::trickle_interval)]
    pub(crate) trickle_interval: Duration,

    /// Connections that have more requests in flight than the others, at most 1000000
    #[arg(long, value_name = "N", default_value = "0", value_parser = bounds::connections)]
    pub(crate) flooding: usize,

    /// Requests that each of those keeps unanswered, at most 1000000
    #[arg(long, value_name = "N", default_value = "2048", value_parser = bounds::in_flight)]
    pub(crate) flood_in_flight: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The server's process on this machine: report its CPU time per message, and its memory
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Write the report as JSON to this file, or - for standard output and nothing else there
    ///
    /// The file is opened, and emptied, before the load begins. So is that of --plot.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the latencies by percentile, as SVG, into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Ask, and expect the same bytes back
    Echo,
    /// Be there, and nothing else
    Idle,
    /// Receive every line that one more connection sends
    Broadcast,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Idle => "idle",
            Self::Broadcast => "broadcast",
        }
    }

    fn to_load(self) -> nonforker_load::Mode {
        match self {
            Self::Echo => nonforker_load::Mode::Echo,
            Self::Idle => nonforker_load::Mode::Idle,
            Self::Broadcast => nonforker_load::Mode::Broadcast,
        }
    }
}

impl BenchArgs {
    /// The load that the flags ask for.
    pub(crate) fn to_load(&self) -> Load {
        let (load, company) = (&self.load, &self.company);
        Load::new(self.address.clone())
            .mode(load.mode.to_load())
            .connections(load.connections)
            .in_flight(load.in_flight.get())
            .size(load.size)
            .rate(load.rate)
            .duration(load.duration)
            .warm_up(load.warm_up)
            .codec(load.codec.to_load())
            .verify(!load.no_verify)
            .exchange(load.exchange)
            .spin(load.spin)
            .timeout(load.timeout)
            .tls(load.tls)
            .never_reading(company.never_reading)
            .trickling(company.trickling)
            .trickle_interval(company.trickle_interval)
            .flooding(company.flooding)
            .flood_in_flight(company.flood_in_flight.get())
            .pid(self.report.pid)
    }

    /// Refuses what cannot be done together, or would measure nothing.
    pub(crate) fn check(&self) -> Result<(), Ending> {
        if self.report.json.is_some() && self.report.json == self.report.plot {
            let wrong = "--json and --plot: these are two reports, and need two files";
            return Err(Ending::Usage(wrong.into()));
        }
        Ok(self.to_load().check()?)
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(what) => Self::Usage(in_flags(&what)),
            Error::Process(what) => Self::Failed(format!("--pid: {what}")),
            other => Self::Failed(chain(&other)),
        }
    }
}

/// A text that names settings in backticks, with flags instead.
fn in_flags(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    let pieces = pieces.map(|(nth, piece)| match nth % 2 {
        0 => piece.to_owned(),
        _ => format!("--{}", piece.replace('_', "-")),
    });
    pieces.collect()
}
