//! What a process has used: its CPU time, its memory, how often it was switched. Linux only.
//!
//! CPU time comes from `/proc/PID/task/*/schedstat`, in nanoseconds, summed over its threads. If a
//! thread has ended in between, or the kernel does not keep that book, it comes from
//! `/proc/PID/stat`, in ticks of 10 ms.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

use crate::error::Error;

/// `/proc/PID/stat` counts in these, on every architecture that matters (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A process on this machine. Linux only: it reads `/proc`.
#[derive(Debug)]
pub struct Process {
    folder: PathBuf,
}

/// What a process had used at a time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Nanoseconds by thread; None where the kernel does not say.
    threads: Option<BTreeMap<u32, u64>>,
    ticks: u32,
    switches: u64,
    /// Resident bytes.
    rss: u64,
}

/// What a process has used between two times.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time of all its threads, user and kernel.
    pub cpu: Duration,
    /// Whether `cpu` is exact, and not in ticks of 10 ms.
    pub is_exact: bool,
    /// How often its threads were switched.
    pub switches: u64,
    /// Resident bytes at the first of the two times.
    pub rss_before: u64,
    /// Resident bytes at the second.
    pub rss_after: u64,
}

impl Process {
    /// The process of this number.
    ///
    /// # Errors
    ///
    /// [`Error::Process`] if there is none, or what it uses cannot be read. [`Error::Settings`] where
    /// there is no `/proc` of Linux.
    pub fn find(pid: u32) -> Result<Self, Error> {
        if !cfg!(target_os = "linux") {
            return Err(Error::Settings("`pid`: this needs Linux and its /proc".into()));
        }
        Self::find_in(Path::new("/proc"), pid).map_err(Error::Process)
    }

    fn find_in(proc: &Path, pid: u32) -> Result<Self, String> {
        let process = Self { folder: proc.join(pid.to_string()) };
        match process.snapshot() {
            Ok(_) => Ok(process),
            Err(error) => Err(process.why_not(proc, pid, &error)),
        }
    }

    /// Why a process cannot be read: what is wrong may be `/proc`, the process, or our rights.
    fn why_not(&self, proc: &Path, pid: u32, error: &io::Error) -> String {
        let about = format!("cannot read what process {pid} uses");
        // We are always there to be read.
        if let Err(error) = fs::read_to_string(proc.join("self/stat")) {
            let proc = proc.display();
            return match error.kind() {
                io::ErrorKind::NotFound => format!("{about}: {proc} is missing or not mounted"),
                _ => format!("{about}: {proc} is not readable: {error}"),
            };
        }
        let is_hidden = matches!(self.folder.try_exists(), Ok(false));
        if is_hidden && is_alive(pid) {
            format!("{about}: {} does not show it to this user (hidepid)", proc.display())
        } else if is_hidden {
            format!("there is no process {pid}")
        } else if self.is_zombie() {
            format!("{about}: it has ended, and is a zombie")
        } else {
            format!("{about}: {error}")
        }
    }

    /// This process; None where `/proc` cannot be read.
    pub(crate) fn own() -> Option<Self> {
        Self::find(std::process::id()).ok()
    }

    /// What it has used up to now. CPU time is looked at last, which begins a window.
    ///
    /// # Errors
    ///
    /// The process has ended, or `/proc` cannot be read.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let snapshot = self.without_threads()?;
        Ok(Snapshot { threads: self.threads().ok(), ..snapshot })
    }

    /// What it has used since then; None if it has ended. CPU time is looked at first, which ends
    /// a window.
    #[must_use]
    pub fn since(&self, before: &Snapshot) -> Option<Usage> {
        let threads = self.threads().ok();
        let snapshot = self.without_threads().ok()?;
        Some(before.until(&Snapshot { threads, ..snapshot }))
    }

    fn without_threads(&self) -> io::Result<Snapshot> {
        // To count resident pages takes the kernel some time.
        let rss = self.rss()?;
        Ok(Snapshot { threads: None, ticks: self.ticks()?, switches: self.switches()?, rss })
    }

    fn thread_folders(&self) -> io::Result<Vec<(u32, PathBuf)>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(self.folder.join("task"))? {
            let path = entry?.path();
            let thread = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            folders.extend(thread.map(|thread| (thread, path)));
        }
        Ok(folders)
    }

    fn threads(&self) -> io::Result<BTreeMap<u32, u64>> {
        let mut threads = BTreeMap::new();
        for (thread, folder) in self.thread_folders()? {
            let text = fs::read_to_string(folder.join("schedstat"))?;
            threads.insert(thread, number(text.split_whitespace().next())?);
        }
        Ok(threads)
    }

    fn ticks(&self) -> io::Result<u32> {
        let text = self.stat()?;
        let mut times = after_name(&text).skip(11);
        Ok(number::<u32>(times.next())? + number::<u32>(times.next())?)
    }

    fn stat(&self) -> io::Result<String> {
        fs::read_to_string(self.folder.join("stat"))
    }

    /// Whether it has ended, and its parent has not asked how.
    fn is_zombie(&self) -> bool {
        self.stat().is_ok_and(|text| matches!(after_name(&text).next(), Some("Z" | "X")))
    }

    fn switches(&self) -> io::Result<u64> {
        let mut sum = 0;
        for (_, folder) in self.thread_folders()? {
            // A thread may end at any time.
            let text = fs::read_to_string(folder.join("status")).unwrap_or_default();
            for line in text.lines().filter(|line| line.contains("ctxt_switches")) {
                sum += number::<u64>(line.split_whitespace().nth(1))?;
            }
        }
        Ok(sum)
    }

    /// Exact where we may ask for it; else what the kernel has at hand, which may be some pages off.
    fn rss(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.folder.join("smaps_rollup"))
            .or_else(|_| fs::read_to_string(self.folder.join("status")))?;
        let line = text.lines().find(|line| line.starts_with("Rss:") || line.starts_with("VmRSS:"));
        let kibibytes: u64 = number(line.and_then(|line| line.split_whitespace().nth(1)))?;
        Ok(kibibytes * 1024)
    }
}

