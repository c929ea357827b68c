//! The tools, and how each is started.

use std::{fs, path::PathBuf};

use crate::{
    args::OperatorArgs,
    operators::crowd::Talk,
    prepare::{Workshop, is_there},
    process::{Result, Stop, say},
    server::Server,
};

/// What stands behind the port, one for each client.
const PROGRAM: &str = "cat";

/// Filters in Python that answer a line as soon as they have it: one that does next to nothing, and
/// one that takes forty words out, as a filter of a chat would.
const FILTERS: [(&str, &str); 2] = [
    (
        "upper.py",
        "\
import sys

for line in sys.stdin:
    print(line.rstrip('\\n').upper(), flush=True)
",
    ),
    (
        "words.py",
        "\
import re, sys

WORDS = [re.compile(rf'\\bword{nth}\\b', re.I) for nth in range(40)]

for line in sys.stdin:
    line = line.rstrip('\\n')
    for word in WORDS:
        line = word.sub('***', line)
    print(line, flush=True)
",
    ),
];

const SOCKET_PROXYD: &str = "/lib/systemd/systemd-socket-proxyd";

/// More clients than are ever measured, for tools that have a limit.
const MOST: &str = "4000";

/// What a tool is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Something of ours, with these arguments behind `--listen`.
    Serve(&'static [&'static str]),
    Relay(&'static [&'static str]),
    /// One of the filters; whether it has a core of its own, and ours shares that of the load.
    Worker(usize, bool),
    SocatFork,
    Ncat,
    Tcpserver,
    Websocketd,
    SocatRelay,
    /// With a line more in its configuration.
    Haproxy(&'static str),
    SocketProxyd,
    /// A relay in C, which copies or splices.
    ByHand(&'static str),
}

/// A tool.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) talk: Talk,
    what: Use,
    /// The program and the package of Debian's that has it; none for ours.
    needs: Option<[&'static str; 2]>,
}

const fn tool(name: &'static str, what: Use, needs: Option<[&'static str; 2]>) -> Tool {
    let talk = if matches!(what, Use::Websocketd) { Talk::WebSocket } else { Talk::Lines };
    Tool { name, talk, what, needs }
}

const TOOLS: [Tool; 17] = [
    tool("worker", Use::Worker(0, false), None),
    tool("upper.py", Use::Worker(0, true), None),
    tool("words.py", Use::Worker(1, true), None),
    tool("exec", Use::Serve(&["--exec", PROGRAM, "--max-processes", MOST]), None),
    tool("socat-fork", Use::SocatFork, Some(["socat", "socat"])),
    tool("ncat", Use::Ncat, Some(["ncat", "ncat"])),
    tool("tcpserver", Use::Tcpserver, Some(["tcpserver", "ucspi-tcp"])),
    tool("websocketd", Use::Websocketd, Some(["websocketd", "websocketd"])),
    tool("relay-poll", Use::Relay(&["--driver", "poll"]), None),
    tool("relay-uring", Use::Relay(&["--driver", "uring"]), None),
    tool("relay-shards", Use::Relay(&["--driver", "poll", "--shards", "2"]), None),
    tool("c-copy", Use::ByHand("copy"), None),
    tool("c-splice", Use::ByHand("splice"), None),
    tool("haproxy", Use::Haproxy(""), Some(["haproxy", "haproxy"])),
    tool("haproxy-splice", Use::Haproxy("option splice-auto"), Some(["haproxy", "haproxy"])),
    tool("socat-relay", Use::SocatRelay, Some(["socat", "socat"])),
    tool("socket-proxyd", Use::SocketProxyd, Some(["systemd-socket-activate", "systemd"])),
];

/// Those that were asked for and can be had.
pub(super) fn chosen(names: &[String], workshop: &Workshop<'_>, stop: &Stop) -> Result<Vec<Tool>> {
    if let Some(unknown) = names.iter().find(|name| TOOLS.iter().all(|tool| tool.name != **name)) {
        return Err(format!("no tool is named {unknown}: there are {}", self::names().join(", ")));
    }
    let mut tools = Vec::from(TOOLS);
    tools.retain(|tool| names.is_empty() || names.iter().any(|name| name == tool.name));
    tools.retain(|tool| {
        let Some([program, package]) = tool.needs else { return true };
        let there = workshop.tool(program, package);
        if let Err(why) = &there {
            say(format_args!("skipped: {}: {why}", tool.name));
        }
        there.is_ok()
    });
    stop.check()?;
    Ok(tools)
}

pub(crate) fn names() -> Vec<&'static str> {
    TOOLS.iter().map(|tool| tool.name).collect()
}

/// What the tools are started with.
#[derive(Debug)]
pub(super) struct Workplace {
    nonforker: String,
    relay_by_hand: String,
    folder: PathBuf,
    /// That of the servers.
    core: usize,
    /// What relays relay to.
    upstream: Server,
}

