//! Serve many clients from one process, without a thread per client and without `async`.
//!
//! You choose an address, a codec that says where one request ends, and a handler that turns a
//! request into a reply. Everything else is done for you: partial reads and writes, the buffers
//! of every client, a client that never reads, a client that sends a byte a minute, urgent data,
//! half-close, overload, shutdown.
//!
//! ```text
//!         accept             read             frame          handle            write
//!  kernel ────────▶ engine ────────▶ in-buffer ─────▶ codec ───────▶ handler ───────▶ out-buffer ──▶ kernel
//! ```
//!
//! # The smallest server
//!
//! Every line comes back:
//!
//! ```no_run
//! use nonforker::{Server, codec::Lines};
//!
//! fn main() -> nonforker::Result<()> {
//!     Server::new()
//!         .serve("127.0.0.1:1685", Lines::new(), |conn, line| conn.send(line))
//!         .run()
//! }
//! ```
//!
//! # A server with state
//!
//! A closure may own state. With more than one callback, or a session per connection, the handler
//! is a struct. It is never entered twice at once, so nothing in it needs a lock, an `Arc` or
//! `Send`:
//!
//! ```no_run
//! use std::collections::HashMap;
//! use nonforker::{CloseReason, Conn, ConnId, Handler, Outcome, Server, codec::Lines};
//!
//! /// The first line of a connection is its name; a line `bob hello` goes to bob.
//! #[derive(Default)]
//! struct Post {
//!     who: HashMap<String, ConnId>,
//! }
//!
//! impl Handler for Post {
//!     type Codec = Lines;
//!     type Session = String;
//!
//!     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
//!         let line = std::str::from_utf8(line)?; // An error ends this connection only.
//!         if conn.session().is_empty() {
//!             self.who.insert(line.to_owned(), conn.id());
//!             *conn.session_mut() = line.to_owned();
//!             return Ok(());
//!         }
//!         let (name, text) = line.split_once(' ').unwrap_or((line, ""));
//!         let known = self.who.get(name).copied();
//!         match known.map(|id| conn.others().get(id).map(|mut other| other.send(text))) {
//!             Some(Ok(())) => conn.send("sent"),
//!             _ => conn.send("nobody else has that name"),
//!         }
//!         Ok(())
//!     }
//!
//!     fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
//!         self.who.remove(conn.session().as_str());
//!     }
//! }
//!
//! # fn main() -> nonforker::Result<()> {
//! Server::new().serve_with("[::1]:1685", Lines::new(), Post::default()).run()
//! # }
//! ```
//!
//! # A protocol of your own
//!
//! A [`Codec`](codec::Codec) finds the first frame in some bytes and borrows it from them; nothing
//! is copied. [`codec::check`] runs it under every cut of its input. The
//! [codec module](codec) has a complete one of ten lines.
//!
//! # Limits
//!
//! Every bound has a default that is safe to face the internet with, and a setter in [`Limits`].
//! What a peer can cost is the largest frame, the high watermark, one reply and one read; what all
//! of them can cost together is the memory budget.
//!
//! ```
//! use std::time::Duration;
//! use nonforker::{Limits, Server, codec::Lines};
//!
//! let server = Server::new()
//!     .limits(
//!         Limits::new()
//!             .max_connections(Some(5000))
//!             .max_connections_per_ip(Some(50))
//!             .idle_timeout(Some(Duration::from_secs(600))),
//!     )
//!     .serve("127.0.0.1:0", Lines::with_max(1024), |conn, line| conn.send(line));
//! # let _ = server;
//! ```
//!
//! One of several services can have [limits of its own](ServiceLimits), and places that are kept for
//! it: a health port, for example.
//!
//! # The log
//!
//! This crate logs with [`tracing`](https://docs.rs/tracing) and prints nothing itself. Without a
//! subscriber nothing is seen, not even a warning, so a server should have one before it is bound.
//! With the crate `tracing-subscriber` that is one line:
//!
//! ```
//! tracing_subscriber::fmt().with_writer(std::io::stderr).init();
//! ```
//!
//! | level | what |
//! |---|---|
//! | `error` | a handler or a codec panicked; a defect of this crate |
//! | `warn` | what an operator should know: no slot, descriptor or memory left, a slow handler, an error from a handler |
//! | `info` | the driver at the start, a drain |
//! | `debug` | connections, one by one |
//!
//! What a peer could flood the log with is limited in rate; the field `left_out` says how many
//! lines are missing. No bytes of a peer are logged, unless a handler puts them into its error.
//! Targets are the modules of this crate, so `nonforker=warn` is a filter for all of it.
//!
//! # What is promised
//!
//! - A request is handled when it is complete, in order, exactly once, however its bytes were cut
//!   up on their way. The beginning of one is not handled;
//!   [`Lines::accept_unterminated`](codec::Lines::accept_unterminated) takes a last line without
//!   an end, once the peer has finished sending.
//! - What is not handled yet when its connection breaks is lost, complete requests included. A peer
//!   that closes without reading its replies breaks its connection: its kernel answers them with a
//!   reset, and ours throws away what was not yet read.
//! - Every reply to a complete request reaches a client that goes on reading: also after it has
//!   finished sending, and also when the server [drains](Handle::drain).
//! - Memory is bounded per connection and for all of them together.
//! - No client slows another: each has a turn, and a turn is bounded in bytes and frames.
//! - Running out of descriptors, memory or slots is survived without spinning, and said once.
//! - An error or a panic in a handler ends one connection. No input from a peer can panic this crate.
//! - A frame that does not become complete, and a queue that is not taken, time out by progress.
//!
//! # In scope, and out of scope
//!
//! Stream protocols over TCP and Unix sockets, from one request a minute to millions a second.
//! Not in scope: HTTP (there are good servers), datagrams. What blocks is
//! [offloaded](Conn::offload) to a thread, or a [`Ticket`] is answered later.
//!
//! # Cargo features
//!
//! - `signals` (default): [`Server::drain_on_signals`], and the module `signals` for what it leaves out.

