//! Signals: the first SIGTERM or SIGINT drains, the second ends at once, the rest do no harm.
//!
//! SIGWINCH and SIGCHLD do nothing by themselves, and SIGPIPE is ignored by Rust's runtime.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::SigSet;
use nonforker::Handle;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    low_level::signal_name,
};

use crate::ending::{Ending, chain};

/// How long the loop has to end by itself, once it was told to end at once.
const STUCK: Duration = Duration::from_secs(1);

/// Signals that are ours, and wait to be obeyed.
#[derive(Debug)]
pub(crate) struct Signals(signal_hook::iterator::Signals);

/// Whether the end was cut short by a second signal.
#[derive(Debug)]
pub(crate) struct CutShort(Arc<AtomicBool>);

impl CutShort {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Signals {
    /// Takes the signals over for the whole process, also if our parent ignored or blocked them.
    /// Nothing happens to them before [`obey`](Self::obey).
    ///
    /// To be called on the main thread.
    pub(crate) fn take_over() -> Result<Self, Ending> {
        let failed = |what: &dyn std::error::Error| {
            Ending::Failed(format!("cannot take over the signals: {}", chain(what)))
        };
        let ours = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];
        let signals = signal_hook::iterator::Signals::new(ours).map_err(|error| failed(&error))?;
        SigSet::all().thread_unblock().map_err(|error| failed(&error))?;
        Ok(Self(signals))
    }

    /// Obeys the signals, from now on, on a thread of their own.
    pub(crate) fn obey(mut self, server: Handle) -> Result<CutShort, Ending> {
        let cut_short = Arc::new(AtomicBool::new(false));
        let told = CutShort(Arc::clone(&cut_short));
        let obey = move || {
            let mut draining = false;
            for signal in self.0.forever() {
                let name = signal_name(signal).unwrap_or("a signal");
                match signal {
                    SIGTERM | SIGINT if draining => {
                        tracing::warn!("{name} again: ending at once");
                        cut_short.store(true, Relaxed);
                        server.stop();
                        exit_if_stuck();
                    }
                    SIGTERM | SIGINT => {
                        tracing::info!("{name}: ending when what has arrived is answered");
                        draining = true;
                        server.drain();
                    }
                    _ => tracing::info!("{name}: nothing to do"),
                }
            }
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(obey)
            .map_err(|error| Ending::Failed(format!("cannot start a thread: {error}")))?;
        Ok(told)
    }
}

/// Ends the process unless the main thread does it first.
#[expect(clippy::disallowed_methods, reason = "on the thread of the signals, not of the server")]
fn exit_if_stuck() -> ! {
    thread::sleep(STUCK);
    process::exit(1)
}