impl Workplace {
    pub(super) fn prepare(
        workshop: &Workshop<'_>,
        args: &OperatorArgs,
        stop: &Stop,
    ) -> Result<Self> {
        workshop.tool("python3", "python3")?;
        let nonforker = workshop.nonforker()?.to_string_lossy().into_owned();
        let relay_by_hand = workshop.c("c/relay.c", None)?.to_string_lossy().into_owned();
        let folder = workshop.path("target/bench");
        let write = |(name, text): &(&str, &str)| fs::write(folder.join(name), text);
        let written = fs::create_dir_all(&folder).and_then(|()| FILTERS.iter().try_for_each(write));
        written.map_err(|why| format!("cannot write into {}: {why}", folder.display()))?;
        let echo = |port| {
            let words = ["serve", "--quiet", "--codec", "raw", "--listen"];
            Ok(ours(&nonforker, &words, port, &[]))
        };
        let upstream = Server::run("echo", echo, Some(args.load_core), stop)?;
        Ok(Self { nonforker, relay_by_hand, folder, core: args.server_core, upstream })
    }

    /// A filter, as it is started, on a core of its own.
    fn filter(&self, nth: usize, core: Option<usize>) -> Vec<String> {
        let path = self.folder.join(FILTERS[nth].0).to_string_lossy().into_owned();
        let core = core.map(|core| words(&["taskset", "-c", &core.to_string()]));
        [core.unwrap_or_default(), words(&["python3", &path])].concat()
    }

    fn haproxy(&self, port: u16, more: &str) -> Result<Vec<String>> {
        let path = self.folder.join(format!("haproxy.{port}"));
        let upstream = self.upstream.address;
        let text = format!(
            "global\n  maxconn {MOST}\n  nbthread 1\ndefaults\n  mode tcp\n  {more}\n  timeout connect 10s\n  \
             timeout client 1m\n  timeout server 1m\nlisten all\n  bind 127.0.0.1:{port}\n  \
             server one {upstream}\n"
        );
        fs::write(&path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
        Ok(words(&["haproxy", "-db", "-f", &path.to_string_lossy()]))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn ours(program: &str, before: &[&str], port: u16, behind: &[&str]) -> Vec<String> {
    let address = format!("127.0.0.1:{port}");
    words(&[&[program], before, &[&address], behind].concat())
}

impl Tool {
    pub(super) fn is_relay(&self) -> bool {
        use Use::{ByHand, Haproxy, Relay, SocatRelay, SocketProxyd};
        matches!(self.what, Relay(_) | ByHand(_) | Haproxy(_) | SocatRelay | SocketProxyd)
    }

    /// The filter behind it that has a core of its own, as it is started.
    pub(super) fn filter(&self, place: &Workplace) -> Option<Vec<String>> {
        match self.what {
            Use::Worker(nth, true) => Some(place.filter(nth, Some(place.core))),
            _ => None,
        }
    }

    /// The command that serves at `port`.
    pub(super) fn command(&self, place: &Workplace, port: u16) -> Result<Vec<String>> {
        let upstream = place.upstream.address.to_string();
        let listen =
            format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay");
        let number = port.to_string();
        let serve = ["serve", "--quiet", "--listen"];
        Ok(match self.what {
            Use::Serve(more) => ours(&place.nonforker, &serve, port, more),
            Use::Worker(nth, is_alone) => {
                let worker = place.filter(nth, is_alone.then_some(place.core)).join(" ");
                ours(&place.nonforker, &serve, port, &["--worker", &worker])
            }
            Use::Relay(more) => {
                let to = [&["--to", &upstream], more].concat();
                ours(&place.nonforker, &["relay", "--quiet", "--listen"], port, &to)
            }
            Use::SocatFork => words(&["socat", &listen, &format!("EXEC:{PROGRAM}")]),
            Use::SocatRelay => words(&["socat", &listen, &format!("TCP:{upstream},nodelay")]),
            Use::Ncat => {
                let program = format!("/bin/{PROGRAM}");
                words(&["ncat", "-l", "127.0.0.1", &number, "-k", "-m", MOST, "-e", &program])
            }
            Use::Tcpserver => {
                let quietly = ["tcpserver", "-q", "-H", "-R", "-l0", "-b1024", "-c", MOST];
                words(&[&quietly[..], &["127.0.0.1", &number, PROGRAM]].concat())
            }
            Use::Websocketd => {
                let port = format!("--port={port}");
                let quietly = ["--address=127.0.0.1", "--loglevel=fatal", PROGRAM];
                words(&[&["websocketd", &port], &quietly[..]].concat())
            }
            Use::ByHand(how) => {
                let to = place.upstream.address.port().to_string();
                words(&[&place.relay_by_hand, &number, &to, how])
            }
            Use::Haproxy(more) => place.haproxy(port, more)?,
            Use::SocketProxyd if !is_there(SOCKET_PROXYD) => {
                return Err(format!("there is no {SOCKET_PROXYD}"));
            }
            Use::SocketProxyd => {
                let address = format!("127.0.0.1:{port}");
                let activate = ["systemd-socket-activate", "-l", &address, SOCKET_PROXYD];
                words(&[&activate[..], &["--connections-max", MOST, &upstream]].concat())
            }
        })
    }
}
