//! Signals: the first SIGTERM or SIGINT drains, the second ends at once, the rest do no harm.
//!
//! What each signal of signal(7) does, and why, is the table in `docs/signals.md`; a test sends
//! each of them. Here are those that would kill the program by default and must not. The others
//! keep their default, and SIGPIPE is ignored by Rust's runtime.
//!
//! [`nonforker::signals`] does what is needed for it. Not
//! [`Server::drain_on_signals`](nonforker::Server::drain_on_signals), which knows two signals and
//! takes them over when the server is bound. The program has to be earlier.

use std::{
    error::Error,
    io, process,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use nonforker::{
    Handle,
    signals::{self, SIGINT, SIGTERM, do_nothing},
};

use crate::{
    console,
    ending::{Ending, chain},
    tls::Reload,
};

/// How long the loop has to end by itself, after it was asked to end at once.
const STUCK: Duration = Duration::from_secs(1);

/// The first of these drains, the second ends at once.
const END: [&str; 2] = ["SIGTERM", "SIGINT"];

/// These drain. SIGKILL follows SIGXCPU, and the end of all power SIGPWR.
const WARN_OF_THE_END: [&str; 2] = ["SIGXCPU", "SIGPWR"];

/// These do nothing, and the log says so: somebody may have hoped for more. But SIGHUP has files read
/// again, if there are any.
const TO_NO_END: [&str; 3] = ["SIGHUP", "SIGUSR1", "SIGUSR2"];

/// These do nothing, as the real-time ones do.
///
/// SIGXFSZ in particular is not logged: it may come because the log is too large a file, and would
/// come again for that line.
const HARMLESS: [&str; 6] = ["SIGXFSZ", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT"];

/// The real-time signals. The C library keeps the lowest for itself, and refuses them here.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Signals that are ours, and wait to be obeyed.
#[derive(Debug)]
pub(crate) struct Signals(signals::Signals);

/// A file that has grown to its limit costs what cannot be written to it, and not the program.
/// For all that the program does.
pub(crate) fn survive_full_files() -> Result<(), Ending> {
    do_nothing(Signal::SIGXFSZ as i32).map_err(|error| failed(&error))
}

impl Signals {
    /// Takes the signals over for the whole process, also if our parent ignored or blocked them.
    /// Nothing happens to them before [`obey`](Self::obey).
    ///
    /// To be called on the main thread.
    pub(crate) fn take_over() -> Result<Self, Ending> {
        let ours = [&END[..], &WARN_OF_THE_END, &TO_NO_END].concat();
        let signals = signals::Signals::take_over(&numbers(&ours));
        let signals = signals.map_err(|error| failed(&error))?;
        for signal in numbers(&HARMLESS) {
            do_nothing(signal).map_err(|error| failed(&error))?;
        }
        #[cfg(target_os = "linux")]
        for signal in REAL_TIME {
            // Refused are those that the C library keeps: musl has one more than glibc.
            let _ = do_nothing(signal);
        }
        SigSet::all().thread_unblock().map_err(|error| failed(&error))?;
        Ok(Self(signals))
    }

    /// Obeys the signals, from now on and until the process ends, on a thread of their own.
    /// SIGHUP has files read again, if there are any, by each of `reloads`.
    pub(crate) fn obey(self, server: Handle, mut reloads: Vec<Reload>) -> Result<(), Ending> {
        let mut draining = false;
        let obey = move |signal| {
            let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
            if END.contains(&name) && draining {
                tracing::warn!("{name} again: ending at once");
                server.stop();
                exit_if_stuck(&server);
            }
            if name == "SIGHUP" && !draining && !reloads.is_empty() {
                tracing::info!("{name}: reading files again");
                reloads.iter_mut().for_each(|reload| reload());
            } else if TO_NO_END.contains(&name) || draining {
                tracing::info!("{name}: nothing to do");
            } else {
                tracing::info!("{name}: ending when what has arrived is answered");
                draining = true;
                server.drain();
            }
        };
        let watch = self.0.obey(obey);
        // Were it dropped, a signal at the very end would kill the process.
        watch
            .map(std::mem::forget)
            .map_err(|error| Ending::Failed(format!("cannot start a thread: {error}")))
    }
}

/// Set by the first SIGINT or SIGTERM; the second one ends the program as by default.
pub(crate) fn interrupt_flag() -> Result<Arc<AtomicBool>, Ending> {
    signals::interrupt_flag(&[SIGINT, SIGTERM]).map_err(|error| failed(&error))
}

fn failed(error: &dyn Error) -> Ending {
    Ending::Failed(format!("cannot take over the signals: {}", chain(error)))
}

/// The numbers of those that this system has.
fn numbers(names: &[&str]) -> Vec<i32> {
    names
        .iter()
        .filter_map(|name| name.parse::<Signal>().ok())
        .map(|signal| signal as i32)
        .collect()
}

/// Ends the process unless the main thread does it first.
#[expect(clippy::disallowed_methods, reason = "on the thread of the signals, not of the server")]
fn exit_if_stuck(server: &Handle) -> ! {
    thread::sleep(STUCK);
    let stats = server.stats();
    let open = (stats.accepted + stats.outgoing).saturating_sub(stats.closed);
    let text = format!("nonforker: the server is stuck; connections cut off: {open}\n");
    console::print(io::stderr(), &text);
    process::exit(1)
}
