//! The comparison: every server in every case, by turns, in rounds.

use std::{collections::BTreeMap, fs, path::PathBuf};

use nonforker::{Address, sim::Rng};

use crate::{
    args::CompareArgs,
    cases::{self, Case, Kind},
    job,
    load::Loader,
    peers::{self, Job},
    prepare::{Ready, Skipped, Workshop},
    process::{Result, Stop, say},
    report::{self, Comparison},
    results::{Metric, Run, Sample, median},
    server::Server,
};

/// How often raw epoll's peak is measured, to know what half of it is.
const PEAKS: usize = 3;

/// Runs `bench compare`.
pub(crate) fn compare(args: &CompareArgs, stop: &Stop) -> Result<()> {
    let cases = cases::cases(&args.scenarios)?;
    let jobs: Vec<Job> = cases.iter().map(Case::job).collect();
    let peers = peers::chosen(&args.peers, &jobs)?;
    check_machine(args)?;
    let workshop = Workshop::new(stop);
    let out = args.out.clone().unwrap_or_else(|| workshop.path("target/bench"));
    workshop.tool("taskset", "util-linux")?;
    if jobs.contains(&Job::Redis) {
        workshop.tool("redis-benchmark", "redis-tools")?;
    }
    let load =
        Loader { core: args.load_core, duration: args.duration, warm_up: args.warm_up, stop };
    let (ready, skipped) = workshop.prepare_all(&peers)?;
    let mut field = Field { args, load, ready, servers: BTreeMap::new(), peak: None };
    let incorrect = field.start_all()?;
    let skipped = [skipped, incorrect].concat();
    let had = (field.ready.as_slice(), skipped);
    let mut comparison = Comparison::new(args, cases, had, &workshop.path(""));
    field.measure_all(&mut comparison, &out)
}

