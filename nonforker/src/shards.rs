//! One server on several threads: a shard on each, all behind the same listeners.
//!
//! ```text
//!                        ┌─ thread "nonforker-0": make(), a shard ─┐
//!  listeners, opened by ─┼─ thread "nonforker-1": make(), a shard ─┼─ one handle, one set of limits
//!  the first             └─ …                                      ┘
//! ```
//!
//! The first thread opens the listeners; then the others start, and get descriptors of
//! the same sockets. Nobody is served before all are ready, so a shard that cannot start leaves
//! nothing behind. A shard that ends with an error drains all the others.
//!
//! What the shards have in common while they serve is in [`engine::group`](crate::engine::group).

mod made;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

pub(crate) use self::made::{Made, Part};
#[cfg(feature = "signals")]
use crate::signals::Watch;
use crate::{
    address::Address,
    bounds::refuse,
    driver::ListenerShare,
    engine::{failures::message, group::Group},
    error::{Error, Result},
    handle::Handle,
    running::{Running, join},
    server::Server,
};

/// The most shards a server can have.
pub(crate) const SHARDS_MAX: usize = 256;

/// Makes a server, on the thread of each shard.
type Make = dyn Fn() -> Server + Send + Sync;

/// A server on several threads, to use every core.
///
/// Each thread has a *shard*: a server of its own, with its own handlers and its own connections, made
/// by the same function. So handlers need no locks and need not be `Send`, as with one thread; what
/// they have in common is what that function gives them. [`Connections`](crate::Connections) are those
/// of one shard.
///
/// - There is **one listener** for each address, opened once, from the first server made; port 0 is
///   one port. A connection goes to a shard that is free to take it. A shard with clearly more
///   connections than the emptiest one does not accept.
/// - [`Limits`](crate::Limits) hold for all shards together: connections, those of one IP address, the
///   memory budget.
/// - One [`Handle`] reaches all: [`Conn::server`](crate::Conn::server) too. It drains all, and its
///   counters are sums; [`Handle::shard_stats`] has those of one.
/// - A shard that fails ends the server: the others drain, and the error is returned.
///
/// The function has to make the same server each time: with the same addresses, services and limits.
///
/// # Examples
///
/// Two threads, each of which counts for itself:
///
/// ```
/// use nonforker::{Server, Shards, codec::Lines};
///
/// fn my_server() -> Server {
///     let mut count = 0;
///     Server::new().serve("127.0.0.1:0", Lines::new(), move |conn, _line| {
///         count += 1;
///         conn.send(format!("{count} lines on {:?}", std::thread::current().name()));
///     })
/// }
///
/// # fn main() -> nonforker::Result<()> {
/// let running = Shards::new(2, my_server).bind()?;
/// println!("listening at {}", running.addresses()[0]);
/// running.drain_and_wait()
/// # }
/// ```
#[derive(Clone)]
pub struct Shards {
    count: usize,
    make: Arc<Make>,
    pin: bool,
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, pin, .. } = self;
        f.debug_struct("Shards").field("count", count).field("pin", pin).finish_non_exhaustive()
    }
}

impl Shards {
    /// `count` shards, from 1 to 256, of the server that `make` makes. It is called once on the thread
    /// of each shard.
    #[must_use]
    pub fn new(count: usize, make: impl Fn() -> Server + Send + Sync + 'static) -> Self {
        Self { count, make: Arc::new(make), pin: false }
    }

    /// As many shards as the process may use cores, which a cgroup or an affinity may bound: at most
    /// 256, and one if the system does not say.
    #[must_use]
    pub fn per_core(make: impl Fn() -> Server + Send + Sync + 'static) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.min(SHARDS_MAX), make)
    }

    /// Keeps each shard on a core of its own, as far as there are so many. Default: the system
    /// chooses, which is better wherever something else runs as well.
    ///
    /// Only Linux can do that; elsewhere a line in the log says that it was not done.
    #[must_use]
    pub const fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Opens every listener and serves until the server is drained or stopped.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind) and [`Running::wait`].
    pub fn run(self) -> Result<()> {
        self.bind()?.wait()
    }

    /// Starts all shards, and returns once they serve.
    ///
    /// Their threads are named `nonforker-0`, `nonforker-1` and so on. If the first server asks for
    /// [`drain_on_signals`](Server::drain_on_signals), the signals drain and stop all shards.
    ///
    /// # Errors
    ///
    /// Those of [`Server::bind`] for one of the servers, and:
    /// [`Error::Limits`] if there are to be no shards, or more than 256. [`Error::ShardDiffers`] if the
    /// servers do not have the same addresses, services and limits. [`Error::ShardPanicked`] if the
    /// function panicked. [`Error::Thread`] if a thread cannot be started. No shard runs then.
    pub fn bind(self) -> Result<Running> {
        if !(1..=SHARDS_MAX).contains(&self.count) {
            return Err(refuse("shards", self.count, format!("from 1 to {SHARDS_MAX}")));
        }
        let group = Group::of(self.count);
        let mut starting = Starting { shards: self, group, threads: Vec::new() };
        match starting.start() {
            Ok((addresses, is_watching)) => starting.go(addresses, is_watching),
            Err(error) => Err(starting.give_up(error)),
        }
    }
}

/// Shards of which none runs yet.
struct Starting {
    shards: Shards,
    group: Arc<Group>,
    threads: Vec<Waiting>,
}

/// The thread of a shard, which waits until all are ready.
struct Waiting {
    thread: JoinHandle<Result<()>>,
    ready: mpsc::Receiver<Ready>,
    go: mpsc::SyncSender<()>,
}

