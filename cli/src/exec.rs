//! `--exec`: a process of the user's for each connection.

use std::{env, num::NonZeroUsize, path::Path};

use clap::Args;
use nix::unistd::{AccessFlags, access};
use nonforker::{Address, Program, Relay, Server, ServiceLimits, Target};

use crate::{
    ending::Ending,
    values::{self, Words},
};

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
        conflicts_with_all = ["handler", "codec", "WorkerArgs"]
    )]
    pub(crate) exec: Option<Words>,

    /// How many of them run at a time; further clients wait in the kernel [default: 64]
    #[arg(
        long,
        value_name = "N",
        value_parser = values::count,
        requires = "exec",
        conflicts_with = "WorkerArgs"
    )]
    pub(crate) max_processes: Option<NonZeroUsize>,
}

/// Starts a program for each client at an address. One that is not there is an error now, and not for
/// each client.
pub(crate) fn serve(
    server: Server,
    at: Address,
    command: &Words,
    args: &ExecArgs,
) -> Result<Server, Ending> {
    let (first, more) = command.split();
    if !is_there(first) {
        let text =
            format!("{first} cannot be started: there is no such program, or it is not executable");
        return Err(Ending::Failed(text));
    }
    let target = Target::from(Program::new(first).args(more));
    let most = args.max_processes.map_or(64, NonZeroUsize::get);
    Ok(server
        .relay(at, Relay::from(target))
        .service_limits(ServiceLimits::new().max_connections(Some(most))))
}

/// Whether the system would find this program and run it.
fn is_there(program: &str) -> bool {
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| runs(&folder.join(program)))
}
