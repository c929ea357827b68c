//! The flags: their names, defaults and help. A configuration file has the same, see `config.rs`.

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::ErrorKind,
};
use nonforker::{Address, Networks};

use crate::{
    access::AccessArgs,
    bench::{self, BenchArgs},
    check::{self, Wrong},
    complaint::{complaint, with_negative_values},
    config, console,
    ending::Ending,
    exec::ExecArgs,
    handlers::Handler,
    log::{Format, Level},
    relay::{self, RelayArgs},
    sim::{self, SimArgs},
    tls::TlsArgs,
    values::{self, Codec, Timeout},
    worker::WorkerArgs,
};

const EXAMPLES: &str = "\
Examples:
  nonforker                                       Echo lines on 127.0.0.1:1685
  nonforker --listen '[::]:7000' --handler upper  Answer in upper case, to anybody, over IPv6
  nonforker --listen 127.0.0.1:0                  Let the kernel choose the port, and print it
  nonforker --listen unix:/tmp/x.sock --unix-mode 0660
                                                  Serve a Unix socket, to its group as well
  nonforker --codec 'delimited:\\x1e' --max-frame 1MiB
                                                  Requests end with a record separator
  nonforker --idle-timeout 5min --max-connections-per-ip 20
                                                  Do not let clients stay for nothing
  nonforker --config nonforker.toml --log debug   Flags win over the file

Try it:     nc 127.0.0.1 1685
End it:     SIGTERM or Ctrl-C answers what has arrived; a second one ends it at once

A configuration file is TOML. Its keys are the long flags without the dashes:
  listen = [\"127.0.0.1:1685\", \"unix:/run/nonforker.sock\"]
  handler = \"upper\"
  max-frame = \"1MiB\"
  idle-timeout = \"5min\"

Exit status: 0 after a drain, 1 if it could not serve or cut clients off, 2 if a flag or a setting
is wrong. Cut off is whose request was left unhandled, or whose reply unsent, by --drain-timeout or
a second signal; one line on standard error says how many connections.";

/// Serve many clients from one process: no fork, and no thread per client.
///
/// Three things are chosen: the address, the codec (where one request ends and the next begins), and
/// the handler (what the reply is). Everything else has a default.
#[derive(Debug, Parser)]
#[command(
    name = "nonforker",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
#[command(after_help = "More, with examples: --help", after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; this is what happens without a command, too
    #[command(after_help = "More, with examples: --help", after_long_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Join each client with a connection to another server: bytes, ends and resets go both ways
    ///
    /// Each direction is held up by itself when its receiver does not keep up, and nothing is looked
    /// at. It takes the place of socat with fork, and of systemd-socket-proxyd.
    #[command(after_help = "More, with examples: --help", after_long_help = relay::EXAMPLES)]
    Relay(Box<RelayArgs>),
    /// Run the server's own tests on a simulated network, for as many seeds as you like
    ///
    /// Each seed is another network with other faults. The simulator checks after every turn that
    /// the server forgot nothing, and at the end that each client got all its replies. A seed that
    /// fails is printed with the last events and the line that replays it.
    #[command(after_long_help = sim::EXAMPLES)]
    Sim(SimArgs),
    /// Load a server, check every reply, and report speed, latency and what it cost the server
    ///
    /// Every request is a numbered message, and the reply must be the same bytes. So this is for
    /// servers that echo, in any language. docs/bench.md explains every number.
    #[command(after_help = "More, with examples: --help", after_long_help = bench::EXAMPLES)]
    Bench(Box<BenchArgs>),
}

impl Task {
    /// Who may come in, where somebody can.
    pub(crate) fn access(&self) -> Option<&AccessArgs> {
        match self {
            Self::Serve(args) => Some(&args.access),
            Self::Relay(args) => Some(&args.access),
            Self::Sim(_) | Self::Bench(_) => None,
        }
    }
}

/// What the program is to do.
pub(crate) enum Task {
    Serve(Box<ServeArgs>),
    Relay(Box<RelayArgs>),
    Sim(SimArgs),
    Bench(Box<BenchArgs>),
}

