//! `--worker`: a program of the user's that answers the requests of all clients.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use nonforker::{
    Address, BytesCodec, Program, Protocol, Restart, Server, Target, WorkerError, Workers,
    codec::Encode,
};

use crate::{
    args::{LastLine, ServiceArgs},
    codecs::{UseCodec, Wanted},
    ending::Ending,
    values::{self, Codec, Timeout, Words},
};

/// The most bytes of a reply, unless --max-frame is more.
const REPLY_MAX: usize = 1024 * 1024;

/// The most bytes of a tagged line before its payload.
const TAG_MAX: usize = "data 18446744073709551615 ".len();

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    /// A program that answers the requests: it reads one, writes the reply, and reads the next
    ///
    /// It is started once and serves all clients. Its replies have to leave it at once: python3 -u,
    /// $| = 1 in Perl, stdbuf -oL. Quotes and backslashes are as in a shell, and nothing is expanded: for
    /// more than that, write sh -c '...'. Its standard error goes to the log. docs/workers.md has workers
    /// in four languages.
    #[arg(long, value_name = "COMMAND", value_parser = values::command, conflicts_with = "handler")]
    pub(crate) worker: Option<Words>,

    /// How they are spoken to: plain is a request in, a reply out; tagged says who speaks [default: plain]
    ///
    /// With tagged (codecs lines, crlf, strict-crlf) a worker knows its clients, and may speak to any of
    /// them at any time. It reads open ID ADDRESS, data ID PAYLOAD and close ID REASON, and writes data ID
    /// PAYLOAD and close ID, one a line. A client stays with one worker: that with the fewest. docs/workers.md
    /// has a chat in four languages.
    #[arg(long, value_name = "PROTOCOL", value_enum, requires = "worker")]
    pub(crate) worker_protocol: Option<Spoken>,

    /// How many of them run; a request goes to the one with the fewest [default: 1]
    #[arg(long, value_name = "N", value_parser = values::workers, requires = "worker")]
    pub(crate) workers: Option<NonZeroUsize>,

    /// Requests that one is given before it has answered the first of them [default: 64]
    #[arg(long, value_name = "N", value_parser = values::count, requires = "worker")]
    pub(crate) worker_in_flight: Option<NonZeroUsize>,

    /// How long it may take for the request that it has had longest, or off; then it is replaced [default:
    /// 30s]
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, requires = "worker")]
    pub(crate) worker_timeout: Option<Timeout>,

    /// Requests that wait for a worker; while there are as many, clients are held back [default: 1024]
    #[arg(long, value_name = "N", value_parser = values::count, requires = "worker")]
    pub(crate) worker_queue: Option<NonZeroUsize>,

    /// Where a request ends for the worker, and its reply [default: as --codec]
    ///
    /// A request that contains this end is not passed on, and its client is disconnected.
    #[arg(long, value_name = "CODEC", requires = "worker")]
    pub(crate) worker_codec: Option<Codec>,

    /// Bytes that a reply may have [default: 1MiB, or --max-frame if that is more]
    #[arg(long, value_name = "SIZE", value_parser = values::frame_size, requires = "worker")]
    pub(crate) worker_max_frame: Option<usize>,

    /// The reply to a request whose worker ended or was too slow; close closes the client [default: error:
    /// the worker ended]
    #[arg(long, value_name = "TEXT", requires = "worker")]
    pub(crate) worker_error: Option<String>,

    /// When a worker that has ended is started again [default: unless-fast]
    #[arg(long, value_name = "WHEN", value_enum, requires = "worker")]
    pub(crate) worker_restart: Option<WhenRestarted>,

    /// The user that it runs as, by name or number, with the user's group; for a server that is root
    #[arg(long, value_name = "USER", value_parser = values::user, requires = "worker")]
    pub(crate) worker_user: Option<(u32, u32)>,
}

/// How workers are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spoken {
    /// The next thing that a worker writes is the reply
    Plain,
    /// Each line names a client, both ways
    Tagged,
}

/// When a worker that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenRestarted {
    /// Unless five in a row end within a second and before they had a request: then the server ends
    UnlessFast,
    /// Always
    Always,
}

