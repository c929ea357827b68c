//! The thread that looks after the programs of a shard.
//!
//! ```text
//!  runs ──┬── it exits ─────────────────────────────────────────────────┐
//!         └── our end of the pair is closed: TERM ── 5 s: KILL ─────────┤ the rest of the group: KILL,
//!                                                                       ▼ what it wrote last is read,
//!                                                                 reaped, and our end sees the end
//! ```
//!
//! The warden has a descriptor of the program's own end of the socket pair. So it sees when ours is closed,
//! and ours sees the end only when the warden says so: after the last line of standard error, and even if a
//! child of the program still holds the output. What the program has not read is read then, and thrown away,
//! until ours is closed: a socket that is closed with something unread is a reset, and what the program
//! wrote last would be lost with it.

use std::{
    io::{self, ErrorKind, PipeReader, PipeWriter, Read},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Child,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, waitid},
};

use super::last_words::{ErrorLines, LastWords};

/// How long a program has to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether a program has exited, where the system does not say.
const LOOK: Duration = Duration::from_millis(50);

/// What is read of the standard error of one program before it is looked at the others.
const READ: usize = 64 * 1024;

/// How long it is left alone then: what floods it waits, and costs little.
const PAUSE: Duration = Duration::from_millis(10);

/// How often that is done once it has exited.
const LAST_READS: usize = 16;

/// A program that runs.
#[derive(Debug)]
struct Inmate {
    child: Child,
    group: Option<Pid>,
    /// Readable as soon as it has exited, where the system has that.
    exit: Option<OwnedFd>,
    /// Its own end of the socket pair.
    theirs: UnixStream,
    /// Until its end is seen.
    errors: Option<PipeReader>,
    /// When that may be read again.
    quiet_until: Option<Instant>,
    lines: ErrorLines,
    label: String,
    words: Arc<LastWords>,
    /// SIGKILL is due then.
    kill_at: Option<Instant>,
    /// It has exited, and our end is not closed yet.
    is_gone: bool,
}

/// See the [module](self). Dropped, it ends all programs and waits for that.
#[derive(Debug)]
pub(crate) struct Warden {
    new: Option<Sender<Inmate>>,
    wake: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Warden {
    pub(super) fn start() -> io::Result<Self> {
        let (new, to_watch) = channel();
        let (woken, wake) = io::pipe()?;
        let thread = Builder::new().name("programs".to_owned());
        let thread = thread.spawn(move || watch(&to_watch, &woken))?;
        Ok(Self { new: Some(new), wake, thread: Some(thread) })
    }

    /// Looks after a program from now on.
    pub(super) fn watch(
        &self,
        child: Child,
        theirs: UnixStream,
        errors: PipeReader,
        label: String,
        words: Arc<LastWords>,
    ) {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let inmate = Inmate {
            child,
            group: pid,
            exit: pid.and_then(exit_of),
            theirs,
            errors: Some(errors),
            quiet_until: None,
            lines: ErrorLines::default(),
            label,
            words,
            kill_at: None,
            is_gone: false,
        };
        tracing::debug!(program = inmate.label, pid = inmate.child.id(), "started");
        if let Some(new) = &self.new {
            // The thread lives as long as this.
            let _ = new.send(inmate);
        }
        self.wake();
    }

    fn wake(&self) {
        // A full pipe wakes it, too.
        let _ = rustix::io::write(&self.wake, &[0]);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.new = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(target_os = "linux")]
fn exit_of(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn exit_of(_pid: Pid) -> Option<OwnedFd> {
    None
}

#[expect(clippy::disallowed_methods, reason = "programs live in real time")]
fn now() -> Instant {
    Instant::now()
}

fn watch(new: &Receiver<Inmate>, woken: &PipeReader) {
    let mut inmates: Vec<Inmate> = Vec::new();
    let mut ends = false;
    // Children of programs become ours if this is the first process of a container.
    let mut orphans: Vec<Pid> = Vec::new();
    let is_init = getpid().is_init();
    loop {
        loop {
            match new.try_recv() {
                Ok(inmate) => inmates.push(inmate),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ends = true;
                    break;
                }
            }
        }
        if ends {
            inmates.retain(|inmate| !inmate.is_gone);
            inmates.iter_mut().for_each(|inmate| inmate.terminate(now()));
            if inmates.is_empty() {
                return;
            }
        }
        let events = wait(&inmates, woken, ends || !orphans.is_empty()).unwrap_or_default();
        let now = now();
        let mut events = events.into_iter();
        inmates.retain_mut(|inmate| {
            let seen = events.next().unwrap_or_default();
            if inmate.is_gone {
                return !seen.says || inmate.drain();
            }
            inmate.look(seen, now);
            orphans.extend(inmate.group.filter(|_| is_init && inmate.is_gone));
            !inmate.is_gone || inmate.drain()
        });
        let reap = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        orphans.retain(|&group| waitid(WaitId::Pgid(Some(group)), reap).is_ok());
    }
}

/// What has happened to a program.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    says: bool,
    closed: bool,
}

/// Waits until something happens to a program.
fn wait(inmates: &[Inmate], woken: &PipeReader, looks: bool) -> io::Result<Vec<Seen>> {
    let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::empty());
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut fds = vec![readable(woken.as_fd())];
    let mut places = Vec::new();
    let now = now();
    for inmate in inmates {
        if inmate.is_gone {
            fds.push(readable(inmate.theirs.as_fd()));
            places.push((Some(fds.len() - 1), None));
            continue;
        }
        let is_quiet = inmate.quiet_until.is_some_and(|until| now < until);
        let errors = inmate.errors.as_ref().filter(|_| !is_quiet).map(|errors| {
            fds.push(readable(errors.as_fd()));
            fds.len() - 1
        });
        let closed = inmate.kill_at.is_none().then(|| {
            fds.push(watched(inmate.theirs.as_fd()));
            fds.len() - 1
        });
        if let Some(exit) = &inmate.exit {
            fds.push(readable(exit.as_fd()));
        }
        places.push((errors, closed));
    }
    let due = inmates.iter().flat_map(|inmate| {
        let quiet_until = inmate.quiet_until.filter(|_| inmate.errors.is_some());
        [inmate.kill_at, quiet_until.filter(|&until| now < until)]
    });
    let until = due.flatten().map(|at| at.saturating_duration_since(now)).min();
    let is_told = inmates.iter().all(|inmate| inmate.is_gone || inmate.exit.is_some());
    let until = if is_told && !looks { until } else { Some(until.unwrap_or(LOOK).min(LOOK)) };
    let until = until.and_then(|until| Timespec::try_from(until).ok());
    poll(&mut fds, until.as_ref())?;
    if !fds[0].revents().is_empty() {
        let _ = (&mut &*woken).read(&mut [0; 64]);
    }
    let happened = |place: Option<usize>, what: PollFlags| {
        place.is_some_and(|place| fds[place].revents().intersects(what))
    };
    let any = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
    Ok(places
        .into_iter()
        .map(|(errors, closed)| Seen {
            says: happened(errors, any),
            closed: happened(closed, PollFlags::HUP | PollFlags::ERR),
        })
        .collect())
}

