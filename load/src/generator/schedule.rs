//! The open loop: requests that are due at a time, whatever became of those before them.
//!
//! Request k of a run is due at `began + k / rate`, and goes to connection `k % connections`. So
//! when a reply comes, its number says when its request was due, and nothing is stored for it. That
//! is what latency is counted from, and not from when the request could leave at last: otherwise
//! a server that stops for a second would be charged for one request, and not for all that were
//! due in that second ("coordinated omission").

use std::io;

use mio::Poll;

use super::{Generator, Role};

/// The most groups in which missing replies of a connection are counted: at a high rate billions may
/// be missing.
const GROUPS: usize = 4096;

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
    /// `rate` requests per second, over all `connections`.
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

    /// When a connection's next request is due, after a number of replies.
    pub(super) fn due_after(&self, connection: usize, replies: u64) -> u64 {
        self.due(replies * self.connections + connection as u64)
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
        (first..replies).map(move |nth| self.due_after(connection, nth))
    }

    /// Connections with requests that are due by now, and with how many: those that were not taken
    /// before.
    ///
    /// However many are due, this is one step for each connection.
    fn take(&mut self, now: u64) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, connections) = (self.released, self.connections);
        let count = if self.is_stopped { 0 } else { self.due_by(now).saturating_sub(first) };
        self.released += count;
        (0..count.min(connections)).map(move |nth| {
            let connection = (first + nth) % connections;
            let requests = (count - nth).div_ceil(connections);
            (small(connection), small(requests))
        })
    }

    /// How many requests are due by now.
    fn due_by(&self, now: u64) -> u64 {
        let Some(passed) = self.began.and_then(|began| now.checked_sub(began)) else { return 0 };
        let mut count = floor(passed as f64 / self.interval);
        // The division is rounded, and so is when a request is due.
        while self.due(count) <= now {
            count += 1;
        }
        while count > 0 && self.due(count - 1) > now {
            count -= 1;
        }
        count
    }

    /// For how long the requests of a connection have waited from its `first` on, in groups.
    fn waited(
        &self,
        connection: usize,
        first: u64,
        count: usize,
        now: u64,
    ) -> impl Iterator<Item = (u64, usize)> + '_ {
        let step = count.div_ceil(GROUPS).max(1);
        (0..count).step_by(step).map(move |begin| {
            let size = step.min(count - begin);
            let middle = first + (begin + size / 2) as u64;
            (now.saturating_sub(self.due_after(connection, middle)), size)
        })
    }
}

/// Numbers of connections, and of requests that are due in one turn.
fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time within a run, in nanoseconds, is far below the bounds, and positive"
)]
fn floor(value: f64) -> u64 {
    value as u64
}

/// When request `nth` is due, in nanoseconds since the schedule began.
fn offset(nth: u64, interval: f64) -> u64 {
    floor(nth as f64 * interval)
}

impl Generator<'_> {
    /// Sends what is due by now, and sees to it that the wait ends when more is.
    pub(super) fn release(&mut self, now: u64) -> io::Result<()> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let mut due = std::mem::take(&mut schedule.due);
        for (nth, count) in schedule.take(now) {
            let client = &mut self.clients[nth];
            // Where something is unsent already, the kernel says when it can be sent.
            if client.unsent() == 0 {
                due.push(nth);
            }
            client.ask(count, &self.messages);
        }
        for nth in due.drain(..) {
            let went = self.flush(nth);
            self.drop_if_failed(nth, went);
        }
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        schedule.due = due;
        let next = schedule.due(schedule.released);
        if schedule.is_stopped { Ok(()) } else { schedule.timer.ring_at(next, self.clock.now()) }
    }

    /// Counts what was due in an open loop and never answered, with the time it has waited so far.
    pub(crate) fn count_unanswered(&mut self) {
        let now = self.clock.now();
        let Self { clients, schedule, tally, .. } = self;
        let Some(schedule) = schedule else { return };
        let normal = clients.iter().enumerate().filter(|(_, client)| client.role == Role::Normal);
        for (nth, client) in normal {
            let count = client.awaited() + client.withdrawn();
            for (waited, count) in schedule.waited(nth, client.replies(), count, now) {
                tally.charge(waited, count);
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
        let take = |schedule: &mut Schedule, now| schedule.take(now).collect::<Vec<_>>();
        assert_eq!(take(&mut schedule, u64::MAX), [], "it has not begun");
        schedule.begin(500);
        assert_eq!(take(&mut schedule, 499), []);
        assert_eq!(take(&mut schedule, 500), [(0, 1)]);
        let rest = take(&mut schedule, 4_000_500);
        assert_eq!(rest, [(1, 2), (2, 1), (0, 1)], "due at 1 and 4, 2, and 3 ms");
        assert_eq!(take(&mut schedule, 4_000_500), []);
        let due: Vec<u64> = schedule.due_before(1, 2, 2).collect();
        assert_eq!(due, [1_000_500, 4_000_500], "the first and the second request of connection 1");
        assert_eq!(schedule.due_before(0, 2, 1).collect::<Vec<_>>(), [3_000_500]);
        schedule.stop();
        assert_eq!(schedule.take(u64::MAX).count(), 0);
    }

    #[test]
    fn what_is_due_is_taken_whole_at_every_rate() {
        let poll = Poll::new().unwrap();
        for rate in [0.001, 1.0, 3.0, 999_999.9, 1e9] {
            let mut schedule = Schedule::new(rate, 7, &poll).unwrap();
            schedule.begin(11);
            let mut sums = [0; 7];
            for now in [11, 12, 1_000_000, 1_000_000_010, 5_000_000_000_000_000] {
                schedule.take(now).for_each(|(nth, count)| sums[nth] += count as u64);
                let all = sums.iter().sum();
                assert!(schedule.due(all) > now && schedule.due(all - 1) <= now, "{rate}, {now}");
                assert!(sums.is_sorted_by(|a, b| a >= b) && sums[0] - sums[6] <= 1, "{sums:?}");
            }
        }
    }

    #[test]
    fn what_is_owed_is_counted_whole_and_in_few_steps() {
        let poll = Poll::new().unwrap();
        let mut schedule = Schedule::new(1e9, 1, &poll).unwrap();
        schedule.begin(0);
        for count in [0, 1, 4096, 4097, 1_000_000_000] {
            let groups: Vec<_> = schedule.waited(0, 0, count, 1_000_000_000).collect();
            assert!(groups.len() <= GROUPS, "{count}");
            assert_eq!(groups.iter().map(|(_, size)| size).sum::<usize>(), count);
            assert!(groups.is_sorted_by(|a, b| a >= b), "the oldest first");
        }
    }
}
