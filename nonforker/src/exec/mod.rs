//! Programs as targets: a program with one end of a socket pair as its standard input and output.
//!
//! ```text
//!  the loop ── ours ═══ theirs ── the program's input and output
//!                          │ └── a second descriptor of it: the warden's, see warden.rs
//!                          └───── its standard error: a pipe, read by the warden, to the log
//! ```
//!
//! The loop serves `ours` as it serves any other socket. What is special about a program, that it ends by
//! itself, that it has to be ended, and that it writes to standard error, is the work of one thread for all
//! programs of a shard.

mod last_words;
mod warden;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
    sync::Arc,
};

pub(crate) use last_words::LastWords;
use socket2::Socket;
pub(crate) use warden::Warden;

use crate::target::{Target, TargetKind};

/// A program to be started: a [`Target`], to which a connection is its standard input and output.
///
/// A connection to it stands as soon as the program runs, and cannot be made if it cannot be started.
///
/// - It is a process group of its own. When the connection closes, for whatever reason, the group gets
///   SIGTERM, and SIGKILL after 5 s. When the program exits, what it has written is received, then the
///   connection ends, and what is left of its group gets SIGKILL. No zombies are left.
/// - To finish our side closes the program's input, and no more than that.
/// - Its standard error goes to the log, line by line, with its [label](Self::label): up to 20 lines a
///   second, of at most 1,000 bytes each, with control characters escaped.
/// - The environment is passed on, but for `LISTEN_*`, `NOTIFY_SOCKET` and `WATCHDOG_*`. SIGPIPE has its
///   default effect, and no signal is blocked.
///
/// # Examples
///
/// ```
/// use nonforker::{Program, Target};
///
/// let target = Target::from(Program::new("python3").args(["-u", "classify.py"]).env("MODE", "fast"));
/// assert_eq!(target.to_string(), "exec:python3 -u classify.py");
/// ```
#[derive(Clone)]
pub struct Program {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    user: Option<(u32, u32)>,
    label: String,
    words: Arc<LastWords>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("args", &self.args).finish_non_exhaustive()
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        let parts = |of: &Self| (of.args.clone(), of.env.clone(), of.user, of.label.clone());
        parts(self) == parts(other)
    }
}

impl Eq for Program {}

impl Program {
    /// This program, looked for in `PATH` unless its name has a slash, without arguments.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            args: vec![program.into()],
            env: Vec::new(),
            user: None,
            label: "program".to_owned(),
            words: Arc::default(),
        }
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it as this user and group, by their numbers, without further groups. It takes a server that
    /// runs as root. Default: those of the server.
    #[must_use]
    pub const fn user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// What the log calls it. Default: `program`.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What programs that were started from this one said last.
    pub(crate) fn last_words(&self) -> String {
        self.words.said()
    }

    /// Starts it. Returns our end of the socket pair, which does not block.
    pub(crate) fn start(&self, warden: &mut Option<Warden>) -> io::Result<Socket> {
        let warden = match warden {
            Some(warden) => warden,
            None => warden.insert(Warden::start()?),
        };
        let (ours, theirs) = UnixStream::pair()?;
        let (errors, to_errors) = io::pipe()?;
        let [program, args @ ..] = &self.args[..] else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs.try_clone()?))
            .stderr(to_errors)
            .process_group(0);
        for (name, _) in env::vars_os().filter(|(name, _)| is_private(name)) {
            command.env_remove(name);
        }
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let child = command.spawn()?;
        warden.watch(child, theirs, errors, self.label.clone(), Arc::clone(&self.words));
        ours.set_nonblocking(true)?;
        Ok(Socket::from(OwnedFd::from(ours)))
    }
}

/// Whether a variable is between the server and the one that has started it.
fn is_private(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"LISTEN_") || name.starts_with(b"WATCHDOG_") || name == b"NOTIFY_SOCKET"
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("exec:")?;
        for (nth, arg) in self.args.iter().enumerate() {
            let blank = if nth > 0 { " " } else { "" };
            write!(f, "{blank}{}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

impl From<Program> for Target {
    fn from(program: Program) -> Self {
        TargetKind::Program(program).into()
    }
}
