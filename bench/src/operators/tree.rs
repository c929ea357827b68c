//! A process and all that it has started: what they use together.

use std::{collections::BTreeMap, fs, time::Duration};

use nonforker_load::{Process, Snapshot};

use crate::process::Result;

/// The processes that there were when it was looked at.
#[derive(Debug)]
pub(super) struct Tree {
    processes: Vec<(u32, Process)>,
}

impl Tree {
    /// The process of this number, and its descendants.
    pub(super) fn of(root: u32) -> Result<Self> {
        let parents = parents();
        let mut numbers = vec![root];
        let mut at = 0;
        while let Some(&parent) = numbers.get(at) {
            numbers.extend(parents.get(&parent).into_iter().flatten());
            at += 1;
        }
        let find = |number| Process::find(number).map(|process| (number, process));
        let processes: Result<_, _> = numbers.into_iter().map(find).collect();
        processes.map(|processes| Self { processes }).map_err(|error| error.to_string())
    }

    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// What each has used up to now; None of one that has ended.
    pub(super) fn snapshot(&self) -> Vec<Option<Snapshot>> {
        self.processes.iter().map(|(_, process)| process.snapshot().ok()).collect()
    }

    /// CPU time of all of them since then.
    pub(super) fn since(&self, before: &[Option<Snapshot>]) -> Duration {
        let pairs = self.processes.iter().zip(before);
        pairs.filter_map(|((_, process), before)| Some(process.since(before.as_ref()?)?.cpu)).sum()
    }

    /// Bytes of all of them, what they share divided among those that share it.
    pub(super) fn memory(&self) -> u64 {
        self.processes.iter().filter_map(|(number, _)| share(*number)).sum()
    }
}

/// The children of each process.
fn parents() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).ok();
        if let (Some(number), Some(parent)) = (number, stat.as_deref().and_then(parent)) {
            children.entry(parent).or_default().push(number);
        }
    }
    children
}

/// The parent in `/proc/PID/stat`: behind the name, which may contain anything, and the state.
fn parent(stat: &str) -> Option<u32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok()
}

fn share(number: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{number}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_behind_a_name_that_may_be_anything() {
        assert_eq!(parent("7 (a) S 1 7 7 0"), Some(1));
        assert_eq!(parent("7 (a) R 3) S 12 7 7 0"), Some(12));
        assert_eq!(parent("7 (a"), None);
    }

    #[test]
    fn this_process_is_a_tree_that_uses_memory() {
        let tree = Tree::of(std::process::id()).unwrap();
        assert!(tree.processes() >= 1);
        assert!(tree.memory() > 100_000);
    }
}
