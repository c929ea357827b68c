//! `nonforker bench`: loads a server, checks every reply, reports speed, latency and cost.
//!
//! ```text
//!  flags ──▶ connect ──▶ load ──▶ report (text, JSON)
//!                         │ ╲
//!                   client  process (what the server used)
//!                         │
//!                     messages
//! ```

mod client;
mod clock;
mod connect;
mod faults;
mod flags;
mod load;
mod messages;
mod process;
mod progress;
mod report;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed},
};

use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::Socket;

pub(crate) use self::flags::{BenchArgs, EXAMPLES};
use self::{
    client::Check,
    faults::Faults,
    load::{Load, Manner, READ_BYTES},
    messages::Messages,
    process::Process,
    progress::Progress,
    report::Report,
};
use crate::{console, ending::Ending, values::Codec};

/// Loads a server, and reports.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Ending> {
    let interrupted = until_interrupted()?;
    let report = measure(args, &interrupted)?;
    publish(&report)?;
    match report.faults.first {
        None => Ok(ExitCode::SUCCESS),
        Some(ref first) => Err(Ending::Failed(format!(
            "{} of {} connections failed; the first: {first}",
            report.faults.sum(),
            args.load.connections,
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

fn measure<'a>(args: &'a BenchArgs, interrupted: &AtomicBool) -> Result<Report<'a>, Ending> {
    let (flags, manner) = (&args.load, manner(args));
    let window = flags.in_flight.get().saturating_mul(flags.size);
    let messages =
        Messages::new(flags.size, end(&flags.codec), flags.connections, window.max(READ_BYTES))
            .map_err(Ending::Usage)?;
    let server = args.report.pid.map(Process::find).transpose()?;
    connect::reserve(flags.connections)?;
    let mut faults = Faults::default();
    let sockets = connect(args, &mut faults)?;
    let connections = sockets.len();

    let progress = Progress::new();
    let mut load = Load::new(sockets, messages, manner, interrupted)?;
    load.faults = faults;
    load.begin();
    progress.name("warm-up");
    load.run(flags.warm_up, &progress)?;

    let own = Process::own();
    let before = (snapshot(server.as_ref()), snapshot(own.as_ref()));
    load.reset();
    progress.name("measuring");
    let time = load.run(flags.duration, &progress)?;
    let used = |process: Option<&Process>, before: Option<_>| process?.since(&before?);
    let usage = used(server.as_ref(), before.0);
    let own = used(own.as_ref(), before.1);
    progress.end();

    let Load { tally, faults, .. } = load;
    if let (0, Some(first)) = (tally.messages, &faults.first) {
        return Err(Ending::Failed(format!("{}: {first}", args.address)));
    }
    Ok(Report {
        args,
        connections,
        time,
        messages: tally.messages,
        latencies: tally.latencies,
        faults,
        server: server.map(|process| process.pid()).zip(usage),
        own,
        interrupted: interrupted.load(Relaxed),
    })
}

fn snapshot(process: Option<&Process>) -> Option<process::Snapshot> {
    process?.snapshot().ok()
}

fn manner(args: &BenchArgs) -> Manner {
    let load = &args.load;
    let check = match (load.no_verify, end(&load.codec).last()) {
        (false, _) => Check::Same,
        (true, Some(&end)) => Check::Ends(end),
        (true, None) => Check::Length,
    };
    Manner { in_flight: load.in_flight.get(), check, timeout: load.timeout }
}

/// What a request ends in.
fn end(codec: &Codec) -> &[u8] {
    match codec {
        Codec::Lines => b"\n",
        Codec::Crlf | Codec::StrictCrlf => b"\r\n",
        Codec::Delimited(end) => end,
        Codec::Raw => b"",
    }
}

/// Opens the connections, as many as can be: what comes after a failure is not tried.
fn connect(args: &BenchArgs, faults: &mut Faults) -> Result<Vec<Socket>, Ending> {
    let wanted = args.load.connections;
    let mut sockets = Vec::with_capacity(wanted);
    while sockets.len() < wanted {
        match connect::open(&args.address, sockets.len(), args.load.timeout) {
            Ok(socket) => sockets.push(socket),
            Err(error) if sockets.is_empty() => {
                return Err(Ending::Failed(format!("cannot connect to {}: {error}", args.address)));
            }
            Err(error) => {
                let left = (wanted - sockets.len()) as u64;
                let nth = sockets.len();
                faults.not_opened(left, format_args!("cannot open connection {nth}: {error}"));
                break;
            }
        }
    }
    Ok(sockets)
}

/// Prints the report, and writes the files that were asked for.
fn publish(report: &Report<'_>) -> Result<(), Ending> {
    let path = report.args.report.json.as_deref();
    let is_stdout = path == Some(Path::new("-"));
    if let Some(path) = path {
        let text = format!("{:#}\n", report.json());
        let written = match is_stdout {
            true => io::stdout().write_all(text.as_bytes()),
            false => fs::write(path, text),
        };
        written.map_err(|error| {
            Ending::Failed(format!("cannot write the report to {}: {error}", path.display()))
        })?;
    }
    if !is_stdout {
        console::print(io::stdout(), &report.text());
    }
    Ok(())
}