impl Inmate {
    /// Looks after one that has not exited yet, as far as is known.
    fn look(&mut self, seen: Seen, now: Instant) {
        if seen.says {
            self.hear(false, now);
            self.quiet_until = Some(now + PAUSE);
        }
        if seen.closed {
            self.terminate(now);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = Some(now + PATIENCE);
            self.signal(Signal::KILL);
        }
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if self.group.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), look), Ok(None))) {
            return;
        }
        // As long as it is not reaped, the group is its own.
        self.signal(Signal::KILL);
        self.hear(true, now);
        let status = self.child.wait();
        match status {
            Ok(status) if status.success() || self.kill_at.is_some() => {
                tracing::debug!(program = self.label, "has ended: {status}");
            }
            Ok(status) => {
                self.words.say(self.child.id(), &status.to_string());
                tracing::info!(program = self.label, "has ended: {status}");
            }
            Err(error) => tracing::warn!(program = self.label, "cannot be waited for: {error}"),
        }
        (self.is_gone, self.errors, self.exit, self.kill_at) = (true, None, None, None);
        let _ = self.theirs.set_nonblocking(true);
        let _ = self.theirs.shutdown(Shutdown::Write);
    }

    /// Throws away what nobody will read. Returns whether our end may still be open.
    fn drain(&mut self) -> bool {
        let mut buffer = vec![0; READ];
        match self.theirs.read(&mut buffer) {
            Ok(count) => count > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Has it end, and be ended if it does not.
    fn terminate(&mut self, now: Instant) {
        if self.kill_at.is_none() {
            self.kill_at = Some(now + PATIENCE);
            self.signal(Signal::TERM);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have gone already.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Logs what it writes to standard error.
    fn hear(&mut self, is_last: bool, now: Instant) {
        let Self { child, errors, lines, label, words, .. } = self;
        let process = child.id();
        let Some(pipe) = errors else { return };
        let mut say = |line: &str, left_out: Option<u64>| {
            words.say(process, line);
            if let Some(left_out) = left_out {
                tracing::info!(program = label.as_str(), left_out, "{line}");
            }
        };
        let mut buffer = vec![0; READ];
        // A child that has left the group may write for ever.
        for _ in 0..LAST_READS {
            let mut ready = [PollFd::new(&*pipe, PollFlags::IN)];
            let count = match poll(&mut ready, Some(&Timespec::default())) {
                Ok(0) => break,
                _ => pipe.read(&mut buffer).unwrap_or(0),
            };
            lines.take(buffer.get(..count).unwrap_or_default(), now, &mut say);
            if count == 0 {
                lines.end(now, &mut say);
                *errors = None;
                return;
            }
            if !is_last {
                return;
            }
        }
        lines.end(now, &mut say);
    }
}
