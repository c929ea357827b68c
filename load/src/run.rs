//! The phases of a run, and what is looked at before and after each.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    error::Error,
    generator::Generator,
    load::{Load, Mode},
    measured::Measured,
    prepare,
    process::{Process, Snapshot, Usage},
    progress::{Phase, Progress},
};

/// Loads the server, and returns what came of it.
pub(crate) fn run(
    load: &Load,
    interrupted: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Measured, Error> {
    let server = Watched::new(load.pid.map(Process::find).transpose()?);
    let mut generator = prepare::prepare(load, interrupted)?;
    let window = match load.mode {
        Mode::Idle => hold(load, &mut generator, server, progress)?,
        Mode::Echo | Mode::Broadcast => drive(load, &mut generator, server, progress)?,
    };
    let is_mute = generator.is_owed();
    let open = generator.open();
    let unanswered = generator.unanswered();
    let Generator { tally, faults, .. } = generator;
    // Nothing was measured, so there is nothing to report but that.
    if window.answered == 0 && load.mode != Mode::Idle {
        let address = load.address.clone();
        if let Some(first) = faults.first {
            return Err(Error::Failed { address, first });
        }
        if is_mute {
            let time = load.duration.min(whole_millis(window.time));
            return Err(Error::Silent { address, time });
        }
    }
    Ok(Measured {
        load: load.clone(),
        mode: load.mode,
        open,
        time: window.time,
        tally,
        unanswered,
        faults,
        server: window.server,
        own: window.own,
        interrupted: interrupted.load(Relaxed),
    })
}

/// A time as people want to read it.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// What is known at the end of the time that is measured.
struct Window {
    time: Duration,
    /// Replies in the window, and to what was in flight at the end of it.
    answered: u64,
    server: Option<Usage>,
    own: Option<Usage>,
}

/// Warms up, and measures.
fn drive(
    load: &Load,
    generator: &mut Generator<'_>,
    mut server: Watched,
    progress: &mut dyn Progress,
) -> Result<Window, Error> {
    generator.begin();
    generator.run(Phase::WarmUp, load.warm_up, progress)?;
    if generator.is_interrupted() {
        return Err(Error::Interrupted { when: "in the warm-up: nothing was measured" });
    }
    let own = Watched::new(Process::own());
    server.look();
    generator.tally.clear();
    let time = generator.run(Phase::Measuring, load.duration, progress)?;
    let (server, own) = (server.used(), own.used());
    // Throughput is that of the window. Latency is that of all that was asked in it.
    let (messages, flooding) = (generator.tally.messages, generator.tally.flooding);
    progress.begin(Phase::Draining, None);
    generator.drain()?;
    let answered = generator.tally.messages;
    // A server that has never answered any request is none for this: that is said, and no more.
    if load.connections == 0 || generator.tally.slowest.is_some() {
        generator.fail_what_is_owed();
    }
    generator.count_unanswered();
    (generator.tally.messages, generator.tally.flooding) = (messages, flooding);
    Ok(Window { time, answered, server, own })
}

/// Has the connections exchange what they have to, then leaves them alone.
fn hold(
    load: &Load,
    generator: &mut Generator<'_>,
    server: Watched,
    progress: &mut dyn Progress,
) -> Result<Window, Error> {
    for _ in 0..load.exchange {
        if !generator.goes_on() {
            break;
        }
        generator.ask_once();
        generator.quiet()?;
    }
    // Replies are missing only after an interruption.
    generator.drain()?;
    generator.fail_what_is_owed();
    let answered = generator.tally.messages;
    generator.tally.clear();
    let time = generator.run(Phase::Holding, load.duration, progress)?;
    Ok(Window { time, answered, server: server.used(), own: None })
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
