//! A table: what a peer can do in each state of a connection, what the handler sees of it, and
//! within which time.
//!
//! ```text
//!  first line, half-close ──▶ the state of the row ── acts of the column ──▶ what is seen
//! ```
//!
//! All columns of a row are connections of one server, side by side.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use nonforker::{
    Address, CloseReason, Conn, DriverKind, Handler, Limits, Outcome, Server, Urgent,
    codec::Lines,
    sim::{Faults, Simulation},
};

use crate::worlds::{Loopback, Peer, World};

/// How long anything may take that is to happen at once.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// How long a closed connection lingers whose peer is silent.
const QUIET: Duration = Duration::from_secs(3);

/// How long the server has for what follows from an act, and for what must not follow.
const CALM: Duration = Duration::from_millis(60);

/// More than the kernels on both sides take while the client does not read.
const FLOOD: usize = 1 << 20;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Data,
    Fin,
    Reset,
    /// The next act comes when the server has seen to the last one.
    Pause,
}

use Act::{Data, Fin, Pause, Reset};

/// What the handler sees of the acts, and what becomes of the connection.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// These callbacks, at once. The connection stays.
    Stays(&'static [&'static str]),
    /// These callbacks, at once. The connection goes at once.
    Goes(&'static [&'static str]),
    /// No callback. The connection goes when its peer was silent for [`QUIET`].
    Lingers,
    /// The acts are impossible in this state.
    Never,
}

use Seen::{Goes, Lingers, Never, Stays};

/// The columns.
const COLUMNS: [&[Act]; 8] = [
    &[],
    &[Data],
    &[Fin],
    &[Data, Pause, Fin],
    &[Reset],
    &[Data, Pause, Reset],
    &[Fin, Pause, Reset],
    &[Fin, Reset],
];

struct Row {
    state: &'static str,
    /// The first line of the client, which the handler obeys: at once, or at the end of the stream
    /// if the client then half-closes.
    first: &'static str,
    half_closes: bool,
    /// What the handler has seen when the connection is in its state.
    begun: &'static [&'static str],
    /// A cell for each of the [`COLUMNS`].
    seen: [Seen; COLUMNS.len()],
}

const NOTHING: Seen = Stays(&[]);
const BREAKS: Seen = Goes(&["broken"]);
/// The handler asked for the close before the connection broke.
const CLOSES: Seen = Goes(&["closed by the handler"]);
const FINISHED: &str = "the peer has finished";
const ENDS: Seen = Goes(&[FINISHED]);
/// Our side had finished, and now the peer has.
const BOTH_END: Seen = Goes(&["half_closed", FINISHED]);
const RELEASED: Seen = Goes(&[]);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row {
        state: "open", first: "go on", half_closes: false, begun: &["go on"],
        seen: [
            NOTHING, Stays(&["data"]), Stays(&["half_closed"]), Stays(&["data", "half_closed"]),
            BREAKS, Goes(&["data", "broken"]), Goes(&["half_closed", "broken"]),
            Goes(&["half_closed", "broken"]),
        ],
    },
    Row {
        state: "half-closed", first: "go on", half_closes: true, begun: &["go on", "half_closed"],
        seen: [NOTHING, Never, Never, Never, BREAKS, Never, Never, Never],
    },
    Row {
        state: "paused", first: "pause", half_closes: false, begun: &["pause"],
        seen: [NOTHING, NOTHING, NOTHING, NOTHING, BREAKS, BREAKS, BREAKS, BREAKS],
    },
    Row {
        state: "paused, half-closed", first: "pause", half_closes: true,
        begun: &["pause", "half_closed"],
        seen: [NOTHING, Never, Never, Never, BREAKS, Never, Never, Never],
    },
    Row {
        state: "pressured", first: "flood", half_closes: false, begun: &["flood"],
        seen: [NOTHING, NOTHING, NOTHING, NOTHING, BREAKS, BREAKS, BREAKS, BREAKS],
    },
    Row {
        state: "pressured, half-closed", first: "flood", half_closes: true,
        begun: &["flood", "half_closed"],
        seen: [NOTHING, Never, Never, Never, BREAKS, Never, Never, Never],
    },
    Row {
        state: "finished", first: "finish", half_closes: false, begun: &["finish"],
        seen: [
            NOTHING, Stays(&["data"]), BOTH_END, Goes(&["data", "half_closed", FINISHED]), BREAKS,
            Goes(&["data", "broken"]), BOTH_END, BOTH_END,
        ],
    },
    Row {
        state: "finished, half-closed", first: "finish", half_closes: true,
        begun: &["finish", "half_closed", FINISHED],
        seen: [RELEASED, Never, Never, Never, Never, Never, Never, Never],
    },
    Row {
        state: "finishing", first: "flood and finish", half_closes: false,
        begun: &["flood and finish"],
        seen: [NOTHING, NOTHING, NOTHING, NOTHING, BREAKS, BREAKS, BREAKS, BREAKS],
    },
    Row {
        state: "finishing, half-closed", first: "flood and finish", half_closes: true,
        begun: &["flood and finish", "half_closed"],
        seen: [NOTHING, Never, Never, Never, ENDS, Never, Never, Never],
    },
    Row {
        state: "draining", first: "flood and close", half_closes: false,
        begun: &["flood and close"],
        seen: [NOTHING, NOTHING, NOTHING, NOTHING, CLOSES, CLOSES, CLOSES, CLOSES],
    },
    Row {
        state: "draining, half-closed", first: "flood and close", half_closes: true,
        begun: &["flood and close", "half_closed"],
        seen: [NOTHING, Never, Never, Never, ENDS, Never, Never, Never],
    },
    Row {
        state: "lingering", first: "close", half_closes: false,
        begun: &["close", "closed by the handler"],
        seen: [
            Lingers, Lingers, RELEASED, RELEASED, RELEASED, RELEASED, RELEASED, RELEASED,
        ],
    },
];

