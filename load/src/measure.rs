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
    let is_mute = load.is_owed();
    let open = load.open();
    let unanswered = load.unanswered();
    let Load { tally, faults, .. } = load;
    let interrupted = interrupted.load(Relaxed);
    // Nothing was measured, so there is nothing to report but that.
    if measured.answered == 0 && args.load.mode != Mode::Idle {
        if let Some(first) = &faults.first {
            return Err(Ending::Failed(format!("{}: {first}", args.address)));
        }
        if is_mute {
            return Err(Ending::Failed(format!(
                "{}: not one reply came in {}; does it answer with what it is sent?",
                args.address,
                humantime::format_duration(args.load.duration.min(whole_millis(measured.time))),
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

/// A time as people want to read it.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// What is known at the end of the window.
struct Measured {
    time: Duration,
    /// Replies in the window, and to what was in flight at the end of it.
    answered: u64,
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
    let (server, own) = (server.used(), own.used());
    // Throughput is that of the window. Latency is that of all that was asked in it.
    let (messages, flooding) = (load.tally.messages, load.tally.flooding);
    progress.name("draining");
    load.drain()?;
    let answered = load.tally.messages;
    // A server that has never answered any request is none for this: that is said, and no more.
    if args.load.connections == 0 || load.tally.slowest.is_some() {
        load.fail_what_is_owed();
    }
    load.count_unanswered();
    (load.tally.messages, load.tally.flooding) = (messages, flooding);
    Ok(Measured { time, answered, server, own })
}

/// Has the connections do what they have to, then leaves them alone.
fn hold(
    args: &BenchArgs,
    load: &mut Load<'_>,
    server: Watched,
    progress: &Progress,
) -> Result<Measured, Ending> {
    for _ in 0..args.load.exchange {
        if !load.goes_on() {
            break;
        }
        load.ask_once();
        load.quiet()?;
    }
    // Something is owed only after an interruption.
    load.drain()?;
    load.fail_what_is_owed();
    let answered = load.tally.messages;
    load.tally.clear();
    progress.name("holding");
    let time = load.run(args.load.duration, progress)?;
    Ok(Measured { time, answered, server: server.used(), own: None })
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
