//! Signals, for programs that have to do more than [`Server::drain_on_signals`](crate::Server::drain_on_signals)
//! does. The library touches no signal unless asked.
//!
//! ```text
//!  Signals::take_over ──▶ pending ── obey ──▶ a thread calls your closure ── drop the Watch ──▶ default
//!  interrupt_flag     ──▶ the first one sets a flag, the next one ends the process
//!  do_nothing         ──▶ a handler that does nothing
//! ```
//!
//! A handler that was installed stays installed: to take it back would need `unsafe`. So the
//! handler itself asks, at each signal, whether a [`Signals`] or [`Watch`] of this signal lives. If
//! none does, it does what would happen without it.
//!
//! A signal that shall do nothing gets a handler that does nothing. To ignore it instead would make
//! every program ignore it that this process starts.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

pub use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{
    consts::FORBIDDEN,
    flag::{register, register_conditional_default},
    iterator::{Handle as Closer, Signals as Pending},
    low_level::signal_name,
};

use crate::handle::Handle;

/// What ends a program by default, and drains a server instead; the second one stops it.
const END: [i32; 2] = [SIGTERM, SIGINT];

/// No system has a signal of this number or a higher one.
const SIGNALS_MAX: i32 = 128;

/// The signals that were taken over at some time.
static HOLDS: Mutex<BTreeMap<i32, Hold>> = Mutex::new(BTreeMap::new());

/// Set by every signal that does nothing, and read by nobody.
static SOMETHING_CAME: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Hold {
    /// How many [`Signals`] and [`Watch`]es of this signal live.
    living: usize,
    /// Whether none lives, so that the signal does what it does by default. Its handler asks.
    none_lives: Arc<AtomicBool>,
}

/// Signals that do not do what they do by default, until it is dropped.
#[derive(Debug)]
struct Held(Vec<i32>);

impl Held {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let mut holds = HOLDS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Self(Vec::new());
        let all = signals.iter().try_for_each(|&signal| {
            hold(&mut holds, signal)?;
            held.0.push(signal);
            Ok(())
        });
        // Comes before `held` is dropped, if one of them failed.
        drop(holds);
        all.map(|()| held)
    }
}

fn hold(holds: &mut BTreeMap<i32, Hold>, signal: i32) -> io::Result<()> {
    allowed(signal)?;
    let hold = match holds.entry(signal) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => {
            let none_lives = Arc::new(AtomicBool::new(true));
            // A signal without a name has no default that is known: afterwards it has no effect.
            if signal_name(signal).is_some() {
                register_conditional_default(signal, Arc::clone(&none_lives))?;
            }
            new.insert(Hold { living: 0, none_lives })
        }
    };
    hold.living += 1;
    hold.none_lives.store(false, SeqCst);
    Ok(())
}

/// Refuses what `signal_hook` would panic at.
fn allowed(signal: i32) -> io::Result<()> {
    if (1..SIGNALS_MAX).contains(&signal) && !FORBIDDEN.contains(&signal) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("signal {signal} cannot be handled")))
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = HOLDS.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in &self.0 {
            if let Some(hold) = holds.get_mut(signal) {
                hold.living -= 1;
                hold.none_lives.store(hold.living == 0, SeqCst);
            }
        }
    }
}

/// Signals that were taken over for the whole process, and wait to be obeyed.
///
/// They are kept until [`obey`](Self::obey), so nothing is lost if a server is bound in between. When
/// this is dropped they do again what they do by default.
#[derive(Debug)]
pub struct Signals {
    held: Held,
    pending: Pending,
}

impl Signals {
    /// Takes over these signals, by their numbers.
    ///
    /// # Errors
    ///
    /// The system has no such signal, or it cannot be handled, as SIGKILL. What was taken over before
    /// the error does what it does by default.
    pub fn take_over(signals: &[i32]) -> io::Result<Self> {
        // The default comes first: if what follows fails, the signals still end the process.
        let held = Held::new(signals)?;
        Ok(Self { held, pending: Pending::new(signals)? })
    }

