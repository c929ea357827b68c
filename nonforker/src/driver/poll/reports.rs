//! What the event queue reports: one look at it, and what each report says.
//!
//! On Linux the kernel is asked by this file and not by mio, which does so through libc: that looks
//! twice whether the thread is to be cancelled, and what an event says takes mio several calls.
//! Together this is 80 instructions for each look.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use mio::Poll;

pub(super) use self::queue::Reports;

/// Reports taken per look: fewer cost more looks, more cost cache (16: × .8, 4096: × .9).
const REPORTS: usize = 512;

/// What a report is about, and what it says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) about: mio::Token,
    /// [`READABLE`] and others of these bits.
    pub(super) says: u16,
}

/// Something can be read, or a read tells what is wrong.
pub(super) const READABLE: u16 = 1;
/// Something can be sent, or a send tells what is wrong.
pub(super) const WRITABLE: u16 = 1 << 1;
/// The kernel has an urgent byte.
pub(super) const URGENT: u16 = 1 << 2;
/// The peer has finished, or the connection broke: the next reads tell which.
pub(super) const ENDING: u16 = 1 << 3;
/// It broke: reported even while nothing is received or sent.
pub(super) const BROKEN: u16 = 1 << 4;

/// `bit` if it is so.
#[inline]
const fn bit(bit: u16, is_so: bool) -> u16 {
    if is_so { bit } else { 0 }
}

impl Reports {
    /// Looks for edges, sleeping up to `timeout` for the first.
    #[inline]
    pub(super) fn look(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
        match self.ask(poll, timeout) {
            // A signal ended the sleep before the kernel looked. Without sleep it does look.
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.ask(poll, Some(Duration::ZERO))
            }
            result => result,
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod queue {
    use std::{fmt, io, time::Duration};

    use mio::Poll;
    use rustix::{
        buffer::spare_capacity,
        event::{
            PollFd, PollFlags, Timespec,
            epoll::{self, EventFlags},
        },
        io::Errno,
    };

    use super::{BROKEN, ENDING, READABLE, REPORTS, Report, URGENT, WRITABLE, bit};

    /// The longest sleep: the kernel counts milliseconds in 31 bits.
    const SLEEP_MAX: Duration = Duration::from_secs(3600);

    /// A millisecond without its last nanosecond.
    const JUST_BELOW: Duration = Duration::from_nanos(999_999);

    /// What one look has found.
    pub(in super::super) struct Reports(Vec<epoll::Event>);

    impl fmt::Debug for Reports {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("Reports").field(&self.0.len()).finish()
        }
    }

    impl Reports {
        pub(in super::super) fn new() -> Self {
            Self(Vec::with_capacity(REPORTS))
        }

        /// epoll sleeps for whole milliseconds, to which a time is rounded up. So we sleep for the whole
        /// ones, a little less than we may; and when less than one is left, by a call that knows
        /// nanoseconds.
        #[inline]
        pub(super) fn ask(&mut self, poll: &Poll, timeout: Option<Duration>) -> io::Result<()> {
            self.0.clear();
            let mut whole = None;
            if let Some(timeout) = timeout {
                // Rounded up, this is the time rounded down.
                let below = timeout.min(SLEEP_MAX).saturating_sub(JUST_BELOW);
                if below == Duration::ZERO && timeout != Duration::ZERO {
                    sleep_briefly(poll, timeout)?;
                }
                whole = Some(timespec(below));
            }
            epoll::wait(poll.registry(), spare_capacity(&mut self.0), whole.as_ref())?;
            Ok(())
        }

        /// How many there are.
        #[inline]
        pub(in super::super) const fn len(&self) -> usize {
            self.0.len()
        }

        #[inline]
        pub(in super::super) fn get(&self, at: usize) -> Option<Report> {
            let epoll::Event { flags, data, .. } = *self.0.get(at)?;
            let has = |flag| flags.intersects(flag);
            let (broken, hung_up) = (EventFlags::ERR, EventFlags::HUP);
            let mut says = bit(READABLE, has(EventFlags::IN)) | bit(WRITABLE, has(EventFlags::OUT));
            if has(EventFlags::PRI | EventFlags::RDHUP | broken | hung_up) {
                says |= bit(READABLE | ENDING, has(EventFlags::RDHUP | broken | hung_up))
                    | bit(READABLE | URGENT, has(EventFlags::PRI))
                    | bit(WRITABLE, has(broken | hung_up))
                    | bit(BROKEN, has(broken));
            }
            Some(Report { about: mio::Token(usize::try_from(data.u64()).ok()?), says })
        }
    }

    /// Sleeps until there is an edge, or for `time`, which is less than a second.
    #[cold]
    fn sleep_briefly(poll: &Poll, time: Duration) -> io::Result<()> {
        let queue = PollFd::new(poll.registry(), PollFlags::IN);
        match rustix::event::poll(&mut [queue], Some(&timespec(time))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same time, which is an hour at most.
    fn timespec(time: Duration) -> Timespec {
        Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod queue {
    use std::{io, time::Duration};

    use mio::{Events, Poll, event::Event};

    use super::{BROKEN, ENDING, READABLE, REPORTS, Report, URGENT, WRITABLE, bit};

    /// What one look has found.
    #[derive(Debug)]
    pub(in super::super) struct Reports {
        events: Events,
        reports: Vec<Report>,
    }

    impl Reports {
        pub(in super::super) fn new() -> Self {
            let reports = Vec::with_capacity(REPORTS);
            Self { events: Events::with_capacity(REPORTS), reports }
        }

        pub(super) fn ask(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
            self.reports.clear();
            poll.poll(&mut self.events, timeout)?;
            self.reports.extend(self.events.iter().map(report));
            Ok(())
        }

        /// How many there are.
        pub(in super::super) fn len(&self) -> usize {
            self.reports.len()
        }

        pub(in super::super) fn get(&self, at: usize) -> Option<Report> {
            self.reports.get(at).copied()
        }
    }

    fn report(event: &Event) -> Report {
        let error = event.is_error();
        let ends = event.is_read_closed() || error;
        let says = bit(READABLE, event.is_readable() || ends)
            | bit(WRITABLE, event.is_writable() || event.is_write_closed() || error)
            | bit(URGENT, event.is_priority())
            | bit(ENDING, ends)
            | bit(BROKEN, error);
        Report { about: event.token(), says }
    }
}
