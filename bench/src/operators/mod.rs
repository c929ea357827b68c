//! What operators would use instead: tools that put a program behind a port, and relays.
//!
//! ```text
//!  tools ── how each is started ──▶ server ◀── crowd: clients, one request in flight each
//!                                     │
//!                                   tree: what all of its processes use
//! ```

mod crowd;
mod piped;
mod tools;
mod tree;

use std::collections::BTreeMap;

use nonforker::sim::Rng;

use crate::{
    args::OperatorArgs,
    compare::shuffle,
    load::pin,
    operators::{
        crowd::{Crowd, Talk},
        tools::{Tool, Workplace},
        tree::Tree,
    },
    prepare::Workshop,
    process::{Result, Stop, say},
    results::median,
    server::Server,
};

/// Bytes of the longer request, which shows what bytes cost; the other one shows what messages cost.
const LONG: usize = 65_536;
const SHORT: usize = 64;

/// How many send the longer one.
const LONG_CLIENTS: usize = 16;

/// What came of one tool in one round.
struct Round {
    /// Requests per second.
    rate: f64,
    /// µs of CPU time for each request, of all its processes.
    cpu: f64,
    /// Bytes of all its processes, what they share counted once.
    memory: u64,
    processes: usize,
}

/// What is measured: the place of a tool in the list, the number of clients, the bytes of a request.
type What = (usize, usize, usize);

/// Runs `bench operators`.
pub(crate) fn operators(args: &OperatorArgs, stop: &Stop) -> Result<()> {
    // What we start inherits it.
    nonforker::raise_descriptor_limit().map_err(|error| error.to_string())?;
    let workshop = Workshop::new(stop);
    workshop.tool("taskset", "util-linux")?;
    let tools = tools::chosen(&args.tools, &workshop, stop)?;
    let place = Workplace::prepare(&workshop, args, stop)?;
    pin(args.load_core)?;
    let rng = Rng::new(1);
    let mut rounds: BTreeMap<What, Vec<Round>> = BTreeMap::new();
    for round in 0..args.rounds {
        let mut shapes: Vec<What> = Vec::new();
        for (nth, tool) in tools.iter().enumerate() {
            shapes.extend(args.clients.iter().map(|&clients| (nth, clients, SHORT)));
            shapes.extend(tool.is_relay().then_some((nth, LONG_CLIENTS, LONG)));
        }
        shuffle(&rng, &mut shapes);
        for (nth, clients, bytes) in shapes {
            let tool = &tools[nth];
            let about = format!("{}, {clients} clients, {bytes} B", tool.name);
            match measure(tool, &place, clients, bytes, args, stop) {
                Ok(done) => {
                    say(format_args!(
                        "{}/{} {about}: {:.0} requests/s, {:.2} µs, {} KiB, {} processes",
                        round + 1,
                        args.rounds,
                        done.rate,
                        done.cpu,
                        done.memory / 1024,
                        done.processes
                    ));
                    rounds.entry((nth, clients, bytes)).or_default().push(done);
                }
                Err(why) => say(format_args!("failed: {about}: {why}")),
            }
            stop.check()?;
        }
    }
    print(&tools, args, &rounds);
    filters(&tools, &place, args, &rounds)
}

fn measure(
    tool: &Tool,
    place: &Workplace,
    clients: usize,
    bytes: usize,
    args: &OperatorArgs,
    stop: &Stop,
) -> Result<Round> {
    let is_alone = tool.filter(place).is_some();
    let core = Some(if is_alone { args.load_core } else { args.server_core });
    let server = Server::run(tool.name, |port| tool.command(place, port), core, stop)?;
    let mut crowd = Crowd::enter(server.address, tool.talk, clients, bytes)
        .map_err(|why| format!("its clients: {why}"))?;
    crowd.exchange().map_err(|why| why.to_string())?;
    let tree = Tree::of(server.pid())?;
    let before = tree.snapshot();
    let measured = crowd.load(args.duration, stop)?;
    let cpu = tree.since(&before);
    Ok(Round {
        rate: measured.requests / measured.time.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / measured.requests,
        memory: tree.memory(),
        processes: tree.processes(),
    })
}

fn middle(of: &[Round], value: fn(&Round) -> f64) -> f64 {
    median(of.iter().map(value).collect()).unwrap_or(f64::NAN)
}

/// What a filter answers behind a port, beside what it does by itself.
#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn filters(
    tools: &[Tool],
    place: &Workplace,
    args: &OperatorArgs,
    rounds: &BTreeMap<What, Vec<Round>>,
) -> Result<()> {
    println!("\n| a filter on its own core | on a pipe, lines/s | clients | lines/s | ratio |");
    println!("|---|--:|--:|--:|--:|");
    for (nth, tool) in tools.iter().enumerate() {
        let Some(filter) = tool.filter(place) else { continue };
        let [line, _] = Talk::Lines.message(SHORT);
        let alone: Result<Vec<f64>> =
            (0..args.rounds).map(|_| piped::rate(&filter, &line, args.duration)).collect();
        let alone = median(alone?).unwrap_or(f64::NAN);
        for &clients in &args.clients {
            let Some(of) = rounds.get(&(nth, clients, SHORT)) else { continue };
            let rate = middle(of, |round| round.rate);
            println!(
                "| {} | {alone:.0} | {clients} | {rate:.0} | {:.2} |",
                tool.name,
                rate / alone
            );
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn print(tools: &[Tool], args: &OperatorArgs, rounds: &BTreeMap<What, Vec<Round>>) {
    for is_relay in [false, true] {
        let what = if is_relay { "relay" } else { "a program behind a port" };
        println!("\n| {what} | clients | requests/s | CPU µs per request | MiB | processes |");
        println!("|---|--:|--:|--:|--:|--:|");
        for (nth, tool) in tools.iter().enumerate().filter(|(_, tool)| tool.is_relay() == is_relay)
        {
            for &clients in &args.clients {
                let Some(of) = rounds.get(&(nth, clients, SHORT)) else {
                    println!("| {} | {clients} | fails | | | |", tool.name);
                    continue;
                };
                println!(
                    "| {} | {clients} | {:.0} | {:.2} | {:.1} | {} |",
                    tool.name,
                    middle(of, |round| round.rate),
                    middle(of, |round| round.cpu),
                    middle(of, |round| round.memory as f64 / 1_048_576.0),
                    middle(of, |round| round.processes as f64),
                );
            }
        }
    }
    println!("\n| relay, {LONG_CLIENTS} clients, 64 KiB there and back | MiB/s | CPU µs per MiB |");
    println!("|---|--:|--:|");
    for (nth, tool) in tools.iter().enumerate() {
        let Some(of) = rounds.get(&(nth, LONG_CLIENTS, LONG)) else { continue };
        let per_mib = 1_048_576.0 / LONG as f64;
        println!(
            "| {} | {:.0} | {:.0} |",
            tool.name,
            middle(of, |round| round.rate) / per_mib,
            middle(of, |round| round.cpu) * per_mib
        );
    }
}
