//! Test your own server before the network does: seeded, with faults, in virtual time.
//!
//! A test builds the server as the program does, with its own codec and handler, and plays its
//! clients. There are no sockets and no threads. The engine is the one that serves in production;
//! only the network and the clock are simulated, and both depend on nothing but a seed. So a
//! thousand networks are tried in a second, an idle timeout of an hour takes a microsecond, and a
//! failure is repeated with the number that is printed with it.
//!
//! ```
//! use nonforker::{Server, codec::Lines, sim::Simulation};
//!
//! Simulation::new(|| {
//!     Server::new().serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
//! })
//! .seeds(0..50)
//! .run(|net| {
//!     let client = net.connect();
//!     client.send("hello\nwor");
//!     client.expect("hello\n");
//!     client.send("ld\n");
//!     client.half_close();
//!     client.expect("world\n");
//!     client.expect_end();
//! });
//! ```
//!
//! # What goes wrong
//!
//! Each seed draws its own [`Faults`]. By default they lose nothing: bytes arrive in pieces and
//! late, reads and writes are short or have to wait, descriptors run out, reports come late. What
//! is expected has to come nevertheless. [`Faults::swarm`] also breaks connections.
//!
//! # What a handler costs
//!
//! A simulated turn takes a microsecond, whatever the handler does in it. A handler that takes
//! longer says so with [`work`].
//!
//! # What is checked besides
//!
//! After every turn: that the engine forgets nothing, and that idle connections hold no buffer. At
//! the end of each seed: that with all faults off every connection is closed, and every byte of
//! memory is back.
//!
//! # When a seed fails
//!
//! The panic of the test comes with the seed, the last events as a readable list, and how to
//! replay it: `NONFORKER_SEED=17 cargo test name_of_the_test` runs that seed only.
//!
//! For that a run must depend on its seed alone. [`Simulation::run`] runs its first seed three times
//! and fails if they differ: see there what it usually is.

mod client;
mod crowd;
mod listener;
mod net;
mod simulation;

pub use client::{Client, Ending};
pub use crowd::{Manner, Visit};
pub use listener::Listener;
pub use net::Net;
#[cfg(feature = "_rustls")]
pub mod tls;

pub use simulation::{Failure, Run, Simulation};

use std::time::Duration;

use crate::driver::sim::running;
pub use crate::driver::sim::{faults::Faults, rng::Rng};

/// Says that the handler, or the codec, works for `duration` here. More than a year is taken for a
/// year.
///
/// In a simulation virtual time passes by as much, and the network goes on: what arrives meanwhile
/// is delivered after the callback. Everywhere else this does nothing, since what takes time takes
/// time there by itself. So it may stay in the handler that serves in production, where it costs a
/// few nanoseconds.
///
/// In a script, outside of the server's callbacks, it does nothing either: see [`Net::wait`] and
/// [`Net::away`].
///
/// # Examples
///
/// While a report is made for one client, the others wait:
///
/// ```
/// use std::time::Duration;
/// use nonforker::{Server, codec::Lines, sim::{Simulation, work}};
///
/// let server = || Server::new().serve("127.0.0.1:1685", Lines::new(), |conn, line: &[u8]| {
///     if line == b"report" {
///         work(Duration::from_secs(3));
///     }
///     conn.send(line);
/// });
/// Simulation::new(server).run(|net| {
///     let (slow, quick) = (net.connect(), net.connect());
///     slow.send("report\n");
///     quick.send("hello\n");
///     slow.expect("report\n");
///     quick.expect("hello\n");
///     assert!(net.now() >= Duration::from_secs(3));
/// });
/// ```
pub fn work(duration: Duration) {
    running::work(duration);
}
