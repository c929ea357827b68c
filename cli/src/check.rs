//! What no flag can know by itself: the bounds of the library, and flags that do not go together.

use std::path::Path;

use clap::{ArgMatches, parser::ValueSource};
use nonforker::{Address, Error, Limits};

use crate::{args::Task, ending::Ending, relay, serve, tls::TlsArgs, values::Codec};

/// A flag, without its dashes, and what is wrong with its value.
#[derive(Debug)]
pub(crate) struct Wrong {
    flag: String,
    what: String,
}

impl Wrong {
    /// As a complaint about the command line.
    pub(crate) fn on_the_line(self) -> Ending {
        Ending::Usage(format!("--{}: {}", self.flag, self.what))
    }

    /// As a complaint about the file at `path`, unless the flag is on the command line.
    pub(crate) fn in_file(self, path: &Path, line: &ArgMatches) -> Ending {
        let line = line.subcommand().map_or(line, |(_, matches)| matches);
        match line.value_source(&self.flag.replace('-', "_")) {
            Some(ValueSource::CommandLine) => self.on_the_line(),
            _ => Ending::Usage(format!("{}: {}: {}", path.display(), self.flag, self.what)),
        }
    }
}

/// Whether this can be done.
pub(crate) fn task(task: &Task) -> Result<(), Wrong> {
    match task {
        Task::Serve(args) => {
            limits(&serve::limits(&args.limits, &args.timeouts, &args.tls, &args.access))?;
            addresses(&args.listen.listen)?;
            if let Some((flag, what)) = args.worker.wrong(&args.service.codec) {
                return wrong(flag, what.to_owned());
            }
            tls(&args.tls)?;
            let has_lines = matches!(args.service.codec, Codec::Lines | Codec::Crlf);
            if args.service.last_line.is_some() && !has_lines {
                return wrong("last_line", "it is for the codecs lines and crlf only".to_owned());
            }
        }
        Task::Relay(args) => {
            limits(&relay::limits(args))?;
            addresses(&args.listen.listen)?;
            tls(&args.tls)?;
            if args.to.to.is_empty() {
                let what = "it is missing: say where to relay to, as in --to 127.0.0.1:6379";
                return wrong("to", what.to_owned());
            }
            let faults = args.faults.check();
            if let Some((flag, what)) = args.to_tls.check(&args.to.to).or(faults) {
                return wrong(flag, what);
            }
        }
        Task::Sim(_) | Task::Bench(_) => {}
    }
    Ok(())
}

fn wrong(flag: &str, what: String) -> Result<(), Wrong> {
    Err(Wrong { flag: flag.replace('_', "-"), what })
}

fn limits(limits: &Limits) -> Result<(), Wrong> {
    match limits.check() {
        Ok(()) => Ok(()),
        Err(Error::Limits { limit: "handshakes_max", value, bound }) => {
            wrong("max_handshakes", format!("{value} is {bound}"))
        }
        Err(Error::Limits { limit, value, bound }) => wrong(limit, format!("{value} is {bound}")),
        Err(error) => wrong("limits", error.to_string()),
    }
}

fn tls(args: &TlsArgs) -> Result<(), Wrong> {
    args.check().map_or(Ok(()), |(flag, what)| wrong(flag, what))
}

/// Whether one address comes twice.
fn addresses(listen: &[Address]) -> Result<(), Wrong> {
    for (nth, address) in listen.iter().enumerate() {
        let any_port = matches!(address, Address::Tcp(address) if address.port() == 0);
        if !any_port && listen.iter().skip(nth + 1).any(|other| other == address) {
            return wrong("listen", format!("{address} is given twice"));
        }
    }
    Ok(())
}