/// What a shard that is ready has to say.
struct Ready {
    made: Made,
    addresses: Vec<Address>,
    /// Of the first one: its listeners, for each of the others.
    listeners: Vec<Vec<ListenerShare>>,
}

impl Starting {
    /// Has all shards made ready. Returns where they listen, and whether signals are to be obeyed.
    fn start(&mut self) -> Result<(Vec<Address>, bool)> {
        let places = places(self.shards.pin, self.shards.count);
        self.spawn(None, places.first().copied())?;
        let Ready { made, addresses, listeners } = self.await_ready(0)?;
        let watches = made.drain_on_signals;
        for (shard, listeners) in (1..).zip(listeners) {
            let first = Some((made.clone(), listeners));
            self.spawn(first, places.get(shard % places.len().max(1)).copied())?;
        }
        for shard in 1..self.threads.len() {
            self.await_ready(shard)?;
        }
        Ok((addresses, watches))
    }

    fn spawn(
        &mut self,
        first: Option<(Made, Vec<ListenerShare>)>,
        core: Option<usize>,
    ) -> Result<()> {
        let shard = u16::try_from(self.threads.len()).unwrap_or(u16::MAX);
        let (make, group) = (Arc::clone(&self.shards.make), Arc::clone(&self.group));
        let ((tell, ready), (go, gone)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let part = Part { group, shard, first };
        let serve = move || {
            if let Some(core) = core {
                pin_to(core);
            }
            let all = Arc::clone(&part.group);
            let served = catch_unwind(AssertUnwindSafe(|| serve(&*make, part, &tell, &gone)));
            let served = served.unwrap_or_else(|payload| {
                let message = message(&*payload).to_owned();
                Err(Error::ShardPanicked { shard: shard.into(), message })
            });
            if served.as_ref().is_err_and(is_failure) {
                all.drain();
            }
            served
        };
        let thread = thread::Builder::new().name(format!("nonforker-{shard}")).spawn(serve);
        let thread = thread.map_err(Error::Thread)?;
        self.threads.push(Waiting { thread, ready, go });
        Ok(())
    }

    /// Waits until a shard is ready. If it cannot be, its thread knows why.
    fn await_ready(&mut self, shard: usize) -> Result<Ready> {
        if let Ok(ready) = self.threads[shard].ready.recv() {
            return Ok(ready);
        }
        let Waiting { thread, .. } = self.threads.swap_remove(shard);
        Err(join(thread).err().unwrap_or(Error::NothingToServe))
    }

    /// Lets all of them serve.
    fn go(self, addresses: Vec<Address>, watches: bool) -> Result<Running> {
        let handle = Handle::new(Arc::clone(&self.group));
        #[cfg(feature = "signals")]
        let watch = match watches.then(|| Watch::start(handle.clone())).transpose() {
            Ok(watch) => watch,
            Err(error) => return Err(self.give_up(Error::Signals(error))),
        };
        #[cfg(not(feature = "signals"))]
        let _ = watches;
        let start = |waiting: Waiting| {
            // One that has ended meanwhile has said so to the others.
            let _ = waiting.go.send(());
            waiting.thread
        };
        let threads = self.threads.into_iter().map(start).collect();
        Ok(Running {
            addresses,
            handle,
            threads,
            #[cfg(feature = "signals")]
            _watch: watch,
        })
    }

    /// Ends those that wait, and returns the error for which they end.
    fn give_up(self, error: Error) -> Error {
        for Waiting { thread, go, ready } in self.threads {
            drop((go, ready));
            // What else went wrong follows from this, or is as good a reason.
            let _ = thread.join();
        }
        error
    }
}

/// What the thread of a shard does.
fn serve(
    make: &Make,
    part: Part,
    tell: &mpsc::SyncSender<Ready>,
    go: &mpsc::Receiver<()>,
) -> Result<()> {
    let (others, is_first) = (part.group.shards() - 1, part.first.is_none());
    let shard = part.shard;
    let (bound, made) = make().bind_part(part)?;
    let shares = || bound.engine.shares().map_err(Error::Driver);
    let count = if is_first { others } else { 0 };
    let listeners = (0..count).map(|_| shares()).collect::<Result<_>>()?;
    let ready = Ready { made, addresses: bound.addresses().to_vec(), listeners };
    // If nobody waits any more, another shard could not start.
    match tell.send(ready).is_ok() && go.recv().is_ok() {
        true => bound.run().inspect_err(|error| {
            if is_failure(error) {
                tracing::error!(shard, "a shard has failed, the server drains: {error}");
            }
        }),
        false => Ok(()),
    }
}

/// Whether a shard ended with this otherwise than by a drain or a stop.
const fn is_failure(error: &Error) -> bool {
    !matches!(error, Error::CutOff { .. })
}

/// The cores on which shards are to stay, if they are.
#[cfg(target_os = "linux")]
fn places(pin: bool, count: usize) -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    if !pin {
        return Vec::new();
    }
    match sched_getaffinity(None) {
        Ok(set) => {
            let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
            if cores.len() < count {
                tracing::warn!("{count} shards share {} cores", cores.len());
            }
            cores
        }
        Err(error) => {
            tracing::warn!("the shards cannot be pinned: {error}");
            Vec::new()
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn places(pin: bool, _count: usize) -> Vec<usize> {
    if pin {
        tracing::warn!("the shards cannot be pinned: only Linux can do that");
    }
    Vec::new()
}

/// Keeps the present thread on a core.
#[cfg(target_os = "linux")]
fn pin_to(core: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!("a shard cannot be pinned to core {core}: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_core: usize) {}
