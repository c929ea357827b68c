//! Serve many clients from one process, without a thread per client and without `async`.

mod address;
pub mod codec;
mod config;
mod conn;
mod context;
mod driver;
mod engine;
mod error;
mod handler;
mod server;

pub use address::{Address, AddressError, Peer};
pub use config::{Limits, raise_descriptor_limit};
pub use context::{Conn, ConnId};
pub use engine::stats::Stats;
pub use error::{CloseReason, Error, NotConnected, Result};
pub use handler::{Handler, IntoOutcome, Outcome};
pub use server::{Bound, DriverKind, Handle, Server};