fn check_machine(args: &CompareArgs) -> Result<()> {
    // The load runs in this program, and would be what limits.
    if cfg!(debug_assertions) {
        return Err("the load is slow in a debug build: cargo run --release --package bench".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if args.server_core == args.load_core || args.server_core.max(args.load_core) >= cores {
        let why = "server and load need a core each";
        return Err(format!("{why}; this machine has {cores}; see --server-core and --load-core"));
    }
    // What we start inherits it.
    nonforker::raise_descriptor_limit().map(drop).map_err(|error| error.to_string())
}

/// All servers, and the load.
struct Field<'a> {
    args: &'a CompareArgs,
    load: Loader<'a>,
    ready: Vec<Ready>,
    /// By the place in `ready`.
    servers: BTreeMap<usize, Server>,
    /// What raw epoll can do with 64 connections, messages per second.
    peak: Option<f64>,
}

impl Field<'_> {
    fn start(&self, nth: usize) -> Result<Server> {
        let ready = self.ready.get(nth).ok_or("there is no such server")?;
        Server::start(ready, Some(self.args.server_core), &[], self.load.stop)
    }

    /// Starts all. Those that do not start or do not do the job are left out, and why is returned.
    fn start_all(&mut self) -> Result<Skipped> {
        let mut skipped = Skipped::new();
        for ready in std::mem::take(&mut self.ready) {
            self.load.stop.check()?;
            self.ready.push(ready);
            let nth = self.ready.len() - 1;
            let peer = self.ready[nth].peer;
            let started = self.start(nth).and_then(|server| match peer.job {
                Job::Echo | Job::Offload | Job::Ticket => {
                    job::check(server.address).map(|()| server)
                }
                Job::Broadcast | Job::Redis | Job::Ticks | Job::Publish | Job::Tls => Ok(server),
            });
            match started {
                Ok(server) => drop(self.servers.insert(nth, server)),
                Err(why) => {
                    say(format_args!("skipped: {}: {why}", peer.name));
                    skipped.push((peer.name, why));
                    self.ready.pop();
                }
            }
        }
        Ok(skipped)
    }

    fn measure_all(&mut self, comparison: &mut Comparison, out: &PathBuf) -> Result<()> {
        fs::create_dir_all(out).map_err(|why| format!("cannot make {}: {why}", out.display()))?;
        let rng = Rng::new(self.args.seed);
        for case in comparison.cases.clone() {
            if case.kind == Kind::HalfRate {
                self.find_peak()?;
            }
            comparison.peak = self.peak;
            for round in 0..usize::from(self.args.rounds) {
                let mut turn: Vec<usize> = (0..self.ready.len())
                    .filter(|&nth| self.ready[nth].peer.job == case.job())
                    .collect();
                shuffle(&rng, &mut turn);
                for nth in turn {
                    let run = self.measure(&case, nth, round)?;
                    say(line(&run, self.args.rounds));
                    comparison.runs.push(run);
                }
            }
            // Whatever happens later, this much is there.
            report::write(comparison, out)?;
        }
        say(format_args!("written: {}", out.join("compare.md").display()));
        Ok(())
    }

    fn measure(&mut self, case: &Case, nth: usize, round: usize) -> Result<Run> {
        let sample = self.sample(case, nth).unwrap_or_else(Sample::failed);
        self.load.stop.check()?;
        if sample.fault.is_some() {
            // It may be dead, or busy with what is left. The next turn starts another.
            self.servers.remove(&nth);
        }
        let peer = self.ready[nth].peer.name;
        Ok(Run { case: case.name.clone(), peer, round, sample })
    }

    fn sample(&mut self, case: &Case, nth: usize) -> Result<Sample> {
        if case.kind.wants_fresh_servers() || !self.servers.contains_key(&nth) {
            self.servers.remove(&nth);
            self.servers.insert(nth, self.start(nth)?);
        }
        let server = self.servers.get(&nth).ok_or("it is not running")?;
        let load = case.load(Address::Tcp(server.address));
        match case.kind {
            Kind::Redis(command, in_flight) => self.load.redis(server, command, in_flight),
            Kind::Connects => self.load.connects(server, load),
            Kind::NeverReading => self.load.beside_never_reading(server, load),
            Kind::HalfRate => {
                let peak = self.peak.ok_or("raw epoll's peak is not known")?;
                Ok(self.load.sample(server, load.rate(Some((peak / 2.0).round()))))
            }
            _ => Ok(self.load.sample(server, load)),
        }
    }

    fn find_peak(&mut self) -> Result<()> {
        let reference = Job::Echo.reference();
        let Some(nth) = self.ready.iter().position(|ready| ready.peer == reference) else {
            return Ok(());
        };
        let kind = Kind::Closed(64, 1, 64);
        let case = Case { name: "peak".into(), kind, is_encrypted: false };
        let mut rates = Vec::new();
        for round in 0..PEAKS {
            let run = self.measure(&case, nth, round)?;
            rates.extend(run.sample.values.get(&Metric::Rate));
        }
        self.peak = median(rates);
        Ok(())
    }
}

/// Prints a measurement as progress.
fn line(run: &Run, rounds: u16) -> String {
    let mut text = format!("{} {}/{rounds} {}:", run.case, run.round + 1, run.peer);
    for (metric, value) in &run.sample.values {
        text += &format!(" {} {}", metric.text(*value), metric.title());
    }
    if let Some(fault) = &run.sample.fault {
        text += &format!(" FAILED: {fault}");
    }
    text
}

/// Puts them into a random order.
pub(crate) fn shuffle<T>(rng: &Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.between(0, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_moves_everything_everywhere_and_loses_nothing() {
        let rng = Rng::new(1);
        let mut at_first = [0; 5];
        for _ in 0..1000 {
            let mut items = [0, 1, 2, 3, 4];
            shuffle(&rng, &mut items);
            at_first[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        assert!(at_first.iter().all(|&count| (100..300).contains(&count)), "{at_first:?}");
    }
}
