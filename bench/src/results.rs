//! From single measurements to one row per server: medians, and ratios that are paired within a round.
//!
//! What a machine does besides changes from minute to minute, but less from one measurement to the
//! next. So each server is divided by the reference *of the same round*, and the median is taken of
//! these ratios, not a ratio of medians.

use std::collections::BTreeMap;

use nonforker_load::{Measured, Mode};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Messages per second.
    Rate,
    /// The server's CPU time per message, µs.
    Cpu,
    /// Latency, µs.
    P50,
    /// Latency, µs.
    P99,
    /// Latency, µs.
    P999,
    /// Resident bytes: per idle connection, or by which one that never reads lets the server grow.
    Memory,
    /// Throughput beside one that never reads, divided by that without it.
    Kept,
}

impl Metric {
    pub(crate) const ALL: [Self; 7] =
        [Self::Rate, Self::Cpu, Self::P50, Self::P99, Self::P999, Self::Memory, Self::Kept];

    /// Those that are divided by the reference's.
    pub(crate) const COMPARED: [Self; 3] = [Self::Cpu, Self::Rate, Self::P99];

    /// The name in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Rate => "messages_per_second",
            Self::Cpu => "cpu_us_per_message",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P999 => "p99_9_us",
            Self::Memory => "memory_bytes",
            Self::Kept => "throughput_kept",
        }
    }

    /// The head of a column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "msgs/s",
            Self::Cpu => "CPU µs/msg",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::Memory => "bytes",
            Self::Kept => "kept",
        }
    }

    /// A value, with as many digits as mean something.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Memory => format!("{value:.0}"),
            Self::Cpu if value < 1.0 => format!("{value:.4}"),
            Self::Cpu | Self::Kept => format!("{value:.2}"),
            Self::P50 | Self::P99 | Self::P999 => format!("{value:.1}"),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) values: BTreeMap<Metric, f64>,
    /// Why it must not be trusted.
    pub(crate) fault: Option<String>,
}

/// One measurement, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) case: String,
    pub(crate) peer: &'static str,
    pub(crate) round: usize,
    pub(crate) sample: Sample,
}

/// All measurements of a server in a case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) peer: &'static str,
    pub(crate) medians: BTreeMap<Metric, f64>,
    /// Divided by the reference.
    pub(crate) ratios: BTreeMap<Metric, f64>,
    /// How many measurements there are.
    pub(crate) runs: usize,
    /// The first thing that went wrong.
    pub(crate) fault: Option<String>,
}

impl Sample {
    /// One that failed.
    pub(crate) fn failed(why: String) -> Self {
        Self { fault: Some(why), ..Self::default() }
    }

    /// What the load measured. Faults of single connections make the whole unfit.
    pub(crate) fn of(measured: &Measured) -> Self {
        let latencies = &measured.tally.latencies;
        let latency = |at| {
            let nanos = Some(latencies.value_at_percentile(at)).filter(|_| !latencies.is_empty());
            nanos.map(|nanos| nanos as f64 / 1e3)
        };
        let used = measured.server.as_ref();
        let values = [
            (Metric::Rate, Some(measured.rate())),
            (Metric::Cpu, used.and_then(|used| measured.cpu_us_per_message(used))),
            (Metric::P50, latency(50.0)),
            (Metric::P99, latency(99.0)),
            (Metric::P999, latency(99.9)),
            (Metric::Memory, measured.rss_per_connection()),
        ];
        let is_idle = measured.mode == Mode::Idle;
        let values = values.into_iter().filter_map(|(metric, value)| {
            Some((metric, value?)).filter(|_| is_idle == (metric == Metric::Memory))
        });
        let is_late = measured.is_rate_reached() == Some(false);
        let late = is_late.then(|| "it does not reach the rate".to_owned());
        let fault = measured.faults.first.clone().or(late);
        Self { values: values.collect(), fault }
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => values.get(middle).copied(),
        _ => Some((values.get(middle - 1)? + values.get(middle)?) / 2.0),
    }
}

/// The servers of a case, in the order in which they are first there.
pub(crate) fn rows(runs: &[Run], case: &str, reference: &str) -> Vec<Row> {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.case == case).collect();
    let mut rows: Vec<Row> = Vec::new();
    for peer in runs.iter().map(|run| run.peer) {
        if !rows.iter().any(|row| row.peer == peer) {
            rows.push(row(&runs, peer, reference));
        }
    }
    rows
}