/// What to serve, and within which limits.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten, next_help_heading = "What to serve")]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten, next_help_heading = "Your own program")]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) exec: ExecArgs,
    #[command(flatten, next_help_heading = "Encryption")]
    pub(crate) tls: TlsArgs,
    #[command(flatten, next_help_heading = "Limits")]
    pub(crate) limits: LimitArgs,
    #[command(flatten, next_help_heading = "Who may come in")]
    pub(crate) access: AccessArgs,
    #[command(flatten, next_help_heading = "Timeouts")]
    pub(crate) timeouts: TimeoutArgs,
    #[command(flatten, next_help_heading = "The program")]
    pub(crate) program: ProgramArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListenArgs {
    /// Where to listen: IP:PORT, unix:PATH or unix:@NAME
    ///
    /// Give it several times to listen at several addresses. Names are not resolved. With port 0
    /// the kernel chooses a free one, which is printed. An IPv6 address is in brackets, and does
    /// not include IPv4; in one that is link-local, the interface is a number: [fe80::1%2]:7000. A
    /// Unix socket with a NAME has no file and no permissions (Linux only).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1685")]
    pub(crate) listen: Vec<Address>,

    /// Each connection begins with a PROXY header that tells the real client (needs --proxy-from)
    ///
    /// Versions 1 and 2, as haproxy (send-proxy, send-proxy-v2), nginx and balancers send them. A
    /// connection without a header is refused, and one from anywhere else than --proxy-from, too.
    /// --max-connections-per-ip then counts the real clients.
    #[arg(long, requires = "proxy_from")]
    pub(crate) proxy_protocol: bool,

    /// Proxies that may connect and send PROXY headers: networks, 10.0.0.0/8,::1 (needs --proxy-protocol)
    ///
    /// May be given several times. Every peer of a Unix socket may.
    #[arg(long, value_name = "NET", requires = "proxy_protocol")]
    pub(crate) proxy_from: Vec<Networks>,

    /// Permissions of a Unix socket's file, in octal
    ///
    /// 0600 is for its owner only, 0660 for its group as well, 0666 for every user.
    #[arg(long, value_name = "OCTAL", default_value = "0600", value_parser = values::mode)]
    pub(crate) unix_mode: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceArgs {
    /// What the reply to a request is
    #[arg(long, value_enum, default_value_t = Handler::Echo)]
    pub(crate) handler: Handler,

    /// Where a request ends: lines, crlf, strict-crlf, delimited:STRING or raw
    ///
    /// lines:       at a line feed; a carriage return before it is data.
    /// crlf:        at a line feed, with or without a carriage return; replies end with both.
    /// strict-crlf: at both; a line feed alone ends the connection.
    /// delimited:STRING: at these bytes; \r, \n, \t, \0, \\ and \xHH are one byte each.
    /// raw:         nowhere; the bytes that have arrived are a request.
    /// A reply ends like a request. The beginning of one, without its end, is never answered; for
    /// the last line see --last-line.
    #[arg(long, value_name = "CODEC", default_value = "lines", verbatim_doc_comment)]
    pub(crate) codec: Codec,

    /// What a last line without an end is, once its client has finished sending [default: take]
    ///
    /// It is what `printf hello | nc -N` sends. For the codecs lines and crlf only.
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) last_line: Option<LastLine>,

    /// Bytes a request may have, its end not counted; a client that sends more is disconnected
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = values::frame_size)]
    pub(crate) max_frame: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LimitArgs {
    /// Connections at a time; more wait in the kernel [default: the descriptor limit less 32]
    ///
    /// The soft limit of descriptors is raised to the hard one at the start.
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Connections at a time from one IP address; more are refused [default: no such limit]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_connections_per_ip: Option<NonZeroUsize>,

    /// Bytes queued for a client above which its requests wait and it is not read any more
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = values::size)]
    pub(crate) high_watermark: usize,

    /// Bytes queued for a client at which it goes on; at most the high watermark [default: a
    /// quarter of it]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) low_watermark: Option<usize>,

    /// Bytes above the high watermark that others may push at a client before it is closed
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = values::size)]
    pub(crate) output_cap: usize,

    /// Bytes that the buffers of all clients may take [default: a quarter of the memory]
    ///
    /// From 80 % on, clients that hold more than their share are not read from; from 90 % on, none
    /// is accepted. While others wait, a client that takes nothing for a second is disconnected.
    /// Beyond 100 %, the client that holds the most is. The memory is the machine's, or the limit of the
    /// cgroups that the program is in. The log says which, and how much it is.
    #[arg(long, value_name = "SIZE", value_parser = values::some_size)]
    pub(crate) memory_budget: Option<usize>,

    /// Bytes read from one client before all the others had their turn
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = values::some_size)]
    pub(crate) read_per_turn: usize,

    /// Requests of one client that are handled before all the others had their turn
    #[arg(long, value_name = "N", default_value = "1024", value_parser = values::count)]
    pub(crate) frames_per_turn: NonZeroUsize,

    /// Calls from other threads that may wait for the server
    #[arg(long, value_name = "N", default_value = "10000", value_parser = values::count)]
    pub(crate) remote_max: NonZeroUsize,

    /// Requests that may wait for an answer from elsewhere
    #[arg(long, value_name = "N", default_value = "10000", value_parser = values::count)]
    pub(crate) tickets_max: NonZeroUsize,

    /// Connections that may wait in the kernel to be accepted
    ///
    /// The kernel has a limit of its own: net.core.somaxconn on Linux.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = values::backlog)]
    pub(crate) backlog: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TimeoutArgs {
    /// How long a client may be silent, as in 5min, or off
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::timeout)]
    pub(crate) idle_timeout: Timeout,

    /// How long a client may be connected without one complete request, or off
    ///
    /// Half a request does not count; a client to which anything was sent stays. When the server is
    /// full and another client waits, the one that has been connected longest without a complete
    /// request goes at once.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::timeout)]
    pub(crate) unused_timeout: Timeout,

    /// How long a request may take from its first byte to its last, or off
    ///
    /// Against clients that send a byte a minute to hold a connection.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::timeout)]
    pub(crate) frame_timeout: Timeout,

    /// How long a client may take nothing of what is queued for it, or off
    ///
    /// A slow but steady download is not cut off, where the client's kernel acknowledges something
    /// within half of this time: it does so in steps of 24 KiB or more.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::timeout)]
    pub(crate) write_timeout: Timeout,

    /// How long a request may wait for an answer from elsewhere, or off
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::timeout)]
    pub(crate) answer_timeout: Timeout,

    /// How long a TCP client may be silent before the kernel asks whether it is there, or off
    ///
    /// A client whose machine or network is gone is noticed after this and all probes. One that is
    /// there answers, so a quiet client is not cut off. Whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::timeout)]
    pub(crate) keepalive: Timeout,

    /// The time between two such probes, in whole seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub(crate) keepalive_interval: Duration,

    /// Probes without an answer after which a client is gone
    #[arg(long, value_name = "N", default_value = "6", value_parser = values::count)]
    pub(crate) keepalive_count: NonZeroUsize,

    /// How long a TCP client may acknowledge nothing of what was sent to it, or off (Linux)
    ///
    /// It ends clients that are there and take nothing as well. Whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::timeout)]
    pub(crate) tcp_user_timeout: Timeout,

    /// How long the end may take before what is left is cut off, or off
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::patience)]
    pub(crate) drain_timeout: Timeout,

    /// How long the handler may take before a warning names its client, or off
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = values::timeout)]
    pub(crate) slow_handler: Timeout,

    /// How long to look for new requests before sleeping, as in 50us, or off
    ///
    /// Replies to a client that waits for each of them come sooner, and take a whole processor.
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::timeout)]
    pub(crate) busy_poll: Timeout,

    /// How long the PROXY header and the TLS handshake of a connection may take together
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub(crate) handshake_timeout: Duration,

    /// How long a closed connection waits for its client to close, too
    ///
    /// So the last reply is not destroyed by a reset. For a client that sends nothing meanwhile it
    /// is a fifth of this.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub(crate) linger_timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProgramArgs {
    /// What is logged to standard error, besides what is more severe [default: info]
    #[arg(long, value_name = "LEVEL", value_enum)]
    log: Option<Level>,

    /// How it is logged: text for people, json for machines (one object a line)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,

    /// Print nothing to standard output and log errors only, unless --log says otherwise
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// A TOML file with settings; its keys are the long flags without the dashes
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How the kernel is asked: poll is epoll or kqueue, uring is io_uring, auto the best there is
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub(crate) driver: Driver,

    /// Threads that serve, behind the same addresses: from 1 to 256, or auto, one for each core
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::shards)]
    pub(crate) shards: usize,

    /// Keep each of these threads on a core of its own (Linux)
    #[arg(long)]
    pub(crate) pin: bool,
}

