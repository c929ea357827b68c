//! Instructions per message in user space, counted by valgrind's callgrind. A machine that is busy
//! does not change them, so they show what seconds hide.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    args::InstructionArgs,
    baseline::Baseline,
    lockstep::Shape,
    peers::{self, Job},
    prepare::{Ready, Workshop},
    process::{Result, Stop, say},
};

/// One connection, with this many in flight.
const IN_FLIGHT: [usize; 2] = [1, 16];

/// Whose are counted if nothing is said. Not ours over io_uring: valgrind does not know all of it.
const PEERS: [&str; 4] = ["epoll", "nonforker-poll", "mio", "tokio"];

/// Whose are checked if nothing is said.
const CHECKED: [&str; 1] = ["nonforker-poll"];

/// Instructions per message, by server and by how many are in flight.
pub(crate) type Counts = BTreeMap<String, BTreeMap<usize, f64>>;

/// Runs `bench instructions`.
pub(crate) fn instructions(args: &InstructionArgs, stop: &Stop) -> Result<()> {
    let workshop = Workshop::of_library(stop);
    workshop.tool("valgrind", "valgrind")?;
    let defaults: &[&str] = if args.check { &CHECKED } else { &PEERS };
    let names = match args.peers.as_slice() {
        [] => defaults.iter().map(ToString::to_string).collect(),
        names => names.to_vec(),
    };
    let mut peers = peers::chosen(&names, &[Job::Echo])?;
    peers.retain(|peer| names.iter().any(|name| name == peer.name));
    let (ready, skipped) = workshop.prepare_all(&peers)?;
    if let Some((name, why)) = skipped.first().filter(|_| args.check || args.record) {
        return Err(format!("{name}: {why}"));
    }
    let mut counts = Counts::new();
    for ready in &ready {
        for in_flight in IN_FLIGHT {
            let count = count(&workshop, ready, in_flight, stop)?;
            say(format_args!("{}, {in_flight} in flight: {count:.1}", ready.peer.name));
            counts.entry(ready.peer.name.into()).or_default().insert(in_flight, count);
        }
    }
    let path = workshop.path("bench/baseline.json");
    if args.record {
        Baseline::now(counts).write(&path)
    } else if args.check {
        Baseline::read(&path)?.check(&counts)
    } else {
        print(&counts);
        Ok(())
    }
}

/// Instructions per message.
pub(crate) fn count(
    workshop: &Workshop<'_>,
    ready: &Ready,
    in_flight: usize,
    stop: &Stop,
) -> Result<f64> {
    // To start takes 2.6 million instructions, and the allocator cleans up by the clock: that scatters by
    // 30,000. A long run makes it less than a per cent of a message.
    let shape = Shape { connections: 1, in_flight, few: 100, many: 5100 };
    let folder = workshop.path("target/bench");
    let file = folder.join(format!("callgrind.{}", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    let few = counted(ready, shape, shape.few, &file, stop);
    let many = few.and_then(|few| Ok((few, counted(ready, shape, shape.many, &file, stop)?)));
    // It may not have got as far as to be there.
    let _ = fs::remove_file(&file);
    let (few, many) = many?;
    Ok((many - few) / shape.difference())
}

/// Instructions of a whole run.
fn counted(ready: &Ready, shape: Shape, batches: usize, file: &Path, stop: &Stop) -> Result<f64> {
    let out = format!("--callgrind-out-file={}", file.display());
    let wrapper = ["valgrind", "--quiet", "--tool=callgrind", &out].map(ToString::to_string);
    shape.run(ready, &wrapper, batches, stop)?;
    let text = fs::read_to_string(PathBuf::from(file))
        .map_err(|why| format!("{}: valgrind has left nothing: {why}", ready.peer.name))?;
    total(&text).ok_or_else(|| format!("{}: valgrind's file has no total", ready.peer.name))
}

/// The last total in callgrind's file.
fn total(text: &str) -> Option<f64> {
    let number = |line: &str| {
        line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:"))?.trim().parse().ok()
    };
    text.lines().rev().find_map(number)
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn print(counts: &Counts) {
    println!("| instructions per message | 1 in flight | 16 in flight |\n|---|--:|--:|");
    for (peer, by_shape) in counts {
        let cells: Vec<String> = by_shape.values().map(|count| format!("{count:.0}")).collect();
        println!("| {peer} | {} |", cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_from_the_end() {
        assert_eq!(total("version: 1\nsummary: 120\nfn=(1)\n1 2\ntotals: 123\n"), Some(123.0));
        assert_eq!(total("summary: 120\n"), Some(120.0));
        assert_eq!(total("version: 1\n"), None);
    }
}
