//! Why a load was not run to its end, or measured nothing.

use std::{io, time::Duration};

use nonforker::Address;

use crate::connect::DESCRIPTORS_SPARE;

/// Why there is nothing measured.
///
/// That single connections fail is no error: [`Measured::faults`](crate::Measured::faults) counts
/// them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is beyond its bound, or contradicts another one. No connection was opened.
    ///
    /// The text names settings in backticks, as the methods of [`Load`](crate::Load) are called.
    #[error("{0}")]
    Settings(String),

    /// There is no such process, or what it uses cannot be read. The text says which of them.
    #[error("{0}")]
    Process(String),

    /// This process may not open enough descriptors. No connection was opened.
    #[error(
        "{needed} connections need more descriptors than this process may have: {limit} \
         (ulimit -Hn; {DESCRIPTORS_SPARE} are needed for other things)"
    )]
    Descriptors {
        /// How many connections there were to be.
        needed: usize,
        /// How many descriptors this process may have.
        limit: u64,
    },

    /// The first connection could not be opened.
    #[error("cannot connect to {address}")]
    Connect {
        /// The server.
        address: Address,
        /// Why not.
        source: io::Error,
    },

    /// The flag of [`Load::run`](crate::Load::run) was set before the time to measure began.
    #[error("interrupted {when}")]
    Interrupted {
        /// When that was, as in `"before all connections were open"`.
        when: &'static str,
    },

    /// No reply was right: all that happened is that connections failed.
    #[error("{address}: {first}")]
    Failed {
        /// The server.
        address: Address,
        /// What happened first.
        first: String,
    },

    /// The server took requests and answered none.
    #[error("{address}: not one reply came in {time:?}; does it answer with what it is sent?")]
    Silent {
        /// The server.
        address: Address,
        /// How long the load asked.
        time: Duration,
    },

    /// The kernel did not report which connections are ready.
    #[error("cannot wait for replies")]
    Wait(#[source] io::Error),
}
