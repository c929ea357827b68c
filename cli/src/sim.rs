//! `nonforker sim`: runs the scenarios on the simulated network, for as many seeds as
//! asked for, on every core, until one fails.

use std::{
    io::{self, IsTerminal},
    num::{IntErrorKind, NonZeroUsize},
    ops::Range,
    panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use nonforker::sim::Failure;

use clap::Args;

use crate::{console, ending::Ending, scenarios::Scenario};

pub(crate) const EXAMPLES: &str = "\
Examples:
  nonforker sim                                    A quick check
  nonforker sim --seeds 0..1000000                 A long one
  nonforker sim --scenario drain --seeds 17        One seed of one scenario, as a failure says
  nonforker sim --list                             What there is";

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Seeds to run: A..B, B not included, or one
    #[arg(long, value_name = "A..B", default_value = "0..10000", value_parser = seeds)]
    pub(crate) seeds: Range<u64>,

    /// Threads that run them [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// A scenario to run; give it several times for several [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Vec<String>,

    /// Print the scenarios and what they test
    #[arg(long)]
    pub(crate) list: bool,
}

/// How many seeds a thread takes at a time, at most.
const BATCH: u64 = 50;

/// The most threads: more than there are processors do not run faster.
const JOBS_MAX: usize = 4096;

/// What all threads share.
struct Sweep {
    seeds: Range<u64>,
    scenarios: Vec<Scenario>,
    /// How many seeds a thread takes at a time.
    batch: u64,
    next: AtomicU64,
    stop: AtomicBool,
    frames: AtomicU64,
    virtual_millis: AtomicU64,
    failure: Mutex<Option<(Scenario, Failure)>>,
    progress: ProgressBar,
}

/// Sweeps the seeds.
pub(crate) fn run(args: &SimArgs) -> Result<ExitCode, Ending> {
    if args.list {
        return Err(list());
    }
    let jobs = args.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        NonZeroUsize::get,
    );
    // A thread without a seed has nothing to do.
    let count = args.seeds.end - args.seeds.start;
    let jobs = count.min(jobs as u64);
    let sweep = Sweep {
        seeds: args.seeds.clone(),
        scenarios: chosen(&args.scenario)?,
        batch: (count / jobs).clamp(1, BATCH),
        next: AtomicU64::new(args.seeds.start),
        stop: AtomicBool::new(false),
        frames: AtomicU64::new(0),
        virtual_millis: AtomicU64::new(0),
        failure: Mutex::new(None),
        progress: progress(&args.seeds),
    };
    // We print a failing seed, once, with how to replay it.
    panic::set_hook(Box::new(|_| ()));
    let began = now();
    let refused = sweep.run_on(jobs);
    sweep.progress.finish_and_clear();
    if let Some((started, error)) = refused {
        let text = format!("cannot start thread {} of {jobs}: {error}", started + 1);
        if started == 0 {
            return Err(Ending::Failed(text));
        }
        console::print(io::stderr(), &format!("nonforker: {text}; {started} did it all\n"));
    }
    Ok(sweep.tell(now().duration_since(began)))
}

fn list() -> Ending {
    let lines =
        Scenario::ALL.map(|scenario| format!("{:<10} {}\n", scenario.name(), scenario.about()));
    console::answer_text(&lines.concat())
}

/// The scenarios of these names, or all.
fn chosen(names: &[String]) -> Result<Vec<Scenario>, Ending> {
    if names.is_empty() {
        return Ok(Scenario::ALL.to_vec());
    }
    let find = |name: &String| {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.ok_or_else(|| {
            let all = Scenario::ALL.map(|scenario| scenario.name()).join(", ");
            Ending::Usage(format!("there is no scenario {name:?}; there are {all}"))
        })
    };
    names.iter().map(find).collect()
}

