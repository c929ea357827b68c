//! What no flag can know by itself: the bounds of the library, and flags that do not go together.

use std::path::Path;

use clap::{ArgMatches, parser::ValueSource};
use nonforker::{Address, Error};

use crate::{args::ServeArgs, ending::Ending, serve, values::Codec};

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
        let line = line.subcommand_matches("serve").unwrap_or(line);
        match line.value_source(&self.flag.replace('-', "_")) {
            Some(ValueSource::CommandLine) => self.on_the_line(),
            _ => Ending::Usage(format!("{}: {}: {}", path.display(), self.flag, self.what)),
        }
    }
}

/// Whether these flags can be served.
pub(crate) fn flags(args: &ServeArgs) -> Result<(), Wrong> {
    let wrong = |flag: &str, what: String| Err(Wrong { flag: flag.replace('_', "-"), what });
    match serve::limits(args).check() {
        Ok(()) => {}
        Err(Error::Limits { limit: "handshakes_max", value, bound }) => {
            return wrong("max_handshakes", format!("{value} is {bound}"));
        }
        Err(Error::Limits { limit, value, bound }) => {
            return wrong(limit, format!("{value} is {bound}"));
        }
        Err(error) => return wrong("limits", error.to_string()),
    }
    let listen = &args.service.listen;
    for (nth, address) in listen.iter().enumerate() {
        let any_port = matches!(address, Address::Tcp(address) if address.port() == 0);
        if !any_port && listen.iter().skip(nth + 1).any(|other| other == address) {
            return wrong("listen", format!("{address} is given twice"));
        }
    }
    if let Some((flag, what)) = args.tls.check() {
        return wrong(flag, what);
    }
    let has_lines = matches!(args.service.codec, Codec::Lines | Codec::Crlf);
    if args.service.last_line.is_some() && !has_lines {
        return wrong("last_line", "it is for the codecs lines and crlf only".to_owned());
    }
    Ok(())
}
