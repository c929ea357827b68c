//! What happened in a simulation: a hash of all of it, and the last of it in words.

use std::{collections::VecDeque, fmt, time::Duration};

/// How much of a run is kept to be shown.
const SHOWN_MAX: usize = 60;

/// How much of a run is kept to be compared with another.
const KEPT_MAX: usize = 1 << 16;

/// One thing that happened, between a client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Connects,
    Accepted,
    AcceptFails(i32),
    Sends(usize),
    SendsUrgent(u8),
    HalfCloses,
    Resets,
    Stalls,
    Reads,
    ServerReceives(usize),
    ServerSeesEnd,
    ServerSeesUrgent(u8),
    ServerSends(usize),
    SendFails(i32),
    ServerShutsDown,
    ServerCloses { reset: bool },
    Breaks,
    ClockJumps(u64),
    Away(u64),
    Works(u64),
    Offloads(u64),
    Calls,
    CallFails(i32),
    IsCalled,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connects => f.write_str("connects"),
            Self::Accepted => f.write_str("is accepted"),
            Self::AcceptFails(errno) => write!(f, "fault: accept fails, errno {errno}"),
            Self::Sends(count) => write!(f, "sends {count} bytes"),
            Self::SendsUrgent(byte) => write!(f, "sends urgent byte {byte:#04x}"),
            Self::HalfCloses => f.write_str("finishes sending"),
            Self::Resets => f.write_str("resets"),
            Self::Stalls => f.write_str("stops reading"),
            Self::Reads => f.write_str("reads again"),
            Self::ServerReceives(count) => write!(f, "  server receives {count} bytes"),
            Self::ServerSeesEnd => f.write_str("  server sees the end"),
            Self::ServerSeesUrgent(byte) => write!(f, "  server sees urgent byte {byte:#04x}"),
            Self::ServerSends(count) => write!(f, "  server sends {count} bytes"),
            Self::SendFails(errno) => write!(f, "  fault: send fails, errno {errno}"),
            Self::ServerShutsDown => f.write_str("  server finishes sending"),
            Self::ServerCloses { reset: false } => f.write_str("  server closes"),
            Self::ServerCloses { reset: true } => f.write_str("  server resets"),
            Self::Breaks => f.write_str("fault: the connection breaks"),
            Self::ClockJumps(millis) => write!(f, "fault: the clock jumps by {millis} ms"),
            Self::Away(millis) => write!(f, "fault: the process is away for {millis} ms"),
            Self::Calls => f.write_str("  server connects"),
            Self::CallFails(errno) => write!(f, "  server cannot connect, errno {errno}"),
            Self::IsCalled => f.write_str("is connected to"),
            Self::Works(micros) => write!(f, "  server works for {micros} µs"),
            Self::Offloads(micros) => write!(f, "  server offloads work of {micros} µs"),
        }
    }
}

/// Something that happened once, or several times in a row.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    at: Duration,
    client: usize,
    what: What,
    times: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    last: VecDeque<Line>,
    /// What happened first, each with the hash of all before it; `None` if nobody asks for it.
    first: Option<Vec<(u64, Line)>>,
}

impl Trace {
    pub(crate) const fn new() -> Self {
        // FNV-1a: not for its speed or strength, but because it is the same everywhere.
        Self { hash: 0xcbf2_9ce4_8422_2325, last: VecDeque::new(), first: None }
    }

    /// One that can be [compared](Self::first_difference).
    pub(crate) fn to_compare() -> Self {
        Self { first: Some(Vec::new()), ..Self::new() }
    }

    /// Where two runs parted, a line for each, if it is within what is kept. Bytes that went over
    /// the wire differ if the lines do not.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<[String; 2]> {
        let [own, others] = [self, other].map(|trace| trace.first.as_deref().unwrap_or_default());
        let alike = own.iter().zip(others).take_while(|(one, other)| one == other).count();
        // The bytes of what happened are in the hash of what happened next.
        let is_same =
            own.get(alike).map(|(_, line)| line) == others.get(alike).map(|(_, line)| line);
        let at = if is_same { alike.checked_sub(1)? } else { alike };
        if at == KEPT_MAX - 1 {
            return None;
        }
        let show = |first: &[(u64, Line)]| {
            first.get(at).map_or_else(|| "nothing more".to_owned(), |(_, line)| line.to_string())
        };
        Some([own, others].map(show))
    }

    pub(crate) fn note(&mut self, now: Duration, client: usize, what: What) {
        if let Some(first) = &mut self.first
            && first.len() < KEPT_MAX
        {
            first.push((self.hash, Line { at: now, client, what, times: 1 }));
        }
        let (kind, detail) = what.code();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, client as u64, kind, detail] {
            self.mix(word);
        }
        if let Some(last) = self.last.back_mut()
            && (last.client, last.what) == (client, what)
        {
            last.times += 1;
            return;
        }
        if self.last.len() == SHOWN_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Line { at: now, client, what, times: 1 });
    }

    /// Mixes bytes in that went over the wire.
    pub(crate) fn note_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    const fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash ^= self.hash >> 29;
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
}

impl What {
    const fn code(self) -> (u64, u64) {
        match self {
            Self::Connects => (1, 0),
            Self::Accepted => (2, 0),
            Self::AcceptFails(errno) => (3, errno.unsigned_abs() as u64),
            Self::Sends(count) => (4, count as u64),
            Self::SendsUrgent(byte) => (5, byte as u64),
            Self::HalfCloses => (6, 0),
            Self::Resets => (7, 0),
            Self::Stalls => (8, 0),
            Self::Reads => (9, 0),
            Self::ServerReceives(count) => (10, count as u64),
            Self::ServerSeesEnd => (11, 0),
            Self::ServerSeesUrgent(byte) => (12, byte as u64),
            Self::ServerSends(count) => (13, count as u64),
            Self::SendFails(errno) => (14, errno.unsigned_abs() as u64),
            Self::ServerShutsDown => (15, 0),
            Self::ServerCloses { reset } => (16, reset as u64),
            Self::Breaks => (17, 0),
            Self::ClockJumps(millis) => (18, millis),
            Self::Away(millis) => (19, millis),
            Self::Works(micros) => (20, micros),
            Self::Offloads(micros) => (21, micros),
            Self::Calls => (22, 0),
            Self::CallFails(errno) => (23, errno.unsigned_abs() as u64),
            Self::IsCalled => (24, 0),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, client, what, times } = self;
        let (secs, micros) = (at.as_secs(), at.subsec_micros());
        write!(f, "{secs:>6}.{micros:06}  client {client:<3} {what}")?;
        if *times > 1 { write!(f, ", {times} times") } else { Ok(()) }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
