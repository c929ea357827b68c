//! Any records, whole, cut, flipped or made up, to an echo server behind TLS: a client decrypts a start
//! of what it has sent, all of it if nobody has touched its bytes, and the engine forgets nothing.

use std::time::Duration;

use arbitrary::Arbitrary;
use nonforker::{
    Limits, Server,
    codec::Lines,
    sim::{
        Client, Faults, Net, Simulation,
        tls::{self, TlsClient},
    },
};

#[derive(Arbitrary, Debug, Clone)]
enum Step {
    /// Seals a line of this length, and sends the records.
    Line(u16),
    /// The same in pieces of this length.
    Pieces(u16, u8),
    /// The same with one byte flipped.
    Flipped(u16, u16, u8),
    /// The same without its last bytes; what follows is behind them.
    Cut(u16, u8),
    /// Sends bytes that are no records.
    Bytes(Vec<u8>),
    /// Sends a record of this type and length, whatever it holds.
    Record(u8, u16, u8),
    UpdateKeys,
    CloseNotify,
    HalfClose,
    Reset,
    /// Takes in what has come, and answers it.
    GoOn,
    Window(u16),
    Wait(u32),
    Drain,
}

/// How the handshake is, and what the client does.
#[derive(Arbitrary, Debug, Clone)]
pub struct Input {
    seed: u64,
    faulty: bool,
    /// TLS 1.2.
    older: bool,
    /// The handshake is done before the first step.
    shaken: bool,
    high: u16,
    frames: u8,
    read: u16,
    steps: Vec<Step>,
}

fn server(input: &Input) -> Server {
    let limits = Limits::new()
        .high_watermark(input.high.into())
        .low_watermark(input.high.into())
        .frames_per_turn(usize::from(input.frames).max(1))
        // A long line byte by byte takes seconds.
        .read_per_turn(usize::from(input.read).max(64))
        // A client looks for a minute whether anything comes.
        .unused_timeout(None)
        .idle_timeout(Some(Duration::from_secs(600)));
    let tls = tls::server().expect("it is always the same");
    Server::new()
        .limits(limits)
        .serve("127.0.0.1:1685", Lines::with_max(1 << 17), |conn, line| conn.send(line))
        .tls(tls)
}

/// Plays the steps on a network of that seed.
pub fn run(input: Input) {
    let input = Input { steps: input.steps.iter().take(60).cloned().collect(), ..input };
    let (build, faulty) = (input.clone(), input.faulty);
    Simulation::new(move || server(&build))
        .seeds(input.seed..input.seed.saturating_add(1))
        .faults(move |rng| if faulty { Faults::swarm(rng) } else { Faults::none() })
        .run(|net| play(net, &input));
}

/// What has been sent, and whether all of it has to come back.
#[derive(Default)]
struct Sent {
    lines: Vec<u8>,
    is_touched: bool,
}

fn play(net: &Net, input: &Input) {
    let client = net.connect();
    let client = if input.older { TlsClient::older(client) } else { TlsClient::new(client) };
    if input.shaken {
        client.send(b"");
        client.settle(net);
    }
    let mut sent = Sent { lines: Vec::new(), is_touched: input.faulty };
    for step in &input.steps {
        take(net, &client, &mut sent, step);
    }
    client.send(b"");
    client.client().read_all();
    client.settle(net);
    let plain = client.plain();
    assert!(sent.lines.starts_with(&plain), "{plain:?} of {:?}", sent.lines);
    if !sent.is_touched {
        assert_eq!(plain.len(), sent.lines.len(), "{:?}", client.failure());
    }
}

fn line(sent: &mut Sent, length: u16) -> Vec<u8> {
    let mut line: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
    line.push(b'\n');
    sent.lines.extend_from_slice(&line);
    line
}

fn send(net: &Net, client: &Client, records: &[u8], piece: usize) {
    for piece in records.chunks(piece.max(records.len().div_ceil(50)).max(1)) {
        client.send(piece);
        net.wait(Duration::from_millis(1));
    }
}

fn take(net: &Net, client: &TlsClient, sent: &mut Sent, step: &Step) {
    let wire = client.client();
    let touches = match *step {
        Step::Line(length) => {
            client.send(line(sent, length));
            false
        }
        Step::Pieces(length, piece) => {
            send(net, wire, &client.seal(line(sent, length)), piece.into());
            false
        }
        Step::Flipped(length, at, bits) => {
            let mut records = client.seal(line(sent, length));
            let count = records.len().max(1);
            if let Some(byte) = records.get_mut(usize::from(at) % count) {
                *byte ^= bits;
            }
            wire.send(records);
            bits != 0
        }
        Step::Cut(length, most) => {
            let mut records = client.seal(line(sent, length));
            records.truncate(records.len().saturating_sub(most.into()));
            wire.send(records);
            true
        }
        Step::Bytes(ref bytes) => {
            wire.send(bytes);
            true
        }
        Step::Record(kind, length, fill) => {
            let [high, low] = length.to_be_bytes();
            wire.send([&[kind, 3, 3, high, low][..], &vec![fill; length.into()]].concat());
            true
        }
        Step::UpdateKeys => {
            if !client.shakes() {
                client.update_keys();
            }
            false
        }
        Step::CloseNotify => {
            client.close_notify();
            true
        }
        Step::HalfClose => {
            wire.half_close();
            true
        }
        Step::Reset => {
            wire.reset();
            true
        }
        Step::GoOn => {
            client.go_on();
            false
        }
        Step::Window(window) => {
            wire.set_window(window.into());
            // It may take longer than the server waits.
            window < 1000
        }
        Step::Wait(micros) => {
            net.wait(Duration::from_micros(micros.into()));
            micros > 50_000
        }
        Step::Drain => {
            net.drain();
            true
        }
    };
    sent.is_touched |= touches;
}
