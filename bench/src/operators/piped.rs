//! A filter by itself, with nothing before it but a pipe: what it could answer at most.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::process::{Result, end, now};

/// How long it is let warm up.
const WARM_UP: Duration = Duration::from_millis(300);

/// Lines per second, with as many lines before it as the pipe takes.
pub(super) fn rate(command: &[String], line: &[u8], time: Duration) -> Result<f64> {
    let (program, arguments) = command.split_first().ok_or("a command has no words")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(mut output)) = (input, output) else {
        return Err("there is no pipe".into());
    };
    let lines = line.repeat(1024);
    // It ends when the filter does.
    let writing = thread::spawn(move || while input.write_all(&lines).is_ok() {});
    let mut heard = vec![0; 65_536];
    let mut count = |time: Duration| {
        let (begun, mut bytes) = (now(), 0);
        while begun.elapsed() < time {
            match output.read(&mut heard) {
                Ok(0) => return Err("it has ended".into()),
                Ok(more) => bytes += more,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(bytes as f64 / line.len() as f64 / begun.elapsed().as_secs_f64())
    };
    let rate = count(WARM_UP).and_then(|_| count(time));
    end(&mut child);
    drop(writing.join());
    rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_pass_are_counted_and_an_end_is_told() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let passed = rate(&words(&["cat"]), b"a line\n", Duration::from_millis(50));
        assert!(passed.unwrap() > 1000.0);
        let ended = rate(&words(&["true"]), b"a line\n", Duration::from_millis(50));
        assert_eq!(ended, Err("it has ended".into()));
    }
}
