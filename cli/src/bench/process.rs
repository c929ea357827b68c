//! What a process has used: its CPU time, its memory, how often it was switched. Linux only.
//!
//! CPU time comes from `/proc/PID/task/*/schedstat`, in nanoseconds, summed over its threads. If a
//! thread has ended in between, or the kernel does not keep that book, it comes from
//! `/proc/PID/stat`, in ticks of 10 ms.

use std::{collections::BTreeMap, fs, io, path::PathBuf, time::Duration};

use crate::ending::Ending;

/// `/proc/PID/stat` counts in these, on every architecture that matters (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A process on this machine.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
}

/// What it had used at a time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Nanoseconds by thread; None where the kernel does not say.
    threads: Option<BTreeMap<u32, u64>>,
    ticks: u32,
    switches: u64,
    /// Resident bytes.
    pub(crate) rss: u64,
}

/// What it has used between two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Whether `cpu` is exact, and not in ticks of 10 ms.
    pub(crate) is_exact: bool,
    pub(crate) switches: u64,
    pub(crate) rss_before: u64,
    pub(crate) rss_after: u64,
}

impl Process {
    /// The process of this number.
    pub(crate) fn find(pid: u32) -> Result<Self, Ending> {
        if !cfg!(target_os = "linux") {
            return Err(Ending::Usage("--pid: this needs Linux and its /proc".into()));
        }
        let process = Self { folder: PathBuf::from(format!("/proc/{pid}")) };
        if !process.folder.exists() {
            return Err(Ending::Failed(format!("--pid: there is no process {pid}")));
        }
        process.snapshot().map_err(|error| {
            Ending::Failed(format!("--pid: cannot read what process {pid} uses: {error}"))
        })?;
        Ok(process)
    }

    /// Ourselves, where it can be told.
    pub(crate) fn own() -> Option<Self> {
        Self::find(std::process::id()).ok()
    }

    /// What it has used up to now. CPU time is looked at last, which begins a window.
    pub(crate) fn snapshot(&self) -> io::Result<Snapshot> {
        let snapshot = self.without_threads()?;
        Ok(Snapshot { threads: self.threads().ok(), ..snapshot })
    }

    /// What it has used since then; None if it has ended. CPU time is looked at first, which ends
    /// a window.
    pub(crate) fn since(&self, before: &Snapshot) -> Option<Usage> {
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
        let text = fs::read_to_string(self.folder.join("stat"))?;
        // The second field is a name in brackets, which may contain anything.
        let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let mut times = fields.split_whitespace().skip(11);
        Ok(number::<u32>(times.next())? + number::<u32>(times.next())?)
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
    fn what_is_not_there_is_said() {
        let error = Process::find(u32::MAX).expect_err("no process has this number");
        assert!(format!("{error:?}").contains("--pid"), "{error:?}");
    }
}
