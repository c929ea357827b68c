//! The open loop: requests that are due at a time, whatever became of those before them.
//!
//! Request k of a run is due at `began + k / rate`, and goes to connection `k % connections`. So
//! when a reply comes, its number says when its request was due, and nothing is stored for it. That
//! is what latency is counted from, and not from when the request could leave at last: otherwise
//! a server that stops for a second would be charged for one request, and not for all that were
//! due in that second ("coordinated omission").

use std::io;

use mio::Poll;

use super::Load;

/// When requests are due.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Nanoseconds from one request to the next.
    interval: f64,
    connections: u64,
    began: Option<u64>,
    /// Requests that were due so far.
    released: u64,
    is_stopped: bool,
    /// Connections with something new to send; empty between two turns.
    due: Vec<usize>,
    timer: timer::Timer,
}

impl Schedule {
    /// So many requests per second, over so many connections.
    pub(super) fn new(rate: f64, connections: usize, poll: &Poll) -> io::Result<Self> {
        Ok(Self {
            interval: 1e9 / rate,
            connections: connections.max(1) as u64,
            began: None,
            released: 0,
            is_stopped: false,
            due: Vec::with_capacity(connections),
            timer: timer::Timer::new(poll)?,
        })
    }

    pub(super) fn begin(&mut self, now: u64) {
        self.began = Some(now);
    }

    /// From now on nothing is due any more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// When request `nth` is due.
    fn due(&self, nth: u64) -> u64 {
        self.began.unwrap_or_default() + offset(nth, self.interval)
    }

    /// When those requests were due that the last `count` of `replies` to a connection answered.
    pub(super) fn due_before(
        &self,
        connection: usize,
        replies: u64,
        count: usize,
    ) -> impl Iterator<Item = u64> + '_ {
        let first = replies.saturating_sub(count as u64);
        (first..replies).map(move |nth| self.due(nth * self.connections + connection as u64))
    }

    /// The connection whose request is due next, if one is due by now.
    fn next(&mut self, now: u64) -> Option<usize> {
        if self.is_stopped || self.began.is_none() || self.due(self.released) > now {
            return None;
        }
        let connection = self.released % self.connections;
        self.released += 1;
        usize::try_from(connection).ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time within a run, in nanoseconds, is far below the bounds, and positive"
)]
fn offset(nth: u64, interval: f64) -> u64 {
    (nth as f64 * interval) as u64
}

impl Load<'_> {
    /// Sends what is due by now, and sees to it that the wait ends when more is.
    pub(super) fn release(&mut self, now: u64) -> io::Result<()> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let mut due = std::mem::take(&mut schedule.due);
        while let Some(nth) = schedule.next(now) {
            let client = &mut self.clients[nth];
            // Where something is unsent already, the kernel says when it can be sent.
            if !client.has_unsent() {
                due.push(nth);
            }
            client.ask(1, &self.messages, now);
        }
        for nth in due.drain(..) {
            let went = self.flush(nth);
            self.settle(nth, went);
        }
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        schedule.due = due;
        let next = schedule.due(schedule.released);
        if schedule.is_stopped { Ok(()) } else { schedule.timer.ring_at(next, self.clock.now()) }
    }

    /// Counts what was due and never answered, with the time it has waited so far.
    pub(crate) fn count_unanswered(&mut self) {
        let now = self.clock.now();
        let Self { clients, schedule, tally, .. } = self;
        let Some(schedule) = schedule else { return };
        for (nth, client) in clients.iter().enumerate() {
            let all = client.replies() + client.awaited() as u64;
            for due in schedule.due_before(nth, all, client.awaited()) {
                tally.record(now.saturating_sub(due), 1);
            }
        }
    }
}

/// A timer that ends a wait to the microsecond: `epoll_wait` counts in milliseconds.
#[cfg(target_os = "linux")]
mod timer {
    use std::{
        io,
        os::fd::{AsFd, AsRawFd},
        time::Duration,
    };

    use mio::{Interest, Poll, unix::SourceFd};
    use nix::sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    };

    #[derive(Debug)]
    pub(super) struct Timer {
        timer: TimerFd,
        set_to: u64,
    }

    impl Timer {
        pub(super) fn new(poll: &Poll) -> io::Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
            let descriptor = timer.as_fd().as_raw_fd();
            let mut source = SourceFd(&descriptor);
            // It is edge-triggered, so nobody has to read it.
            poll.registry().register(&mut source, super::super::TIMER, Interest::READABLE)?;
            Ok(Self { timer, set_to: 0 })
        }

        /// Ends the next wait at this time; it is `now`.
        pub(super) fn ring_at(&mut self, at: u64, now: u64) -> io::Result<()> {
            if self.set_to == at {
                return Ok(());
            }
            self.set_to = at;
            // 0 would disarm it.
            let wait = Duration::from_nanos(at.saturating_sub(now).max(1));
            let once = Expiration::OneShot(TimeSpec::from_duration(wait));
            Ok(self.timer.set(once, TimerSetTimeFlags::empty())?)
        }
    }
}

/// Elsewhere the wait itself is short: a millisecond.
#[cfg(not(target_os = "linux"))]
mod timer {
    use std::io;

    use mio::Poll;

    #[derive(Debug)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new(_poll: &Poll) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn ring_at(&mut self, _at: u64, _now: u64) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_round_and_replies_find_when_they_were_due() {
        let poll = Poll::new().unwrap();
        let mut schedule = Schedule::new(1000.0, 3, &poll).unwrap();
        assert_eq!(schedule.next(u64::MAX), None, "it has not begun");
        schedule.begin(500);
        assert_eq!(schedule.next(499), None);
        let released: Vec<usize> = std::iter::from_fn(|| schedule.next(4_000_500)).collect();
        assert_eq!(released, [0, 1, 2, 0, 1], "due at 0, 1, 2, 3 and 4 ms");
        let due: Vec<u64> = schedule.due_before(1, 2, 2).collect();
        assert_eq!(due, [1_000_500, 4_000_500], "the first and the second request of connection 1");
        assert_eq!(schedule.due_before(0, 2, 1).collect::<Vec<_>>(), [3_000_500]);
        schedule.stop();
        assert_eq!(schedule.next(u64::MAX), None);
    }
}
