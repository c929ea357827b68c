//! `nonforker relay`: joins each client with a connection to another server.

use std::{io, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use nonforker::{Address, Balance, Limits, ProxyHeader, Relay, Server, Target};

use crate::{
    access::AccessArgs,
    args::{LimitArgs, ListenArgs, ProgramArgs, TimeoutArgs},
    console,
    ending::Ending,
    faults::FaultArgs,
    serve,
    tls::TlsArgs,
    to_tls::ToTlsArgs,
    values::{self, Timeout},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  nonforker relay --to 127.0.0.1:6379             From 127.0.0.1:1685 to a server on this machine
  nonforker relay --listen '[::]:80' --to app-1.example:8080 --to app-2.example:8080
                                                  To the one of two that has fewer connections
  nonforker relay --to unix:/run/app.sock --connect-retry 5s
                                                  Clients wait while the server is restarted
  nonforker relay --to 10.0.0.1:80 --send-proxy v2
                                                  The server hears who its clients are
  nonforker relay --to tls://db.example:6380 --to-ca ca.pem
                                                  In clear here, encrypted to there
  nonforker relay --listen '[::]:443' --tls-cert chain.pem --tls-key key.pem --to 127.0.0.1:80
                                                  Encrypted here, in clear to there
  nonforker relay --to 127.0.0.1:6379 --latency 50ms..200ms --cut 1% --slice 1..7 --seed 7
                                                  Try a client on a bad network

End it:     SIGTERM or Ctrl-C passes on what clients have sent and their end, and waits for the
            servers to finish; a second one ends it at once

Exit status: 0 after a drain, 1 if it could not serve or cut clients off, 2 if a flag or a setting
is wrong. A client that is still joined at --drain-timeout is cut off.";

/// Where to relay from and to, and within which limits.
#[derive(Clone, Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(flatten, next_help_heading = "Where to relay")]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) to: ToArgs,
    #[command(flatten, next_help_heading = "Encryption towards clients")]
    pub(crate) tls: TlsArgs,
    #[command(flatten, next_help_heading = "Encryption towards servers")]
    pub(crate) to_tls: ToTlsArgs,
    #[command(flatten, next_help_heading = "Faults on purpose")]
    pub(crate) faults: FaultArgs,
    #[command(flatten, next_help_heading = "Limits")]
    limits: LimitArgs,
    #[command(flatten, next_help_heading = "Who may come in")]
    pub(crate) access: AccessArgs,
    #[command(flatten, next_help_heading = "Timeouts")]
    timeouts: TimeoutArgs,
    #[command(flatten, next_help_heading = "The program")]
    pub(crate) program: ProgramArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ToArgs {
    /// The server that clients are joined with: IP:PORT, NAME:PORT, tls://NAME:PORT, unix:PATH or
    /// unix:@NAME
    ///
    /// Give it several times for several servers: see --balance. A name is resolved when a client comes,
    /// at most every 30 s; of its addresses the first that answers counts. One that does not resolve
    /// closes the client, and the log names it.
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Vec<Target>,

    /// Which of several servers a client goes to; if it refuses, the others are tried once
    #[arg(long, value_enum, default_value_t = Choice::Least)]
    balance: Choice,

    /// How long a connection to a server may take, the look-up of its name included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    connect_timeout: Duration,

    /// For how long all servers are tried again when none takes a client, or off
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::timeout)]
    connect_retry: Timeout,

    /// Begin each connection to a server with a PROXY header that says who the client is
    ///
    /// Its destination is the address of --listen by which the client came.
    #[arg(long, value_name = "VERSION", value_enum)]
    send_proxy: Option<Version>,
}

/// Which of several servers a client goes to.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// The one with the fewest connections; of several, each in turn
    Least,
    /// The first that takes it, in the order given
    First,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// Relays until a signal ends it.
pub(crate) fn run(args: &RelayArgs) -> Result<ExitCode, Ending> {
    let settings = args.clone();
    serve::host(
        &args.program,
        &args.tls,
        move || server(&settings),
        |addresses| announce(addresses, args),
    )
}

fn server(args: &RelayArgs) -> Result<Server, Ending> {
    let usage = |error: nonforker::TargetError| Ending::Usage(error.to_string());
    let targets = args.to_tls.apply(&args.to.to)?;
    let Some((first, more)) = targets.split_first() else {
        return Err(nonforker::Error::NothingToServe.into());
    };
    let one = Relay::from(first.clone());
    let relay = more.iter().try_fold(one, |relay, target| relay.or(target)).map_err(usage)?;
    let relay =
        relay.retry(args.to.connect_retry.0.unwrap_or_default()).balance(match args.to.balance {
            Choice::Least => Balance::Least,
            Choice::First => Balance::First,
        });
    let relay = match args.to.send_proxy {
        Some(Version::V1) => relay.send_proxy(ProxyHeader::V1),
        Some(Version::V2) => relay.send_proxy(ProxyHeader::V2),
        None => relay,
    };
    let relay = relay.faults(args.faults.faults());
    let server = serve::empty(&args.program, &args.listen, limits(args));
    serve::listen(&args.listen, &args.tls, &args.access, |first| Ok(server.relay(first, relay)))
}

/// The limits that the settings ask for.
pub(crate) fn limits(args: &RelayArgs) -> Limits {
    serve::limits(&args.limits, &args.timeouts, &args.tls, &args.access)
        .connect_timeout(args.to.connect_timeout)
}

/// Says where it listens, and where clients go.
fn announce(addresses: &[Address], args: &RelayArgs) {
    let mut text = serve::listening(addresses);
    for target in args.to_tls.apply(&args.to.to).unwrap_or_default() {
        let target = console::one_line(&target.to_string());
        text.push_str(&format!("relaying to {target}\n"));
    }
    console::print(io::stdout(), &text);
}