impl Snapshot {
    fn until(&self, after: &Self) -> Usage {
        let exact = self.threads.as_ref().zip(after.threads.as_ref());
        let exact = exact.and_then(|(before, after)| spent(before, after));
        let ticks = TICK * after.ticks.saturating_sub(self.ticks);
        Usage {
            cpu: exact.unwrap_or(ticks),
            is_exact: exact.is_some(),
            switches: after.switches.saturating_sub(self.switches),
            rss_before: self.rss,
            rss_after: after.rss,
        }
    }
}

/// The sum over threads; None if one has ended, and taken its count with it.
fn spent(before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> Option<Duration> {
    if before.keys().any(|thread| !after.contains_key(thread)) {
        return None;
    }
    let begun = |thread| before.get(thread).copied().unwrap_or(0);
    let sum = after.iter().map(|(thread, end)| end.saturating_sub(begun(thread))).sum();
    Some(Duration::from_nanos(sum)).filter(|_| after.values().any(|&nanos| nanos > 0))
}

/// The fields of `stat` behind the name, which is in brackets and may contain anything.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default().split_whitespace()
}

/// Whether the kernel knows a process of this number, whatever `/proc` shows.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).map(Pid::from_raw);
    pid.is_some_and(|pid| matches!(kill(pid, None), Ok(()) | Err(Errno::EPERM)))
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> io::Result<T> {
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| io::Error::other("/proc has a form that is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_summed_unless_one_is_missing() {
        let book = |pairs: &[(u32, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let before = book(&[(1, 100), (2, 50)]);
        let grown = book(&[(1, 150), (2, 50), (3, 7)]);
        assert_eq!(spent(&before, &grown), Some(Duration::from_nanos(57)));
        assert_eq!(spent(&before, &book(&[(1, 150)])), None, "its time is lost");
        assert_eq!(spent(&book(&[(1, 0)]), &book(&[(1, 0)])), None, "nobody counts");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_seen() {
        let own = Process::own().expect("we are there");
        let before = own.snapshot().unwrap();
        let work: u64 = (0..30_000_000_u64).fold(1, |sum, nth| std::hint::black_box(sum ^ nth));
        std::hint::black_box(work);
        let usage = own.since(&before).expect("we are still there");
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
        assert!(usage.rss_after > 0, "{usage:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_really_wrong_is_said() {
        let own = std::process::id();
        let proc = std::env::temp_dir().join(format!("nonforker-proc-{own}"));
        let error = |proc: &Path, pid| Process::find_in(proc, pid).map(|_| ()).expect_err("no");
        assert!(error(&proc, own).contains("is missing or not mounted"), "{proc:?} is not there");
        fs::create_dir_all(proc.join("self/stat")).unwrap();
        assert!(error(&proc, own).contains("is not readable: "), "a folder is no file");
        fs::remove_dir_all(proc.join("self/stat")).unwrap();
        fs::write(proc.join("self/stat"), "1 (x) S").unwrap();
        assert!(error(&proc, own).contains("does not show it"), "we live");
        for pid in [0, 1 << 30, u32::MAX] {
            assert_eq!(error(&proc, pid), format!("there is no process {pid}"));
        }
        fs::create_dir(proc.join("7")).unwrap();
        fs::write(proc.join("7/stat"), "7 (a) b) Z 1 2").unwrap();
        assert!(error(&proc, 7).contains("process 7 uses: it has ended, and is a zombie"));
        fs::write(proc.join("7/stat"), "7 (a) b) S 1 2").unwrap();
        assert!(error(&proc, 7).contains("process 7 uses: No such file"), "no status");
        fs::remove_dir_all(&proc).unwrap();
    }
}