/// What the handler saw, by column.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<BTreeMap<usize, Vec<String>>>>);

impl Log {
    fn note(&self, column: usize, what: impl Into<String>) {
        self.0.lock().expect("nobody panics with it").entry(column).or_default().push(what.into());
    }

    fn of(&self, column: usize) -> Vec<String> {
        self.0.lock().expect("nobody panics with it").get(&column).cloned().unwrap_or_default()
    }
}

#[derive(Default)]
struct Session {
    column: usize,
    /// What is to be done at the end of the stream.
    at_end: Option<String>,
}

/// Wants urgent bytes or not: drivers receive in other ways then.
struct Story<const URGENT: bool>(Log);

type Talk<'c, const URGENT: bool> = Conn<'c, Story<URGENT>>;

fn obey<const URGENT: bool>(conn: &mut Talk<'_, URGENT>, command: &str) -> Outcome {
    match command {
        "pause" => conn.pause(),
        "flood" => conn.write_all(&vec![b'x'; FLOOD])?,
        "flood and close" => {
            conn.write_all(&vec![b'x'; FLOOD])?;
            conn.close();
        }
        "close" => conn.close(),
        "finish" => conn.finish(),
        "flood and finish" => {
            conn.write_all(&vec![b'x'; FLOOD])?;
            conn.finish();
        }
        _ => {}
    }
    Ok(())
}

impl<const URGENT: bool> Handler for Story<URGENT> {
    type Codec = Lines;
    type Session = Session;
    const URGENT: Option<Urgent<Self>> = if URGENT { Some(|_, _, _| Ok(())) } else { None };

    /// `column when command`, or data.
    fn frame(&mut self, conn: &mut Talk<'_, URGENT>, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.splitn(3, ' ');
        let (Some(column), Some(when), Some(command)) = (words.next(), words.next(), words.next())
        else {
            self.0.note(conn.session().column, line);
            return Ok(());
        };
        conn.session_mut().column = column.parse()?;
        self.0.note(conn.session().column, command);
        if when == "later" {
            conn.session_mut().at_end = Some(command.into());
            return Ok(());
        }
        obey(conn, command)
    }

    fn half_closed(&mut self, conn: &mut Talk<'_, URGENT>) -> Outcome {
        self.0.note(conn.session().column, "half_closed");
        let command = conn.session_mut().at_end.take();
        obey(conn, command.as_deref().unwrap_or_default())
    }

    fn closed(&mut self, conn: &mut Talk<'_, URGENT>, reason: &CloseReason) {
        self.0.note(
            conn.session().column,
            match reason {
                // The network says it in its own words.
                CloseReason::Broken(_) => "broken".to_owned(),
                reason => reason.to_string(),
            },
        );
    }
}

fn server(urgent: bool, log: &Log) -> Server {
    let limits = Limits::new().linger_timeout(QUIET * 5).frame_timeout(None);
    let (server, log) = (Server::new().limits(limits), log.clone());
    match urgent {
        true => server.serve_with("127.0.0.1:0", Lines::new(), Story::<true>(log)),
        false => server.serve_with("127.0.0.1:0", Lines::new(), Story::<false>(log)),
    }
}