fn progress(seeds: &Range<u64>) -> ProgressBar {
    let bar = ProgressBar::new(seeds.end - seeds.start);
    let template = "{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left{msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

impl Sweep {
    /// Runs it on `jobs` threads. If not all of them can be started, those that can run all seeds.
    /// Returns how many that were, and why no more.
    fn run_on(&self, jobs: u64) -> Option<(u64, io::Error)> {
        thread::scope(|scope| {
            for started in 0..jobs {
                let thread = thread::Builder::new().spawn_scoped(scope, || self.work());
                if let Err(error) = thread {
                    return Some((started, error));
                }
            }
            None
        })
    }

    fn work(&self) {
        while !self.stop.load(Relaxed)
            && let Some(batch) = self.take_batch()
        {
            for seed in batch {
                self.run_seed(seed);
            }
        }
    }

    /// The next seeds that nobody has taken.
    fn take_batch(&self) -> Option<Range<u64>> {
        let behind = |first: u64| first.saturating_add(self.batch).min(self.seeds.end);
        let taken = self.next.fetch_update(Relaxed, Relaxed, |first| {
            (first < self.seeds.end).then(|| behind(first))
        });
        taken.ok().map(|first| first..behind(first))
    }

    fn run_seed(&self, seed: u64) {
        for scenario in &self.scenarios {
            match scenario.run_one(seed) {
                Ok(run) => {
                    let millis = u64::try_from(run.time.as_millis()).unwrap_or(u64::MAX);
                    self.frames.fetch_add(run.stats.frames, Relaxed);
                    self.virtual_millis.fetch_add(millis, Relaxed);
                }
                Err(failure) => self.fail(*scenario, failure),
            }
        }
        self.progress.inc(1);
    }

    /// The first seed that fails ends the sweep.
    fn fail(&self, scenario: Scenario, failure: Failure) {
        if self.stop.swap(true, Relaxed) {
            return;
        }
        self.progress.set_message(", one failed: looking for the fewest faults");
        let smallest = scenario.minimise(failure);
        if let Ok(mut place) = self.failure.lock() {
            *place = Some((scenario, smallest));
        }
    }

    /// Says what came of it.
    fn tell(&self, took: Duration) -> ExitCode {
        let failure = self.failure.lock().map(|mut failure| failure.take()).unwrap_or_default();
        let seeds = self.next.load(Relaxed) - self.seeds.start;
        let rate = seeds as f64 / took.as_secs_f64().max(1e-9);
        let simulated = Duration::from_millis(self.virtual_millis.load(Relaxed));
        let summary = format!(
            "{seeds} seeds of {} scenarios in {}: {rate:.0} seeds/s, {} requests, {} of virtual time\n",
            self.scenarios.len(),
            humantime::format_duration(Duration::from_millis(
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
            )),
            self.frames.load(Relaxed),
            humantime::format_duration(Duration::from_secs(simulated.as_secs())),
        );
        let Some((scenario, failure)) = failure else {
            console::print(io::stdout(), &format!("{summary}all as it has to be\n"));
            return ExitCode::SUCCESS;
        };
        let red = if io::stdout().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let text = format!(
            "{failure}\n{}failed: {}{}: {}\nreplay: nonforker sim --scenario {} --seeds {}\n{summary}",
            red.0,
            scenario.name(),
            red.1,
            scenario.about(),
            scenario.name(),
            failure.seed(),
        );
        console::print(io::stdout(), &text);
        ExitCode::FAILURE
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a sweep takes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Seeds as text: `A..B`, the last not included, or one seed.
pub(crate) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let bad = |what: &str| Err(format!("bad seeds {text:?}: {what}"));
    let number = |part: &str| part.trim().replace('_', "").parse::<u64>();
    let range = match text.split_once("..") {
        Some((first, last)) => number(first).and_then(|first| Ok(first..number(last)?)),
        None => number(text).map(|seed| seed..seed.saturating_add(1)),
    };
    match range {
        Ok(range) if range.start == u64::MAX => bad("the last seed is 18446744073709551614"),
        Ok(range) if range.is_empty() => bad("the range is empty: write 0..1000"),
        Ok(range) => Ok(range),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            bad("they end at 18446744073709551615")
        }
        Err(_) => bad("write a range such as 0..1000000, or one seed"),
    }
}

/// The number of threads.
pub(crate) fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(jobs) if jobs.get() <= JOBS_MAX => Ok(jobs),
        Err(error) if *error.kind() != IntErrorKind::PosOverflow => {
            Err(format!("bad number {text:?}: write a whole number of at least 1"))
        }
        _ => Err(format!(
            "bad number {text:?}: at most {JOBS_MAX}, since more than there are processors do not \
             run faster"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::seeds;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("5..8"), Ok(5..8));
        assert_eq!(seeds("0..1_000_000"), Ok(0..1_000_000));
        assert_eq!(seeds("7"), Ok(7..8));
        assert_eq!(seeds("18446744073709551614"), Ok(u64::MAX - 1..u64::MAX));
        for wrong in ["", "8..5", "5..5", "a..b", "..", "-1", "18446744073709551615"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
        let beyond = seeds("0..18446744073709551616").expect_err("too large a number");
        assert!(beyond.contains("end at 18446744073709551615"), "{beyond}");
    }
}