mod access;
mod address;
mod alarms;
mod bound;
mod bounds;
pub mod codec;
mod config;
mod conn;
mod connect;
mod connections;
mod context;
mod driver;
mod driver_kind;
mod ending;
mod engine;
mod error;
mod exec;
mod handle;
mod handler;
mod keepalive;
mod listening;
mod memory_limit;
mod networks;
mod offload;
mod parts;
mod reconnect;
mod relay;
mod relay_faults;
mod remote;
mod running;
#[cfg(feature = "_rustls")]
mod secure;
mod send_proxy;
mod server;
mod service;
mod service_limits;
mod shards;
#[cfg(feature = "signals")]
pub mod signals;
pub mod sim;
mod target;
mod ticket;
mod tls;
mod topics;
mod workers;

pub use access::Access;
pub use address::{Address, AddressError, Peer, PeerCredentials};
pub use alarms::TimerId;
pub use bound::Bound;
pub use config::{Limits, raise_descriptor_limit};
pub use conn::pushed::Overflow;
pub use connections::{Connections, Other};
pub use context::{Conn, ConnId};
pub use driver_kind::DriverKind;
pub use engine::stats::Stats;
pub use error::{
    CloseReason, ConnectError, Error, Gone, NoSuchService, NotConnected, PostError, Result,
    SubscribeError, TooManyTimers,
};
pub use exec::Program;
pub use handle::Handle;
pub use handler::{Closure, Failure, Frame, Handler, IntoOutcome, Outcome, Urgent};
pub use networks::{Networks, NetworksError};
pub use parts::{Parts, Replies};
pub use reconnect::Reconnect;
pub use relay::{Balance, Relay};
pub use relay_faults::RelayFaults;
pub use remote::Remote;
pub use running::Running;
pub use send_proxy::ProxyHeader;
pub use server::Server;
pub use service_limits::ServiceLimits;
pub use shards::Shards;
pub use target::{Target, TargetError};
pub use ticket::Ticket;
pub use tls::TlsError;
#[cfg(feature = "_rustls")]
pub use tls::{ClientAuth, ClientTls, Tls, TlsFacts};
pub use workers::{BytesCodec, Protocol, Restart, WorkerError, Workers};

/// The example of the page that the package shows is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
