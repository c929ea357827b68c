//! The server over real sockets, on every driver.
//!
//! ```text
//!  a test ── on_every_driver ──▶ Case ── start ──▶ Running: a server on a thread of its own
//!                                                    │
//!  Client, with a bound on every wait ◀── connect ───┤
//!                                                    └─ dropped: what every test asserts
//! ```
//!
//! The tests run one at a time, each on both drivers at once, and each of those in a process of its
//! own: a test counts descriptors and processor time of the whole process.

#![expect(
    clippy::disallowed_methods,
    reason = "clients run in real time, and may block: they are not on a shard"
)]
#![expect(clippy::panic, reason = "this is how a test fails")]

mod access;
mod across;
mod backpressure;
mod callbacks;
mod churn;
mod client;
mod doors;
mod drain;
mod ending;
#[cfg(feature = "signals")]
mod environment;
mod fairness;
mod given;
mod handles;
mod harness;
mod judged;
mod log;
mod memory;
mod others;
#[cfg(feature = "signals")]
mod outlived;
mod panics;
mod probe;
mod relaying;
mod services;
mod shards;
mod spawned;
mod stream;
mod threads;
mod timeouts;
#[cfg(feature = "_rustls")]
mod tls;
#[cfg(feature = "_rustls")]
mod tls_bad;
#[cfg(feature = "_rustls")]
mod tls_client;
#[cfg(feature = "_rustls")]
mod tls_hostile;
#[cfg(feature = "_rustls")]
mod tls_others;
#[cfg(feature = "_rustls")]
mod tls_out;
#[cfg(feature = "_rustls")]
mod tls_relay;
mod topics;
mod urgent;
