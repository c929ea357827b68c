//! Commands that end in time: a limit for each, and an end to all of them when a signal stops us.

use std::{
    fmt::Display,
    io::Read,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nonforker::signals::{self, SIGHUP, SIGINT, SIGTERM};

/// What went wrong, in words.
pub(crate) type Result<T, E = String> = std::result::Result<T, E>;

/// How often somebody looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Whether we are to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by the first SIGINT, SIGTERM or SIGHUP from now on; the second one ends the program.
    pub(crate) fn on_signals() -> Result<Self> {
        let flag = signals::interrupt_flag(&[SIGINT, SIGTERM, SIGHUP]);
        flag.map(Self).map_err(|error| format!("cannot take over the signals: {error}"))
    }

    /// Whether we are, for the load to look at.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// An error if we are.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err("interrupted".into()),
            false => Ok(()),
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) is_success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The output if the command did what it was to do, else the last words of what it complained.
    pub(crate) fn success(self, what: impl Display) -> Result<String> {
        if self.is_success {
            return Ok(self.stdout);
        }
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        // Compilers say it first, others last.
        let first = lines.iter().find(|line| line.contains("error"));
        let said = first.or_else(|| lines.last()).copied().unwrap_or("it says nothing");
        Err(format!("{what}: {}", said.trim()))
    }
}

/// Runs `command` to its end, or for `limit`, or until we are to stop.
pub(crate) fn run(command: &mut Command, limit: Duration, stop: &Stop) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    let (stdout, stderr) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
    let ended = wait(&mut child, limit, Some(stop));
    if ended.is_err() {
        end(&mut child);
    }
    let text = |thread: Option<JoinHandle<String>>| {
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let is_success = ended.map_err(|why| format!("{name}: {why}"))?;
    Ok(Output { is_success, stdout, stderr })
}

/// Everything that comes, on a thread of its own, so that no pipe gets full.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was said before an error is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether the process ended well; an error if it has not ended.
pub(crate) fn wait(child: &mut Child, limit: Duration, stop: Option<&Stop>) -> Result<bool> {
    let deadline = now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.success());
        }
        stop.map_or(Ok(()), Stop::check)?;
        if now() >= deadline {
            return Err(format!("has not ended after {} s", limit.as_secs()));
        }
        pause(LOOK);
    }
}

/// Ends a process that we started, at once, and waits until it is gone.
pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// The time. Whoever measures processes has to look at the clock.
#[expect(clippy::disallowed_methods, reason = "no engine runs in this program")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "no engine runs in this program")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Says how far we are.
#[expect(clippy::print_stderr, reason = "progress is for a person at a terminal")]
pub(crate) fn say(text: impl Display) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Stop {
        Stop(Arc::new(AtomicBool::new(false)))
    }

    #[test]
    fn a_command_is_ended_when_its_time_is_over_or_we_are_to_stop() {
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        };
        let begun = now();
        let error = run(&mut sleep(), Duration::from_millis(50), &never()).unwrap_err();
        assert!(error.contains("has not ended"), "{error}");
        let stop = never();
        stop.0.store(true, Ordering::Relaxed);
        let error = run(&mut sleep(), Duration::from_secs(60), &stop).unwrap_err();
        assert!(error.contains("interrupted"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_command() {
        let fails = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let output = run(&mut command, Duration::from_secs(10), &never()).unwrap();
            output.success("it").unwrap_err()
        };
        assert_eq!(fails("echo a; echo 'error: b' >&2; echo c >&2; exit 1"), "it: error: b");
        assert_eq!(fails("echo a; echo z; exit 1"), "it: z");
        assert_eq!(fails("exit 1"), "it: it says nothing");
    }
}
