//! Where log lines go: to standard error, by a thread of its own, so that nobody waits for it.
//!
//! ```text
//!  server ── push ──▶ queue of lines ──▶ thread ──▶ standard error
//!             │ full
//!             ▼
//!          counted; the count is written once there is room
//! ```
//!
//! A reader that is slow or stuck costs log lines, and one that has gone or a full disk costs them
//! all. Nothing else: the server goes on, and ends when it is asked to.
//!
//! Not `tracing-appender`, which does the same in principle: with a stuck reader it ends by
//! complaining with `println!`, which can panic or wait for ever, and what was lost it does not
//! log.

use std::{
    collections::VecDeque,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};

use crate::console;

/// How many lines may wait to be printed.
const LINES_MAX: usize = 1024;

/// How long the end waits for the last lines to be printed.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes lines, and never makes anybody wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    /// A line has left the queue and is not printed yet.
    printing: bool,
    /// How many lines found no room since this was written last.
    lost: u64,
}

impl Shared {
    /// The queue. It is locked for moments only, never while something is printed.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Has a thread print to `to` whatever is pushed, with or without the colours in it.
    pub(crate) fn print_to(&self, to: impl AsFd + Send + 'static, colours: bool) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("log".into()).spawn(move || work(&shared, &to, colours))?;
        Ok(())
    }

    /// Queues a line, or counts it as lost.
    fn push(&self, line: String) {
        let mut queue = self.0.queue();
        if queue.lines.len() < LINES_MAX {
            queue.lines.push_back(line);
            self.0.changed.notify_all();
        } else {
            queue.lost += 1;
        }
    }

    /// Waits until everything is printed, but not for long.
    pub(crate) fn finish(&self) {
        let busy = |queue: &mut Queue| queue.printing || !queue.lines.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.0.queue(), PATIENCE, busy);
    }
}

/// One log line, written whole.
impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.push(text.trim_end_matches('\n').to_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints the lines as they come, for ever.
fn work(shared: &Shared, to: &impl AsFd, colours: bool) {
    loop {
        let mut queue = shared.queue();
        queue.printing = false;
        shared.changed.notify_all();
        let mut queue = shared
            .changed
            .wait_while(queue, |queue| queue.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        queue.printing = true;
        let line = queue.lines.pop_front().unwrap_or_default();
        // Told when the reader has caught up, so that there is room for it.
        let lost = if queue.lines.is_empty() { std::mem::take(&mut queue.lost) } else { 0 };
        drop(queue);

        print(to, &line, colours);
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost: nobody read them in time");
        }
    }
}

/// Prints a line, however long that takes. Where it cannot be printed, it is gone.
fn print(to: &impl AsFd, line: &str, colours: bool) {
    let line = console::log_line(line, colours);
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Another process that shares the descriptor has made it non-blocking.
            Err(Errno::EAGAIN) => {
                let writable = PollFd::new(to.as_fd(), PollFlags::POLLOUT);
                let _ = poll(&mut [writable], PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        let (mut reader, writer) = pipe().unwrap();
        let mut sink = Sink::default();
        sink.print_to(writer, false).unwrap();
        let line = [b'x'; 1000];
        // More than a pipe and the queue can take.
        for _ in 0..2 * LINES_MAX {
            sink.write_all(&line).unwrap();
        }
        sink.finish();
        let lost = sink.0.queue().lost;
        assert!(lost > 0);

        let kept = 2 * LINES_MAX - usize::try_from(lost).unwrap();
        let mut lines = vec![0; kept * (line.len() + 1)];
        reader.read_exact(&mut lines).unwrap();
        assert!(lines.split_inclusive(|&byte| byte == b'\n').all(|line| line.len() == 1001));
        sink.finish();
        assert_eq!(sink.0.queue().lost, 0, "it was written");
    }

    #[test]
    fn a_reader_that_has_gone_costs_nothing() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut sink = Sink::default();
        sink.print_to(writer, false).unwrap();
        for _ in 0..3 * LINES_MAX {
            sink.write_all(b"line\n").unwrap();
            sink.finish();
        }
        assert_eq!(sink.0.queue().lost, 0);
    }
}
