//! Work that may block, done by threads beside the server's loop.
//!
//! ```text
//!  conn.offload(work, then) ──▶ a ticket ──▶ jobs ──▶ a thread: work() ──▶ mail: then(result)
//! ```
//!
//! Each job has a ticket, so there are no more of them than tickets. A job whose client has left is
//! not started.

use std::{
    collections::VecDeque,
    fmt, io,
    marker::PhantomData,
    mem,
    net::{IpAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crate::{
    context::Conn,
    engine::mail::discard,
    handler::{Handler, IntoOutcome},
    ticket::Ticket,
};

/// Work with the ticket that it answers, its types erased.
pub(crate) trait Job: Send {
    /// Whether anybody waits for it.
    fn is_wanted(&self) -> bool;
    /// Does the work and posts the answer.
    fn run(self: Box<Self>);
}

/// Who does the jobs.
pub(crate) trait Threads {
    fn submit(&mut self, job: Box<dyn Job>);
}

/// Asks for the addresses of the name of a host. It may block.
pub(crate) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Asks the system.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

impl fmt::Debug for dyn Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threads")
    }
}

struct Offloaded<H: Handler, W, F, R> {
    ticket: Ticket<H>,
    work: W,
    then: F,
    outcome: PhantomData<fn() -> R>,
}

impl<H, W, T, F, R> Job for Offloaded<H, W, F, R>
where
    H: Handler,
    W: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    F: FnOnce(&mut H, &mut Conn<'_, H>, T) -> R + Send + 'static,
    R: IntoOutcome + 'static,
{
    fn is_wanted(&self) -> bool {
        !self.ticket.is_gone()
    }

    fn run(self: Box<Self>) {
        let Self { ticket, work, then, .. } = *self;
        let result = catch_unwind(AssertUnwindSafe(work));
        // If the client has left meanwhile, nobody waits for the result.
        let _ = ticket.answer("offload", move |handler, conn| match result {
            Ok(result) => then(handler, conn, result).into_outcome(),
            // It ends this connection as a panic of the handler does.
            Err(payload) => resume_unwind(payload),
        });
    }
}

impl<H: Handler> Conn<'_, H> {
    /// Has a thread call `work`, which may block, and then the server's loop call `then` with the
    /// result: it answers the request. Returns at once.
    ///
    /// It is a [ticket](Self::defer) and counts as one: later requests of this connection wait, those
    /// of all others do not, and what is sent after this call leaves behind what `then` sends.
    ///
    /// As many threads as [`Server::offload_threads`](crate::Server::offload_threads) says work at a
    /// time, in the order of the calls; the rest waits. They start when they are needed, and end with
    /// the server. Work that has not begun when its client leaves is not started. Work that has begun
    /// goes on, also beyond the end of the server, and nobody hears of its result.
    ///
    /// A panic in `work` ends this connection, as one in a callback does. On a connection that closes
    /// nothing is called.
    ///
    /// In a [simulation](crate::sim) the work takes no time of the system, and a virtual time that
    /// depends on the seed, up to a quarter of a second.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs;
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| {
    ///     let path = String::from_utf8_lossy(line).into_owned();
    ///     conn.offload(move || fs::read(path), |_, conn, read| match read {
    ///         Ok(bytes) => conn.send(format!("{} bytes", bytes.len())),
    ///         Err(error) => conn.send(error.to_string()),
    ///     });
    /// });
    /// # let _ = server;
    /// ```
    pub fn offload<W, T, F, R>(&mut self, work: W, then: F)
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut H, &mut Conn<'_, H>, T) -> R + Send + 'static,
        R: IntoOutcome + 'static,
    {
        let ticket = self.defer();
        if let Some(threads) = &mut self.core.offload
            && !ticket.is_gone()
        {
            threads.submit(Box::new(Offloaded { ticket, work, then, outcome: PhantomData }));
        }
    }
}

/// Threads of the system, which all shards of a server have in common.
pub(crate) struct OffloadThreads(pub(crate) Arc<Pool>);

/// See [`OffloadThreads`]. It ends with the last shard.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    max: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    /// How many threads wait for a job.
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    /// Which of them do one.
    busy: Vec<bool>,
    /// That one could not be started is known.
    failed: bool,
    /// The server has ended.
    ended: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// At most so many threads, or one for each processor.
    pub(crate) fn new(max: Option<usize>) -> Self {
        let max = max.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        Self { shared: Arc::default(), max }
    }
}

impl Threads for OffloadThreads {
    fn submit(&mut self, job: Box<dyn Job>) {
        let Pool { shared, max } = &*self.0;
        let mut state = shared.state();
        state.jobs.push_back(job);
        if state.jobs.len() > state.idle && state.threads.len() < *max {
            state.start(shared);
        }
        drop(state);
        shared.changed.notify_one();
    }
}

impl State {
    /// Starts a thread, which waits until the state is free.
    fn start(&mut self, shared: &Arc<Shared>) {
        let (number, shared) = (self.threads.len(), Arc::clone(shared));
        let thread = thread::Builder::new().name(format!("offload-{number}"));
        match thread.spawn(move || shared.work(number)) {
            Ok(thread) => {
                self.failed = false;
                self.threads.push(thread);
                self.busy.push(false);
            }
            // Said once: every further call tries again.
            Err(error) if !mem::replace(&mut self.failed, true) => {
                let what = "cannot start another thread for offloaded work";
                tracing::warn!(threads = self.threads.len(), "{what}: {error}");
            }
            Err(_) => {}
        }
    }

    fn set_busy(&mut self, number: usize, is_busy: bool) {
        // Once the server has ended nobody asks any more.
        if let Some(busy) = self.busy.get_mut(number) {
            *busy = is_busy;
        }
    }
}

impl Drop for Pool {
    /// Threads without a job have ended when this returns; the others end when their job does.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        let jobs = mem::take(&mut state.jobs);
        let (threads, busy) = (mem::take(&mut state.threads), mem::take(&mut state.busy));
        drop(state);
        self.shared.changed.notify_all();
        jobs.into_iter().for_each(|job| _ = discard(job));
        for (thread, busy) in threads.into_iter().zip(busy) {
            if !busy {
                // It catches what jobs panic with.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self, number: usize) {
        while let Some(job) = self.next(number) {
            let panicked = if job.is_wanted() {
                catch_unwind(AssertUnwindSafe(|| job.run())).err()
            } else {
                discard(job)
            };
            if panicked.is_some() {
                tracing::error!("offloaded work panicked as it was dropped");
            }
        }
    }

    /// The next job, as soon as there is one. Nothing when the server has ended.
    fn next(&self, number: usize) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        state.set_busy(number, false);
        loop {
            if state.ended {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.set_busy(number, true);
                return Some(job);
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}
