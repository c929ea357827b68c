//! Why the program ends before it has served, and how it says so: in one line.

use std::{error::Error, io, process::ExitCode};

use crate::console;

/// Why there is nothing more to do.
#[derive(Debug)]
pub(crate) enum Ending {
    /// What was asked for, help or the version, has been printed.
    Answered,
    /// What was asked for cannot be: a bad flag, value, address or configuration file.
    Usage(String),
    /// What was asked for went wrong.
    Failed(String),
}

impl Ending {
    /// Says why, and returns the exit status.
    pub(crate) fn tell(self) -> ExitCode {
        let (text, status) = match self {
            Self::Answered => return ExitCode::SUCCESS,
            Self::Usage(text) => (text, 2),
            Self::Failed(text) => (text, 1),
        };
        console::print(io::stderr(), &format!("nonforker: {}\n", console::one_line(&text)));
        ExitCode::from(status)
    }
}

impl From<nonforker::Error> for Ending {
    fn from(error: nonforker::Error) -> Self {
        use nonforker::Error::{Address, Limits, NothingToServe};

        let text = chain(&error);
        match error {
            Address(_) | Limits { .. } | NothingToServe => Self::Usage(text),
            _ => Self::Failed(text),
        }
    }
}

/// An error and its causes in one phrase.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let phrase = error.to_string();
        if !text.ends_with(&phrase) {
            text = format!("{text}: {phrase}");
        }
        cause = error.source();
    }
    text
}
