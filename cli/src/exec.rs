//! `--exec`: a process of the user's for each connection.

use std::num::NonZeroUsize;

use clap::Args;
use nonforker::{Address, Program, Relay, Server, ServiceLimits, Target};

use crate::values::{self, Words};

#[derive(Clone, Debug, Args)]
pub(crate) struct ExecArgs {
    /// A program that is started for each connection, which is its standard input and output
    ///
    /// Quotes and backslashes are as in a shell. TCPREMOTEIP, TCPREMOTEPORT and REMOTE_ADDR say who the
    /// client is. When it exits, the client gets what it wrote and is closed; when the client leaves, it is
    /// ended, with its whole process group. Its standard error goes to the log.
    #[arg(
        long,
        value_name = "COMMAND",
        value_parser = values::command,
        conflicts_with_all = ["handler", "worker", "codec"]
    )]
    pub(crate) exec: Option<Words>,

    /// How many of them run at a time; further clients wait in the kernel [default: 64]
    #[arg(long, value_name = "N", value_parser = values::count, requires = "exec")]
    pub(crate) max_processes: Option<NonZeroUsize>,
}

/// Starts a program for each client at an address.
pub(crate) fn serve(server: Server, at: Address, command: &Words, args: &ExecArgs) -> Server {
    let (first, more) = command.split();
    let target = Target::from(Program::new(first).args(more));
    let most = args.max_processes.map_or(64, NonZeroUsize::get);
    server
        .relay(at, Relay::from(target))
        .service_limits(ServiceLimits::new().max_connections(Some(most)))
}
