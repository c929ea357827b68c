//! Loads a server, checks every reply, and measures speed, latency and what a message costs.
//!
//! ```text
//!  Load (settings) ──▶ prepare ──▶ run ──▶ Measured
//!                       │           │  ╲
//!                    connect  generator  process (what the server used)
//!                                 │
//!                               client ── messages ── codec
//! ```
//!
//! A [`Load`] says what to do to a server: how many connections, how many requests in flight on
//! each, for how long. [`Load::run`] does it on the calling thread and returns what was [`Measured`].
//! `nonforker bench` is this with flags and a report; `docs/bench.md` says what each number means.
//!
//! The load has a loop of its own and not the engine of [`nonforker`]: a client that is to be faster
//! than any server cannot afford to be one. Nothing is allocated per message, and every reply is
//! compared with what is due by one comparison of memory.
//!
//! # Examples
//!
//! ```
//! use std::{io, net::TcpListener, sync::atomic::AtomicBool, thread, time::Duration};
//!
//! use nonforker_load::Load;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any server that sends back what it gets; this one serves a single client.
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = format!("{}", listener.local_addr()?).parse()?;
//! thread::spawn(move || listener.accept().map(|(stream, _)| io::copy(&mut &stream, &mut &stream)));
//!
//! let measured = Load::new(address)
//!     .connections(1)
//!     .in_flight(16)
//!     .warm_up(Duration::ZERO)
//!     .duration(Duration::from_millis(100))
//!     .run(&AtomicBool::new(false), &mut ())?;
//! assert_eq!(measured.faults.sum(), 0, "each reply was right and in time");
//! println!(
//!     "{:.0} messages a second, half of them within {} ns",
//!     measured.rate(),
//!     measured.tally.latencies.value_at_quantile(0.5),
//! );
//! # Ok(())
//! # }
//! ```

pub mod bounds;
mod client;
mod clock;
mod codec;
mod connect;
mod error;
mod faults;
mod generator;
mod human;
mod load;
mod measured;
mod messages;
mod prepare;
mod process;
mod progress;
mod run;
mod stream;
#[cfg(feature = "tls")]
mod tls;

/// Latencies, in nanoseconds. The type of the crate `hdrhistogram`.
pub use hdrhistogram::Histogram;

pub use self::{
    codec::Codec,
    error::Error,
    faults::Faults,
    generator::Tally,
    human::human,
    load::{Load, Mode},
    measured::Measured,
    process::{Process, Snapshot, Usage},
    progress::{Phase, Progress},
};

/// The example of the page that the package shows is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