    /// Calls `obey` with the number of each signal, those that wait included, on a thread of its own.
    ///
    /// The signals are obeyed until the [`Watch`] is dropped. Several of the same number that come
    /// before `obey` is called may be one call.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    ///
    /// # Examples
    ///
    /// A server that drains on SIGTERM and reads its settings again on SIGHUP:
    ///
    /// ```
    /// use nonforker::{
    ///     Server,
    ///     codec::Lines,
    ///     signals::{SIGHUP, SIGTERM, Signals},
    /// };
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let signals = Signals::take_over(&[SIGHUP, SIGTERM])?;
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line));
    /// let bound = server.bind()?;
    /// let handle = bound.handle();
    /// let _watch = signals.obey(move |signal| match signal {
    ///     SIGHUP => println!("reading the settings again"),
    ///     _ => handle.drain(),
    /// })?;
    /// # bound.handle().drain();
    /// bound.run()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn obey(self, mut obey: impl FnMut(i32) + Send + 'static) -> io::Result<Watch> {
        let Self { held, mut pending } = self;
        let closer = pending.handle();
        let run = move || pending.forever().for_each(&mut obey);
        let thread = thread::Builder::new().name("signals".into()).spawn(run)?;
        Ok(Watch { held: Some(held), closer, thread: Some(thread) })
    }
}

/// A thread that waits for signals. When this is dropped the thread ends, and the signals do again
/// what they do by default.
///
/// To drop it waits for the closure that the thread is in, so the closure must not drop it.
#[derive(Debug)]
pub struct Watch {
    /// Taken when the watch is dropped.
    held: Option<Held>,
    closer: Closer,
    /// Taken when the watch is dropped.
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Has the first SIGTERM or SIGINT drain `server`, and every further one stop it.
    pub(crate) fn start(server: Handle) -> io::Result<Self> {
        let mut drains = false;
        Signals::take_over(&END)?.obey(move |_| {
            if drains {
                server.stop()
            } else {
                server.drain()
            }
            drains = true;
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before the thread goes: no signal comes between the two and is lost.
        drop(self.held.take());
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            // A closure that panicked has said so, and ended the thread.
            let _ = thread.join();
        }
    }
}

/// A flag that the first of these signals sets, for a loop that looks at it. The next one does what
/// it does by default: SIGTERM, SIGINT and SIGHUP end the process.
///
/// # Errors
///
/// The system has no such signal, or it cannot be handled.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::Ordering;
///
/// use nonforker::signals::{self, SIGINT, SIGTERM};
///
/// # fn main() -> std::io::Result<()> {
/// let interrupted = signals::interrupt_flag(&[SIGTERM, SIGINT])?;
/// for part in 0..10 {
///     if interrupted.load(Ordering::Relaxed) {
///         break;
///     }
///     println!("working on part {part}");
/// }
/// # Ok(())
/// # }
/// ```
pub fn interrupt_flag(signals: &[i32]) -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        allowed(signal)?;
        // In this order: the default asks for what was set before this signal.
        register_conditional_default(signal, Arc::clone(&flag))?;
        register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Has a signal do nothing from now on: SIGXFSZ, say, if the process writes a log to a file.
///
/// Programs that this process starts get its default back.
///
/// # Errors
///
/// The system has no such signal, or it cannot be handled.
pub fn do_nothing(signal: i32) -> io::Result<()> {
    allowed(signal)?;
    register(signal, &SOMETHING_CAME).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use signal_hook::{
        consts::{SIGKILL, SIGUSR2},
        low_level::raise,
    };

    use super::*;

    #[test]
    fn what_cannot_be_handled_is_an_error_and_no_panic() {
        for signal in [-1, 0, SIGKILL, SIGNALS_MAX - 1, SIGNALS_MAX, i32::MAX] {
            assert!(Signals::take_over(&[signal]).is_err(), "{signal}");
            assert!(interrupt_flag(&[signal]).is_err(), "{signal}");
            assert!(do_nothing(signal).is_err(), "{signal}");
        }
        assert!(Signals::take_over(&[SIGUSR2, SIGKILL]).is_err());
        let holds = HOLDS.lock().unwrap();
        assert!(holds.values().all(|hold| hold.none_lives.load(SeqCst) == (hold.living == 0)));
    }

    #[test]
    fn what_comes_before_obey_is_obeyed_and_nothing_is_held_afterwards() {
        let signals = Signals::take_over(&[SIGUSR2]).unwrap();
        raise(SIGUSR2).unwrap();
        let (sender, receiver) = mpsc::channel();
        let watch = signals.obey(move |signal| sender.send(signal).unwrap()).unwrap();
        assert_eq!(receiver.recv(), Ok(SIGUSR2));
        drop(watch);
        assert!(receiver.recv().is_err(), "the thread has ended");
        assert!(HOLDS.lock().unwrap()[&SIGUSR2].none_lives.load(SeqCst));
    }
}