impl WorkerArgs {
    /// What is wrong with these flags, and with which, if anything is.
    pub(crate) fn wrong(&self, clients: &Codec) -> Option<(&'static str, &'static str)> {
        self.worker.as_ref()?;
        let raw = "a worker needs requests that end: raw has none";
        let of_worker = self.worker_codec.as_ref().unwrap_or(clients);
        let has_lines = matches!(of_worker, Codec::Lines | Codec::Crlf | Codec::StrictCrlf);
        match (clients, &self.worker_codec) {
            (_, Some(Codec::Raw)) => Some(("worker_codec", raw)),
            (Codec::Raw, _) => Some(("codec", raw)),
            _ if self.is_tagged() && !has_lines => Some((
                "worker_protocol",
                "tagged needs lines: take the codec lines, crlf or strict-crlf for --worker-codec",
            )),
            _ => None,
        }
    }

    fn is_tagged(&self) -> bool {
        self.worker_protocol == Some(Spoken::Tagged)
    }
}

/// Has workers answer at an address.
pub(crate) fn serve(
    server: Server,
    at: Address,
    command: &Words,
    service: &ServiceArgs,
    args: &WorkerArgs,
) -> Result<Server, Ending> {
    let (first, more) = command.split();
    let program = Program::new(first).args(more);
    let program = match args.worker_user {
        Some((user, group)) => program.user(user, group),
        None => program,
    };
    let longest = args.worker_max_frame.unwrap_or_else(|| REPLY_MAX.max(service.max_frame));
    let of_clients = Wanted {
        codec: &service.codec,
        last_line: service.last_line.unwrap_or(LastLine::Take),
        max: service.max_frame,
        longer: longest,
    };
    // A payload of that length has its line.
    let longest_line = longest.saturating_add(if args.is_tagged() { TAG_MAX } else { 0 });
    let of_worker = Wanted {
        codec: args.worker_codec.as_ref().unwrap_or(&service.codec),
        last_line: LastLine::Drop,
        max: longest_line,
        longer: longest_line,
    };
    let parts = Parts { server, at, program: program.into(), args, of_worker };
    of_clients.hand_to(OfClients(parts))
}

struct Parts<'a> {
    server: Server,
    at: Address,
    program: Target,
    args: &'a WorkerArgs,
    of_worker: Wanted<'a>,
}

/// Takes the codec of the clients.
struct OfClients<'a>(Parts<'a>);

/// Takes that of the workers.
struct OfWorker<'a, C> {
    parts: Parts<'a>,
    codec: C,
    replies: C,
}

impl UseCodec for OfClients<'_> {
    type Made = Server;

    fn with<C>(self, codec: C, longer: C) -> Result<Server, Ending>
    where
        C: BytesCodec + Encode<Vec<u8>> + Encode<String>,
    {
        let of_worker = self.0.of_worker.clone();
        of_worker.hand_to(OfWorker { parts: self.0, codec, replies: longer })
    }
}

impl<C: BytesCodec> UseCodec for OfWorker<'_, C> {
    type Made = Server;

    fn with<W>(self, worker: W, _longer: W) -> Result<Server, Ending>
    where
        W: BytesCodec + Encode<Vec<u8>> + Encode<String>,
    {
        let Parts { server, at, program, args, .. } = self.parts;
        let number = |flag: Option<NonZeroUsize>, default| flag.map_or(default, NonZeroUsize::get);
        let workers = Workers::to(program, worker)
            .replies(self.replies)
            .count(number(args.workers, 1))
            .in_flight(number(args.worker_in_flight, 64))
            .queue(number(args.worker_queue, 1024));
        let workers = match args.is_tagged() {
            true => workers.protocol(Protocol::Tagged),
            false => workers,
        };
        let workers = match args.worker_timeout {
            Some(timeout) => workers.timeout(timeout.0),
            None => workers,
        };
        let workers = match &args.worker_error {
            Some(text) if text == "close" => workers.error(WorkerError::Close),
            Some(text) => workers.error(WorkerError::Reply(text.clone().into_bytes())),
            None => workers,
        };
        let workers = match args.worker_restart {
            Some(WhenRestarted::Always) => workers.restart(Restart::Always),
            _ => workers,
        };
        Ok(server.workers(at, self.codec, workers))
    }
}