impl ProgramArgs {
    /// What to log.
    pub(crate) fn level(&self) -> Level {
        self.log.unwrap_or(if self.quiet { Level::Error } else { Level::Info })
    }
}

/// What becomes of a last line without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LastLine {
    /// Forget it: it may be the beginning of a longer one
    Drop,
    /// Answer it as any other line
    Take,
}

/// Which driver does the I/O.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Driver {
    /// The best there is on this system
    Auto,
    /// Readiness: epoll on Linux, kqueue on the BSDs and macOS
    Poll,
    /// Completions: io_uring, on Linux 6.1 or newer
    Uring,
}

/// The settings from the command line and, where one is named there, from a configuration file.
pub(crate) fn from(line: impl IntoIterator<Item = OsString>) -> Result<Task, Ending> {
    let line = with_negative_values(line.into_iter().collect());
    let (task, matches) = parse(Cli::command(), &line)?;
    let (program, of) = match &task {
        Task::Serve(args) => (&args.program, None),
        Task::Relay(args) => (&args.program, Some("relay")),
        Task::Sim(_) | Task::Bench(_) => return Ok(task),
    };
    let Some(path) = program.config.clone() else {
        check::task(&task).map_err(Wrong::on_the_line)?;
        return Ok(task);
    };
    // What the file says takes the place of the defaults, so that flags win over it.
    let of_command = matches.subcommand().map_or(&matches, |(_, of_command)| of_command);
    let (task, _) = parse(config::apply(&path, Cli::command(), of, &line, of_command)?, &line)?;
    check::task(&task).map_err(|wrong| wrong.in_file(&path, &matches))?;
    Ok(task)
}

fn parse(command: clap::Command, line: &[OsString]) -> Result<(Task, ArgMatches), Ending> {
    let parsed = command.try_get_matches_from(line);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (task, matches) = match parsed {
        Ok((Cli { command: None, serve }, matches)) => (Task::Serve(Box::new(serve)), matches),
        Ok((Cli { command: Some(command), .. }, matches)) => match command {
            Command::Serve(args) => (Task::Serve(args), matches),
            Command::Relay(args) => (Task::Relay(args), matches),
            Command::Sim(args) => (Task::Sim(args), matches),
            Command::Bench(args) => (Task::Bench(args), matches),
        },
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            return Err(console::answer(&error.render()));
        }
        Err(error) => return Err(Ending::Usage(complaint(&error))),
    };
    Ok((task, matches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_flag_the_limits_are_those_of_the_library() {
        let Ok(Task::Serve(args)) = from(["nonforker".into()]) else {
            panic!("without a flag it serves");
        };
        let limits = crate::serve::limits(&args.limits, &args.timeouts, &args.tls, &args.access);
        assert_eq!(format!("{limits:?}"), format!("{:?}", nonforker::Limits::new()));
        assert_eq!(args.service.max_frame, nonforker::codec::DEFAULT_FRAME_MAX);
    }
}
