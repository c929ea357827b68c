//! What [`Server::drain_on_signals`](crate::Server::drain_on_signals) asks for. The library touches
//! signals nowhere else.
//!
//! ```text
//!  SIGTERM, SIGINT ──▶ default, if no server lives
//!                 └──▶ the watch of each server ──▶ its thread ──▶ drain, then stop
//! ```
//!
//! A handler that was installed stays installed: to take it back would need `unsafe`. So the
//! handler itself asks, at each signal, whether a watched server lives. If none does, it does what
//! would happen without it: the signal ends the process.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag::register_conditional_default,
    iterator::{Handle as Closer, Signals},
};

use crate::handle::Handle;

/// What drains a server, and the second time stops it.
const SIGNALS: [i32; 2] = [SIGTERM, SIGINT];

/// Whether no watched server lives, so that a signal does what it does by default.
static NONE_LIVES: AtomicBool = AtomicBool::new(true);

/// The watches of this process.
static WATCHES: Mutex<Watches> = Mutex::new(Watches { living: 0, default_restored: false });

#[derive(Debug)]
struct Watches {
    living: usize,
    /// The action that asks [`NONE_LIVES`] is installed. It stays.
    default_restored: bool,
}

/// A thread that waits for signals on behalf of one server, and ends with it.
#[derive(Debug)]
pub(crate) struct Watch {
    closer: Closer,
    /// Taken when the watch is dropped.
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Takes the signals over, and has `server` obey them.
    pub(crate) fn start(server: Handle) -> io::Result<Self> {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        // Comes first: if anything below fails, the signals still end the process.
        if !watches.default_restored {
            for signal in SIGNALS {
                register_conditional_default(signal, &NONE_LIVES)?;
            }
            watches.default_restored = true;
        }
        let mut signals = Signals::new(SIGNALS)?;
        let closer = signals.handle();
        let obey = move || {
            for (count, _signal) in signals.forever().enumerate() {
                if count == 0 { server.drain() } else { server.stop() }
            }
        };
        let thread = thread::Builder::new().name("signals".into()).spawn(obey)?;
        watches.living += 1;
        NONE_LIVES.store(false, SeqCst);
        Ok(Self { closer, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.living -= 1;
        // Before the watch goes: no signal comes between the two and is lost.
        NONE_LIVES.store(watches.living == 0, SeqCst);
        drop(watches);
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            // It never panics, and there is nobody to tell if it did.
            let _ = thread.join();
        }
    }
}