fn row(runs: &[&Run], peer: &'static str, reference: &str) -> Row {
    let own: Vec<&Run> = runs.iter().filter(|run| run.peer == peer).copied().collect();
    let value = |run: &Run, metric| run.sample.values.get(&metric).copied();
    let medians = Metric::ALL.into_iter().filter_map(|metric| {
        let values = own.iter().filter_map(|run| value(run, metric)).collect();
        Some((metric, median(values)?))
    });
    let ratios = Metric::COMPARED.into_iter().filter_map(|metric| {
        let ratio = |run: &&Run| {
            let other = runs.iter().find(|o| o.peer == reference && o.round == run.round)?;
            let below = value(other, metric).filter(|&below| below > 0.0)?;
            Some(value(run, metric)? / below)
        };
        Some((metric, median(own.iter().filter_map(ratio).collect())?))
    });
    Row {
        peer,
        medians: medians.collect(),
        ratios: ratios.collect(),
        runs: own.len(),
        fault: own.iter().find_map(|run| run.sample.fault.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::atomic::AtomicBool,
        thread,
        time::Duration,
    };

    use nonforker::Address;
    use nonforker_load::Load;

    use super::*;

    pub(crate) fn run(peer: &'static str, round: usize, cpu: f64) -> Run {
        let sample = Sample { values: [(Metric::Cpu, cpu)].into(), fault: None };
        Run { case: "64x1x64".into(), peer, round, sample }
    }

    #[test]
    fn medians() {
        let table: &[(&[f64], Option<f64>)] = &[
            (&[], None),
            (&[2.0], Some(2.0)),
            (&[3.0, 1.0], Some(2.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[100.0, 1.0, 2.0, 4.0], Some(3.0)),
        ];
        for (values, expected) in table {
            assert_eq!(median(values.to_vec()), *expected, "{values:?}");
        }
    }

    #[test]
    fn ratios_are_paired_within_a_round() {
        // The machine is three times as slow in the second round, for both of them.
        let runs = [
            run("epoll", 0, 5.0),
            run("mio", 0, 5.5),
            run("mio", 1, 16.5),
            run("epoll", 1, 15.0),
            run("epoll", 2, 5.0),
            run("mio", 2, 6.0),
        ];
        let rows = rows(&runs, "64x1x64", "epoll");
        assert_eq!(rows.iter().map(|row| row.peer).collect::<Vec<_>>(), ["epoll", "mio"]);
        assert_eq!(rows[0].ratios[&Metric::Cpu], 1.0);
        assert!((rows[1].ratios[&Metric::Cpu] - 1.1).abs() < 1e-9, "{rows:?}");
        assert_eq!(rows[1].medians[&Metric::Cpu], 6.0);
        assert_eq!(rows[1].runs, 3);
    }

    #[test]
    fn without_a_reference_in_a_round_there_is_no_ratio() {
        let runs = [run("mio", 0, 5.5), run("epoll", 1, 5.0)];
        let rows = rows(&runs, "64x1x64", "epoll");
        assert!(rows[0].ratios.is_empty(), "{rows:?}");
    }

    /// A load of one connection on a server that sends back what it gets, after it has changed it.
    fn measured(
        mut change: impl FnMut(&mut [u8]) + Send + 'static,
        set: fn(Load) -> Load,
    ) -> Measured {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            // The load may end with a reset.
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                change(&mut bytes[..count]);
                if stream.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        });
        let time = Duration::from_millis(50);
        let load = Load::new(Address::Tcp(address)).connections(1).duration(time).warm_up(time);
        let measured =
            set(load.pid(Some(std::process::id()))).run(&AtomicBool::new(false), &mut ());
        server.join().unwrap();
        measured.unwrap()
    }

    #[test]
    fn what_is_measured_becomes_a_sample() {
        let sample = Sample::of(&measured(|_| {}, |load| load));
        let metrics: Vec<Metric> = sample.values.keys().copied().collect();
        assert_eq!(metrics, [Metric::Rate, Metric::Cpu, Metric::P50, Metric::P99, Metric::P999]);
        assert!(sample.values.values().all(|&value| value > 0.0), "{sample:?}");
        assert_eq!(sample.fault, None);
        let idle = Sample::of(&measured(|_| {}, |load| load.mode(Mode::Idle)));
        assert_eq!(idle.values.keys().copied().collect::<Vec<_>>(), [Metric::Memory]);
    }

    #[test]
    fn a_wrong_reply_and_a_missed_rate_are_faults() {
        let mut count = 0;
        let change = move |bytes: &mut [u8]| {
            count += 1;
            bytes[0] ^= u8::from(count == 10);
        };
        let wrong = measured(change, |load| load.warm_up(Duration::ZERO));
        assert!(Sample::of(&wrong).fault.unwrap().contains("wrong reply"));
        let late = measured(|_| {}, |load| load.rate(Some(1e9)));
        assert_eq!(Sample::of(&late).fault.unwrap(), "it does not reach the rate");
    }
}
