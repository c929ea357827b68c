//! System calls per message, counted by strace.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use crate::{
    args::SyscallArgs,
    lockstep::Shape,
    peers::{self, Job},
    prepare::{Ready, Workshop},
    process::{Result, Stop, now, pause, say},
};

/// Connections and in flight.
const SHAPES: [(usize, usize); 3] = [(1, 1), (64, 1), (64, 16)];

/// Whose are counted if nothing is said.
const PEERS: [&str; 7] =
    ["epoll", "uring", "nonforker-poll", "nonforker-uring", "mio", "tokio", "monoio"];

/// How long strace may take to write its table after the server has ended.
const TABLE_MAX: Duration = Duration::from_secs(10);

/// Calls rarer than one in this many messages are not named.
const NAMED_MIN: f64 = 0.005;

/// Calls by name.
pub(crate) type Calls = BTreeMap<String, f64>;

/// Runs `bench syscalls`.
pub(crate) fn syscalls(args: &SyscallArgs, stop: &Stop) -> Result<()> {
    let workshop = Workshop::new(stop);
    workshop.tool("strace", "strace")?;
    let names = match args.peers.as_slice() {
        [] => PEERS.iter().map(ToString::to_string).collect(),
        names => names.to_vec(),
    };
    let mut peers = peers::chosen(&names, &[Job::Echo])?;
    peers.retain(|peer| names.iter().any(|name| name == peer.name));
    let (ready, _) = workshop.prepare_all(&peers)?;
    let folder = workshop.path("target/bench");
    fs::create_dir_all(&folder)
        .map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    let file = folder.join(format!("strace.{}", std::process::id()));
    let mut lines = Vec::new();
    for ready in &ready {
        say(format_args!("counting {}", ready.peer.name));
        let mut line = vec![ready.peer.name.to_owned()];
        for (connections, in_flight) in SHAPES {
            let shape = Shape { connections, in_flight, few: 20, many: 220 };
            line.push(
                count(ready, shape, &file, stop).map_or_else(|why| why, |calls| text(&calls)),
            );
            stop.check()?;
        }
        lines.push(line);
    }
    print(&lines);
    Ok(())
}

/// Calls per message.
pub(crate) fn count(ready: &Ready, shape: Shape, file: &Path, stop: &Stop) -> Result<Calls> {
    let run = |batches: usize| {
        counted(ready.peer.name, file, |wrapper| shape.run(ready, wrapper, batches, stop))
    };
    Ok(per(shape.difference(), &run(shape.few)?, run(shape.many)?))
}

/// By how many calls a long run has more than a short one, divided by what it has more of.
pub(crate) fn per(more: f64, few: &Calls, many: Calls) -> Calls {
    let per_one = |(name, count): (String, f64)| {
        let before = few.get(&name).copied().unwrap_or(0.0);
        (name, (count - before) / more)
    };
    many.into_iter().map(per_one).collect()
}

/// Calls of a whole run of a server, which is started under a wrapper.
pub(crate) fn counted(
    name: &str,
    file: &Path,
    run: impl FnOnce(&[String]) -> Result<()>,
) -> Result<Calls> {
    // It may not be there.
    let _ = fs::remove_file(file);
    // With -D the server is our child, and strace is its own.
    let out = file.to_string_lossy();
    let wrapper = ["strace", "-D", "-f", "-c", "-o", &out].map(ToString::to_string);
    run(&wrapper)?;
    let deadline = now() + TABLE_MAX;
    let calls = loop {
        if let Some(calls) = table(&fs::read_to_string(file).unwrap_or_default()) {
            break Ok(calls);
        }
        if now() > deadline {
            break Err(format!("{name}: strace has written no table"));
        }
        pause(Duration::from_millis(20));
    };
    let _ = fs::remove_file(file);
    calls
}

/// The calls in strace's table; None if it is not complete.
fn table(text: &str) -> Option<Calls> {
    let mut calls = Calls::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, _, _, count, .., name] = words.as_slice() else { continue };
        let (Ok(_), Ok(count)) = (share.parse::<f64>(), count.parse::<f64>()) else { continue };
        if *name == "total" {
            return Some(calls);
        }
        calls.insert((*name).to_owned(), count);
    }
    None
}

/// The sum, and what it is made of.
pub(crate) fn text(calls: &Calls) -> String {
    let mut named: Vec<(&String, f64)> = calls
        .iter()
        .map(|(name, count)| (name, *count))
        .filter(|(_, count)| *count >= NAMED_MIN)
        .collect();
    named.sort_by(|a, b| b.1.total_cmp(&a.1));
    let sum: f64 = calls.values().sum();
    let parts: Vec<String> =
        named.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
    format!("{:.2} ({})", sum.max(0.0), parts.join(", "))
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn print(lines: &[Vec<String>]) {
    println!("| system calls per message | 1/1 | 64/1 | 64/16 |\n|---|---|---|---|");
    for line in lines {
        println!("| {} |", line.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 50.00    0.000100           1       100           sendto
 40.00    0.000080           1       200         3 recvfrom
 10.00    0.000020           0         1           epoll_ctl
------ ----------- ----------- --------- --------- ----------------
100.00    0.000200           0       301         3 total
";

    #[test]
    fn a_table_is_read_with_and_without_errors() {
        let calls = table(TABLE).unwrap();
        assert_eq!(calls["sendto"], 100.0);
        assert_eq!(calls["recvfrom"], 200.0);
        assert_eq!(calls.len(), 3);
    }

    #[test]
    fn half_a_table_is_none() {
        assert_eq!(table(&TABLE[..TABLE.len() - 20]), None);
        assert_eq!(table(""), None);
    }

    #[test]
    fn the_most_frequent_call_is_named_first_and_the_rarest_are_not() {
        let calls = [("a", 0.004), ("b", 1.0), ("c", 2.0)];
        let calls = calls.map(|(name, count)| (name.to_owned(), count)).into();
        assert_eq!(text(&calls), "3.00 (c 2.00, b 1.00)");
    }
}
