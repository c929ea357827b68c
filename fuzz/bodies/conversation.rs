//! Any list of what clients may do, against an echo server with any limits: a client that reads gets a
//! start of what it sent, and the engine forgets nothing.

use std::time::Duration;

use arbitrary::Arbitrary;
use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

/// The virtual time of one run, longer than any deadline of it. A reader of one byte a millisecond would
/// take minutes for the days that a fuzzer comes up with.
const TIME_MAX: Duration = Duration::from_secs(300);

#[derive(Arbitrary, Debug, Clone)]
enum Step {
    Connect { window: u16 },
    Send(u8, Vec<u8>),
    Flood(u8, u16),
    Urgent(u8, u8),
    HalfClose(u8),
    Reset(u8),
    Stall(u8),
    Slow(u8, u8, u16),
    Read(u8),
    Wait(u32),
    Drain,
    Stop,
}

/// The limits of a server, and what its clients do.
#[derive(Arbitrary, Debug, Clone)]
pub struct Input {
    seed: u64,
    faulty: bool,
    high: u16,
    low: u16,
    cap: u16,
    read: u16,
    frames: u8,
    connections: Option<u8>,
    per_ip: Option<u8>,
    budget: Option<u32>,
    idle: Option<u16>,
    max_frame: u8,
    steps: Vec<Step>,
}

fn server(input: &Input) -> Server {
    let limits = Limits::new()
        .high_watermark(input.high.into())
        .low_watermark(input.low.min(input.high).into())
        .output_cap(input.cap.into())
        .read_per_turn(usize::from(input.read).max(1))
        .frames_per_turn(usize::from(input.frames).max(1))
        .max_connections(input.connections.map(|max| usize::from(max).max(1)))
        .max_connections_per_ip(input.per_ip.map(|max| usize::from(max).max(1)))
        // Less is refused.
        .memory_budget(input.budget.map(|budget| (budget as usize).max(4 << 10)))
        .idle_timeout(input.idle.map(|millis| Duration::from_millis(millis.into())));
    let codec = Lines::with_max(input.max_frame.into());
    Server::new().limits(limits).serve("127.0.0.1:1685", codec, |conn, line| conn.send(line))
}

/// Plays the steps on a network of that seed.
pub fn run(input: Input) {
    let input = Input { steps: input.steps.iter().take(100).cloned().collect(), ..input };
    let (build, steps) = (input.clone(), input.steps.clone());
    let simulation =
        Simulation::new(move || server(&build)).seeds(input.seed..input.seed.saturating_add(1));
    let faulty = input.faulty;
    simulation
        .faults(move |rng| if faulty { Faults::swarm(rng) } else { Faults::none() })
        .run(|net| play(net, &steps));
}

fn play(net: &Net, steps: &[Step]) {
    let mut clients: Vec<(Client, Vec<u8>)> = Vec::new();
    for step in steps {
        take(net, &mut clients, step);
    }
    net.wait(Duration::from_secs(1));
    for (client, sent) in &clients {
        let received = client.received();
        assert!(sent.starts_with(&received), "{received:?} of {sent:?}");
    }
}

type Known = (Client, Vec<u8>);

fn pick(clients: &mut [Known], index: u8) -> Option<&mut Known> {
    let count = clients.len().max(1);
    clients.get_mut(usize::from(index) % count)
}

fn take(net: &Net, clients: &mut Vec<Known>, step: &Step) {
    let with = |clients: &mut Vec<Known>, index, act: &dyn Fn(&Client)| {
        if let Some((client, _)) = pick(clients, index) {
            act(client);
        }
    };
    match step {
        Step::Connect { window } => {
            if clients.len() < 20 {
                // All from one address, which may have a limit.
                let new = net.connect_from([192, 0, 2, 1]);
                new.set_window((*window).into());
                clients.push((new, Vec::new()));
            }
        }
        Step::Send(index, bytes) => send(clients, *index, bytes),
        Step::Flood(index, times) => {
            send(clients, *index, &b"flood\n".repeat(usize::from(*times) % 5000));
        }
        Step::Urgent(index, byte) => with(clients, *index, &|client| client.send_urgent(*byte)),
        Step::HalfClose(index) => with(clients, *index, &Client::half_close),
        Step::Reset(index) => with(clients, *index, &Client::reset),
        Step::Stall(index) => with(clients, *index, &Client::stall),
        Step::Slow(index, bytes, millis) => {
            let every = Duration::from_millis((*millis).max(1).into());
            with(clients, *index, &|client| client.read_slowly((*bytes).into(), every));
        }
        Step::Read(index) => with(clients, *index, &Client::read_all),
        Step::Wait(micros) => {
            let left = TIME_MAX.saturating_sub(net.now());
            net.wait(left.min(Duration::from_micros((*micros).into())));
        }
        Step::Drain => net.drain(),
        Step::Stop => net.stop(),
    }
}

fn send(clients: &mut [Known], index: u8, bytes: &[u8]) {
    if let Some((client, sent)) = pick(clients, index) {
        client.send(bytes);
        sent.extend_from_slice(bytes);
    }
}
