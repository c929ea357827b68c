//! Which driver does the I/O: what is asked for, and what this system has.

use std::{env, io};

#[cfg(target_os = "linux")]
use crate::driver::uring::UringDriver;
use crate::{
    driver::{Options, poll::PollDriver},
    error::{Error, Result},
};

/// Whether [`DriverKind::Auto`] is io_uring where that can be used.
const AUTO_IS_URING: bool = true;

/// What [`DriverKind::Auto`] is, if this is set: `poll` or `uring`.
const VARIABLE: &str = "NONFORKER_DRIVER";

/// Which driver does the I/O.
///
/// The same tests hold for all of them, and a handler cannot tell which it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverKind {
    /// The best there is on this system: [`Uring`](Self::Uring) where it can be used,
    /// [`Poll`](Self::Poll) elsewhere. A line in the log says which, and why.
    ///
    /// The environment variable `NONFORKER_DRIVER`, which is `poll` or `uring`, chooses another when
    /// the program is run.
    #[default]
    Auto,
    /// Readiness: epoll on Linux, kqueue on the BSDs and macOS.
    Poll,
    /// Completions: io_uring, on Linux 6.1 or newer, where it is not forbidden.
    Uring,
}

/// A driver that could be made.
#[derive(Debug)]
pub(crate) enum Chosen {
    Poll(Box<PollDriver>),
    #[cfg(target_os = "linux")]
    Uring(Box<UringDriver>),
}

impl DriverKind {
    /// Makes the driver. Returns also which one it is, and why, for a person.
    pub(crate) fn make(self, options: Options) -> Result<(Chosen, String)> {
        match self.or_from_environment(env::var(VARIABLE).ok().as_deref()) {
            Self::Poll => poll(options, ""),
            Self::Uring => uring(options).map_err(Error::NoUring),
            Self::Auto if AUTO_IS_URING => match uring(options.clone()) {
                Ok(chosen) => Ok(chosen),
                Err(error) => poll(options, &format!("; io_uring cannot be used: {error}")),
            },
            Self::Auto => poll(options, ""),
        }
    }

    /// What the environment asks for, if the program leaves it open.
    fn or_from_environment(self, asked: Option<&str>) -> Self {
        match (self, asked) {
            (Self::Auto, Some("poll")) => Self::Poll,
            (Self::Auto, Some("uring")) => Self::Uring,
            (Self::Auto, Some(other)) if !["", "auto"].contains(&other) => {
                tracing::warn!("{VARIABLE} is neither auto nor poll nor uring: {other:?}");
                Self::Auto
            }
            _ => self,
        }
    }
}

fn poll(options: Options, why: &str) -> Result<(Chosen, String)> {
    let driver = PollDriver::new(options).map_err(Error::Driver)?;
    Ok((Chosen::Poll(Box::new(driver)), format!("poll{why}")))
}

#[cfg(target_os = "linux")]
fn uring(options: Options) -> io::Result<(Chosen, String)> {
    let driver = UringDriver::new(options)?;
    Ok((Chosen::Uring(Box::new(driver)), "uring".into()))
}

#[cfg(not(target_os = "linux"))]
fn uring(_options: Options) -> io::Result<(Chosen, String)> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_what_the_program_leaves_open() {
        use DriverKind::{Auto, Poll, Uring};
        for (program, told, is) in [
            (Auto, None, Auto),
            (Auto, Some("poll"), Poll),
            (Auto, Some("uring"), Uring),
            (Auto, Some("auto"), Auto),
            (Auto, Some(""), Auto),
            (Auto, Some("epoll"), Auto),
            (Poll, Some("uring"), Poll),
            (Uring, Some("poll"), Uring),
        ] {
            assert_eq!(program.or_from_environment(told), is, "{program:?}, {told:?}");
        }
    }
}