/// Plays a row. Returns what differs from the table.
fn check<W: World>(row: &Row, world: &W, log: &Log, on: &str) -> Vec<String> {
    let columns: Vec<usize> =
        (0..COLUMNS.len()).filter(|&column| !matches!(row.seen[column], Never)).collect();
    let mut peers: BTreeMap<usize, Option<W::Peer>> = BTreeMap::new();
    for &column in &columns {
        let mut peer = world.connect();
        let when = if row.half_closes { "later" } else { "now" };
        peer.send(format!("{column} {when} {}\n", row.first).as_bytes());
        if row.half_closes {
            peer.half_close();
        }
        peers.insert(column, Some(peer));
    }
    for &column in &columns {
        world.until(AT_ONCE, || log.of(column) == row.begun);
    }
    world.pass(CALM);
    act(&mut peers, || world.pass(CALM));
    let expected = |column: usize| match row.seen[column] {
        Stays(seen) | Goes(seen) => [row.begun, seen].concat(),
        Lingers | Never => row.begun.to_vec(),
    };
    let stay = |does: fn(Seen) -> bool| {
        let stay = columns.iter().filter(|&&column| does(row.seen[column])).count() as u64;
        world.until(AT_ONCE, || world.open() == stay);
        (stay, world.open())
    };
    world.until(AT_ONCE, || columns.iter().all(|&column| log.of(column) == expected(column)));
    let at_first = stay(|seen| matches!(seen, Stays(_) | Lingers));
    if columns.iter().any(|&column| matches!(row.seen[column], Lingers)) {
        world.pass(QUIET);
    }
    let in_the_end = stay(|seen| matches!(seen, Stays(_)));
    world.pass(CALM);
    let mut differences = Vec::new();
    for (when, (stay, open)) in [("at first", at_first), ("in the end", in_the_end)] {
        if open != stay {
            differences.push(format!("{}, on {on}: {open} stay {when}, not {stay}", row.state));
        }
    }
    for column in columns {
        let (seen, expected) = (log.of(column), expected(column));
        if seen != expected {
            let acts = COLUMNS[column];
            differences
                .push(format!("{}, {acts:?}, on {on}: {seen:?}, not {expected:?}", row.state));
        }
    }
    differences
}

/// Has all clients act, those of the same step at the same time.
fn act<P: Peer>(peers: &mut BTreeMap<usize, Option<P>>, pause: impl Fn()) {
    let most = COLUMNS.iter().map(|acts| acts.split(|&act| act == Pause).count()).max();
    for step in 0..most.unwrap_or(0) {
        for (&column, slot) in peers.iter_mut() {
            let acts = COLUMNS[column].split(|&act| act == Pause).nth(step);
            for act in acts.into_iter().flatten() {
                let Some(mut peer) = slot.take() else { continue };
                match act {
                    Data => peer.send(b"data\n"),
                    Fin => peer.half_close(),
                    Reset => {
                        peer.reset();
                        continue;
                    }
                    Pause => {}
                }
                *slot = Some(peer);
            }
        }
        pause();
    }
}

fn over_sockets(row: &Row, driver: DriverKind, urgent: bool) -> Vec<String> {
    let log = Log::default();
    let (started, address) = mpsc::channel();
    let serving = {
        let log = log.clone();
        thread::spawn(move || {
            let bound = server(urgent, &log).driver(driver).bind().expect("a free port");
            if let Address::Tcp(address) = bound.addresses()[0] {
                let world = Loopback { address, handle: bound.handle() };
                started.send(world).expect("the test waits");
            }
            bound.run()
        })
    };
    let world = address.recv().expect("the server starts");
    let on = format!("{driver:?}, urgent bytes wanted: {urgent}");
    let differences = check(row, &world, &log, &on);
    assert_eq!(world.handle.stats().defects, 0, "{}", row.state);
    // What was left is cut off.
    world.handle.stop();
    drop(serving.join().expect("the server does not panic"));
    differences
}

fn on_simulation(row: &Row) -> Vec<String> {
    let (log, differences) = (Log::default(), RefCell::default());
    let handler = log.clone();
    let simulation = Simulation::new(move || server(false, &handler)).faults(|_| Faults::none());
    // Once: what the handler saw is noted outside of the run.
    let ran = simulation.run_one(0, |net| {
        differences.replace(check(row, net, &log, "the simulation"));
    });
    ran.expect("the simulation holds");
    differences.into_inner()
}

#[test]
fn every_act_in_every_state_is_seen_in_the_same_way_on_every_network() {
    let mut differences: Vec<String> = TABLE.iter().flat_map(on_simulation).collect();
    for driver in [DriverKind::Poll, DriverKind::Uring] {
        if !crate::has(driver, "the table of states") {
            continue;
        }
        thread::scope(|scope| {
            let rows = TABLE.iter().flat_map(|row| [(row, false), (row, true)]);
            let rows: Vec<_> = rows
                .map(|(row, urgent)| scope.spawn(move || over_sockets(row, driver, urgent)))
                .collect();
            for row in rows {
                differences.extend(row.join().expect("a row is played"));
            }
        });
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
