//! The phases of a run, and what is looked at before and after each.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use super::{
    flags::{BenchArgs, Mode},
    load::Load,
    prepare,
    process::{Process, Snapshot, Usage},
    progress::Progress,
    report::Report,
};
use crate::ending::Ending;

/// How long an open loop waits for what is owed in the end.
const GRACE: Duration = Duration::from_secs(1);

/// Loads the server, and tells what came of it.
pub(crate) fn run<'a>(args: &'a BenchArgs, interrupted: &AtomicBool) -> Result<Report<'a>, Ending> {
    let server = Watched::new(args.report.pid.map(Process::find).transpose()?);
    let mut load = prepare::load(args, interrupted)?;
    let progress = Progress::new();
    let measured = match args.load.mode {
        Mode::Idle => hold(args, &mut load, server, &progress)?,
        Mode::Echo | Mode::Broadcast => drive(args, &mut load, server, &progress)?,
    };
    progress.end();
    let open = load.open();
    let unanswered = load.unanswered();
    let Load { tally, faults, .. } = load;
    let interrupted = interrupted.load(Relaxed);
    // Nothing was measured, so there is nothing to report but that.
    if tally.messages == 0 && args.load.mode != Mode::Idle {
        if let Some(first) = &faults.first {
            return Err(Ending::Failed(format!("{}: {first}", args.address)));
        }
        if args.load.connections > 0 && !interrupted {
            return Err(Ending::Failed(format!(
                "{}: not one reply came in {}; does it answer with what it is sent?",
                args.address,
                humantime::format_duration(args.load.duration),
            )));
        }
    }
    Ok(Report {
        args,
        open,
        time: measured.time,
        tally,
        unanswered,
        faults,
        server: measured.server,
        own: measured.own,
        interrupted,
    })
}

/// What is known at the end of the window.
struct Measured {
    time: Duration,
    server: Option<Usage>,
    own: Option<Usage>,
}

/// Warms up, and measures.
fn drive(
    args: &BenchArgs,
    load: &mut Load<'_>,
    mut server: Watched,
    progress: &Progress,
) -> Result<Measured, Ending> {
    load.begin();
    progress.name("warm-up");
    load.run(args.load.warm_up, progress)?;
    if load.is_interrupted() {
        progress.end();
        return Err(Ending::Failed("interrupted in the warm-up: nothing was measured".into()));
    }
    let own = Watched::new(Process::own());
    server.look();
    load.tally.clear();
    progress.name("measuring");
    let time = load.run(args.load.duration, progress)?;
    let measured = Measured { time, server: server.used(), own: own.used() };
    if args.load.rate.is_some() {
        // Throughput is that of the window. Latency is that of all that was due in it.
        let messages = load.tally.messages;
        load.quiet(GRACE)?;
        load.count_unanswered();
        load.tally.messages = messages;
    }
    Ok(measured)
}

/// Has the connections do what they have to, then leaves them alone.
fn hold(
    args: &BenchArgs,
    load: &mut Load<'_>,
    server: Watched,
    progress: &Progress,
) -> Result<Measured, Ending> {
    for _ in 0..args.load.exchange {
        load.ask_once();
        load.quiet(args.load.timeout.saturating_add(GRACE))?;
    }
    load.tally.clear();
    progress.name("holding");
    let time = load.run(args.load.duration, progress)?;
    Ok(Measured { time, server: server.used(), own: None })
}

/// A process, and what it had used when it was last looked at.
struct Watched {
    process: Option<Process>,
    before: Option<Snapshot>,
}

impl Watched {
    fn new(process: Option<Process>) -> Self {
        let mut watched = Self { process, before: None };
        watched.look();
        watched
    }

    fn look(&mut self) {
        self.before = self.process.as_ref().and_then(|process| process.snapshot().ok());
    }

    /// What it has used since; None if it has ended.
    fn used(&self) -> Option<Usage> {
        self.process.as_ref()?.since(self.before.as_ref()?)
    }
}
