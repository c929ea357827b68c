//! How late a timer of 10 ms is that is set again at each tick, and what it costs: system calls per
//! tick, and system calls and instructions per message beside it, which a precise timer must not raise.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::{
    args::TickArgs,
    instructions,
    lockstep::Shape,
    peers::{self, Job},
    prepare::{Ready, Workshop},
    process::{Result, Stop, say},
    server::Server,
    syscalls,
};

/// Ticks of the short and the long run whose system calls are counted.
const COUNTED: [usize; 2] = [20, 120];

/// How much longer than its ticks a run may take; servers are slow under strace.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to end.
const END_MAX: Duration = Duration::from_secs(30);

/// What came of one driver.
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// Milliseconds: the median, the 99th percentile, the most.
    late: [f64; 3],
    calls_per_tick: String,
    calls_per_message: String,
    instructions_per_message: String,
}

/// Runs `bench ticks`.
pub(crate) fn ticks(args: &TickArgs, stop: &Stop) -> Result<()> {
    let workshop = Workshop::new(stop);
    let (clocks, _) = workshop.prepare_all(&peers::chosen(&[], &[Job::Ticks])?)?;
    let names: Vec<String> = clocks.iter().map(|ready| ready.peer.name.into()).collect();
    let mut echoes = peers::chosen(&names, &[Job::Echo])?;
    echoes.retain(|peer| names.iter().any(|name| name == peer.name));
    let (echoes, _) = workshop.prepare_all(&echoes)?;
    let folder = workshop.path("target/bench");
    fs::create_dir_all(&folder)
        .map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    let file = folder.join(format!("strace.{}", std::process::id()));
    let mut rows = Vec::new();
    for (clock, echo) in clocks.iter().zip(&echoes) {
        say(format_args!("measuring {}", clock.peer.name));
        let late = run(clock, &[], args.ticks.into(), stop)?;
        rows.push(Row {
            name: clock.peer.name,
            late: [0.5, 0.99, 1.0].map(|share| quantile(&late, share)),
            calls_per_tick: calls(&workshop, clock, &file, stop).unwrap_or_else(|why| why),
            calls_per_message: message_calls(&workshop, echo, &file, stop)
                .unwrap_or_else(|why| why),
            instructions_per_message: message_instructions(&workshop, echo, stop)
                .unwrap_or_else(|why| why),
        });
        stop.check()?;
    }
    print(args.ticks, &rows);
    Ok(())
}

/// So many ticks of a server that is started under `wrapper`: how late each was, in milliseconds, in
/// the order of lateness.
fn run(ready: &Ready, wrapper: &[String], count: usize, stop: &Stop) -> Result<Vec<f64>> {
    let server = Server::start(ready, None, wrapper, stop)?;
    let late = ask(server.address, count).map_err(|why| format!("{}: {why}", ready.peer.name))?;
    server.end(END_MAX, stop)?;
    Ok(late)
}

fn ask(address: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let text = |error: std::io::Error| error.to_string();
    let mut connection = TcpStream::connect(address).map_err(text)?;
    let ticks = Duration::from_millis(10) * u32::try_from(count).unwrap_or(u32::MAX);
    connection.set_read_timeout(Some(ticks + TIMEOUT)).map_err(text)?;
    connection.write_all(format!("{count}\n").as_bytes()).map_err(text)?;
    let mut reply = String::new();
    BufReader::new(connection).read_line(&mut reply).map_err(text)?;
    let mut late = lateness(&reply)?;
    if late.len() != count {
        return Err(format!("{} ticks came of {count}", late.len()));
    }
    late.sort_by(f64::total_cmp);
    Ok(late)
}

/// Milliseconds, of nanoseconds.
fn lateness(reply: &str) -> Result<Vec<f64>> {
    let millis = |word: &str| word.parse().map(|nanos: f64| nanos / 1e6);
    let late: std::result::Result<Vec<f64>, _> = reply.split_whitespace().map(millis).collect();
    late.map_err(|_| format!("no list of numbers: {reply:?}"))
}

/// The least of `sorted` that this share of them does not exceed; of none, no number.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// System calls per tick.
fn calls(workshop: &Workshop<'_>, ready: &Ready, file: &Path, stop: &Stop) -> Result<String> {
    workshop.tool("strace", "strace")?;
    let counted = |count| {
        syscalls::counted(ready.peer.name, file, |wrapper| {
            run(ready, wrapper, count, stop).map(drop)
        })
    };
    let [few, many] = COUNTED;
    Ok(syscalls::text(&syscalls::per((many - few) as f64, &counted(few)?, counted(many)?)))
}

fn message_calls(
    workshop: &Workshop<'_>,
    ready: &Ready,
    file: &Path,
    stop: &Stop,
) -> Result<String> {
    workshop.tool("strace", "strace")?;
    let shape = Shape { connections: 64, in_flight: 1, few: 20, many: 220 };
    syscalls::count(ready, shape, file, stop).map(|calls| syscalls::text(&calls))
}

fn message_instructions(workshop: &Workshop<'_>, ready: &Ready, stop: &Stop) -> Result<String> {
    workshop.tool("valgrind", "valgrind")?;
    if ready.peer.name.ends_with("uring") {
        return Err("valgrind does not know io_uring".into());
    }
    instructions::count(workshop, ready, 1, stop).map(|count| format!("{count:.0}"))
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn print(ticks: u16, rows: &[Row]) {
    println!(
        "| {ticks} ticks of 10 ms | late in ms: median | p99 | most | calls per tick | calls per \
         message, 64/1 | instructions per message, 1/1 |\n|---|--:|--:|--:|---|---|--:|"
    );
    for row in rows {
        let [median, p99, most] = row.late;
        println!(
            "| {} | {median:.3} | {p99:.3} | {most:.3} | {} | {} | {} |",
            row.name, row.calls_per_tick, row.calls_per_message, row.instructions_per_message
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_a_list_of_nanoseconds() {
        assert_eq!(lateness("1000000 500000\n"), Ok(vec![1.0, 0.5]));
        assert!(lateness("soon").is_err());
    }

    #[test]
    fn a_quantile_is_one_of_the_numbers() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        let quantiles = [0.0, 0.5, 0.51, 0.99, 1.0].map(|share| quantile(&sorted, share));
        assert_eq!(quantiles, [1.0, 2.0, 3.0, 4.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
