//! What goes wrong in a simulation, and how often.

use std::fmt;

use super::rng::Rng;

/// How often each thing goes wrong, per thousand operations.
///
/// Each seed draws its own set ([`Faults::swarm`]): with some faults off and some very frequent a
/// simulation gets into corners that an even mixture never reaches. This is swarm testing (Groce
/// et al., 2012).
///
/// # Examples
///
/// Nothing but bytes in small pieces:
///
/// ```
/// use nonforker::sim::Faults;
///
/// let faults = Faults { short_read: 1000, short_write: 1000, ..Faults::none() };
/// assert_eq!(faults.reset, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "to be written with `..Faults::none()`")]
pub struct Faults {
    /// A read gives fewer bytes than there are.
    pub short_read: u16,
    /// A write takes fewer bytes than there is room for.
    pub short_write: u16,
    /// A read or a write that could be done has to wait nevertheless.
    pub would_block: u16,
    /// What a peer sends arrives in many pieces.
    pub fragment: u16,
    /// Bytes, and reports about them, are late.
    pub delay: u16,
    /// Accepting fails with ECONNABORTED.
    pub accept_aborted: u16,
    /// Accepting fails with EMFILE, ENFILE, ENOBUFS or ENOMEM.
    pub accept_exhausted: u16,
    /// Accepting fails with EPERM or ENETDOWN, and the connection stays in the backlog.
    pub accept_refused: u16,
    /// A connection is reported although accepting had been turned off.
    pub accept_late: u16,
    /// Sending fails with ENOBUFS or ENOMEM.
    pub send_exhausted: u16,
    /// The connection breaks while bytes are on their way.
    pub reset: u16,
    /// A wait returns with nothing to report.
    pub spurious: u16,
    /// A sleep ends up to a minute late: the clock has jumped meanwhile, as after a suspend.
    pub clock_jump: u16,
    /// The end of a stream is reported together with its last bytes.
    pub end_with_bytes: u16,
    /// The process is away for up to a minute while the network goes on, as after SIGSTOP. Often
    /// the first look after that brings nothing.
    pub away: u16,
    /// The server cannot connect to a server of the script: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH or
    /// EMFILE.
    pub connect_failed: u16,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            short_read: 0,
            short_write: 0,
            would_block: 0,
            fragment: 0,
            delay: 0,
            accept_aborted: 0,
            accept_exhausted: 0,
            accept_refused: 0,
            accept_late: 0,
            send_exhausted: 0,
            reset: 0,
            spurious: 0,
            clock_jump: 0,
            end_with_bytes: 0,
            away: 0,
            connect_failed: 0,
        }
    }

    /// A set of its own for each seed, without those that lose a connection or time: whatever
    /// this draws, every reply has to arrive.
    #[must_use]
    pub fn lossless(rng: &Rng) -> Self {
        Self {
            short_read: draw(rng, 900),
            short_write: draw(rng, 900),
            would_block: draw(rng, 500),
            fragment: draw(rng, 900),
            delay: draw(rng, 500),
            accept_aborted: 0,
            accept_exhausted: draw(rng, 300),
            accept_late: draw(rng, 500),
            send_exhausted: draw(rng, 200),
            reset: 0,
            spurious: draw(rng, 300),
            clock_jump: 0,
            end_with_bytes: draw(rng, 900),
            away: 0,
            accept_refused: draw(rng, 300),
            connect_failed: 0,
        }
    }

    /// A set of its own for each seed: some faults off, some rare, some very frequent.
    #[must_use]
    pub fn swarm(rng: &Rng) -> Self {
        let lossless = Self::lossless(rng);
        Self {
            accept_aborted: draw(rng, 300),
            reset: draw(rng, 30),
            clock_jump: draw(rng, 20),
            // Drawn last, so that seeds keep what they drew before there was this.
            away: draw(rng, 20),
            connect_failed: draw(rng, 300),
            ..lossless
        }
    }
}

impl Faults {
    /// How many kinds of faults there are.
    pub(crate) const COUNT: usize = 16;

    const NAMES: [&str; Self::COUNT] = [
        "short_read",
        "short_write",
        "would_block",
        "fragment",
        "delay",
        "accept_aborted",
        "accept_exhausted",
        "accept_refused",
        "accept_late",
        "send_exhausted",
        "reset",
        "spurious",
        "clock_jump",
        "end_with_bytes",
        "away",
        "connect_failed",
    ];

    const fn each(&mut self) -> [&mut u16; Self::COUNT] {
        [
            &mut self.short_read,
            &mut self.short_write,
            &mut self.would_block,
            &mut self.fragment,
            &mut self.delay,
            &mut self.accept_aborted,
            &mut self.accept_exhausted,
            &mut self.accept_refused,
            &mut self.accept_late,
            &mut self.send_exhausted,
            &mut self.reset,
            &mut self.spurious,
            &mut self.clock_jump,
            &mut self.end_with_bytes,
            &mut self.away,
            &mut self.connect_failed,
        ]
    }

    /// The same without the fault number `index`.
    pub(crate) const fn without(mut self, index: usize) -> Self {
        *self.each()[index] = 0;
        self
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut faults = *self;
        let on = Self::NAMES.iter().zip(faults.each()).filter(|(_, often)| **often > 0);
        let on: Vec<String> = on.map(|(name, often)| format!("{name} {often}")).collect();
        match on.is_empty() {
            true => f.write_str("no faults"),
            false => write!(f, "faults per thousand operations: {}", on.join(", ")),
        }
    }
}

/// Half of the time nothing, else up to `most` per thousand.
fn draw(rng: &Rng, most: u64) -> u16 {
    if rng.below(2) == 0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "`most` is at most 1000")]
    let drawn = 1 + rng.below(most) as u16;
    drawn
}
