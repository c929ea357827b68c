//! The ring and the memory of sends, which the kernel reads.
//!
//! ```text
//!  receive, send, watch, cancel ──▶ submission queue ──┐
//!                                                      │ enter: hands over and waits
//!  next() ──▶ Report ◀── completion queue ◀────────────┘
//!  landed() ◀── sends without a report
//! ```
//!
//! What makes it safe:
//!
//! - A batch that is sent moves into the ring, and out of it when the kernel is done with it.
//!   Nobody can free it meanwhile.
//! - Receive buffers are [`Buffers`], which say for themselves what makes them safe.
//! - When the ring is dropped, everything is cancelled and waited for first. If the kernel does
//!   not let go, the memory is left to it.

#![expect(unsafe_code, reason = "this is where operations are handed to the kernel")]

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fd, SubmitArgs, Timespec},
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use super::{
    buffers::Buffers,
    flights::Flights,
    probe,
    report::{Kind, Name, Report},
    size::{Size, Tally},
};
use crate::{conn::buffer::Buffer, driver::Sent};

/// A receive waits for bytes before it tries: `IORING_RECVSEND_POLL_FIRST`.
const POLL_FIRST: u16 = 1;

/// The one group of receive buffers.
const GROUP: u16 = 0;

/// A send goes on until all of it is sent. It is one flag for both directions.
const WAIT_FOR_ALL: SendFlags = SendFlags::from_bits_retain(RecvFlags::WAITALL.bits());

/// Deferred work is done, and completions that did not fit are brought.
const GET_EVENTS: u32 = 1;

/// How often the kernel is asked again to take submissions, or to bring what did not fit.
const TRIES: usize = 16;

/// How often the kernel is asked to let go of everything before its memory is left to it.
const LAST_TRIES: usize = 1000;

/// See the [module](self).
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    flights: Flights,
    /// What waits to be sent, by name.
    waiting: HashMap<u64, Buffer>,
    /// Completions that were taken from the queue and not yet asked for.
    taken: VecDeque<cqueue::Entry>,
    /// Operations whose last report has not come, flights left out.
    live: usize,
    pub(super) tally: Tally,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("live", &self.live)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with its receive buffers. It has to be used by the thread that made it.
    ///
    /// Fails, and says why, where the kernel lacks something or forbids it.
    pub(super) fn new(size: Size) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(size.completions)
            .build(size.submissions)
            .map_err(probe::explain)?;
        probe::check(&ring)?;
        let buffers = Buffers::new(size.buffers);
        let (address, count) = (buffers.address(), buffers.count());
        let submitter = ring.submitter();
        // SAFETY: there are `count` entries, and they live until the ring is destroyed: see `drop`.
        let registered =
            unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) };
        registered.map_err(probe::explain)?;
        Ok(Self {
            ring,
            buffers,
            flights: Flights::default(),
            waiting: HashMap::new(),
            taken: VecDeque::new(),
            live: 0,
            tally: Tally::default(),
        })
    }

    /// Receives one piece of up to `most` bytes into a buffer of the ring. If it `waits_first`, the
    /// kernel waits for bytes before it tries. That saves a try when there is likely nothing yet.
    pub(super) fn receive(
        &mut self,
        key: u64,
        socket: BorrowedFd<'_>,
        most: usize,
        waits_first: bool,
    ) -> io::Result<()> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), ptr::null_mut(), most)
            .buf_group(GROUP)
            .ioprio(if waits_first { POLL_FIRST } else { 0 })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.start(Name { kind: Kind::Receive, key }, entry)
    }

    /// Sends `batch` with the next [`enter`](Self::enter), as far as that goes without waiting.
    ///
    /// It comes back with [`landed`](Flights::landed) or [`bounced`](Flights::bounced).
    pub(super) fn send_now(
        &mut self,
        key: u64,
        socket: BorrowedFd<'_>,
        batch: Buffer,
    ) -> Result<(), Sent> {
        let flags = SendFlags::DONTWAIT | WAIT_FOR_ALL;
        let entry = send_entry(socket, &batch, flags).flags(squeue::Flags::SKIP_SUCCESS);
        // The batch's bytes stay where they are when it moves: they are on the heap.
        let number = self.flights.depart(key, batch);
        self.start(Name { kind: Kind::Flight, key: number }, entry).map_err(|error| {
            let batch = self.flights.recall().unwrap_or_else(|| Buffer::with_capacity(0));
            Sent { batch, result: Err(error) }
        })
    }

    /// Sends `batch`, or the part of it that is taken first, as soon as the kernel takes any.
    pub(super) fn send_patiently(
        &mut self,
        key: u64,
        socket: BorrowedFd<'_>,
        batch: Buffer,
    ) -> Result<(), Sent> {
        let name = Name { kind: Kind::Send, key };
        let entry = send_entry(socket, &batch, SendFlags::empty());
        let previous = self.waiting.insert(name.pack(), batch);
        debug_assert!(previous.is_none(), "one send in flight");
        self.start(name, entry).map_err(|error| {
            let batch = self.waiting.remove(&name.pack());
            let batch = batch.unwrap_or_else(|| Buffer::with_capacity(0));
            Sent { batch, result: Err(error) }
        })
    }

    /// Reports when one of `events` happens: each time if `often`, else once.
    pub(super) fn watch(
        &mut self,
        name: Name,
        fd: BorrowedFd<'_>,
        events: u32,
        often: bool,
    ) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).multi(often);
        self.start(name, entry.build())
    }

    /// Ends an operation. Its last report still comes.
    pub(super) fn cancel(&mut self, name: Name) -> io::Result<()> {
        let builder = CancelBuilder::user_data(name.pack());
        let cancel = Name { kind: Kind::Cancel, key: 0 };
        self.start(cancel, opcode::AsyncCancel2::new(builder).build())
    }

    /// Hands over what was started, and waits up to `timeout` for something to report.
    ///
    /// Without time to wait, and with nothing to hand over or to fetch, it is no system call.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.buffers.publish();
        let at_once = timeout == Some(Duration::ZERO) || !self.taken.is_empty();
        let entered = if at_once {
            self.enter_without_waiting()
        } else if let Some(timeout) = timeout {
            let timespec = Timespec::from(timeout);
            self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
        } else {
            self.ring.submit_and_wait(1)
        };
        pass_over(entered)?;
        self.collect();
        for tries in 0..TRIES {
            let queue = self.ring.submission();
            // A signal may end the wait while the kernel has something to report. The kernel may also
            // leave this flag set when it has nothing, until there is something again: another thread
            // of it sets the flag after the report was made. So one more look has to do.
            let unreported = tries == 0 && self.taken.is_empty() && queue.taskrun();
            if queue.is_empty() && !queue.cq_overflow() && !unreported {
                drop(queue);
                self.flights.conclude();
                break;
            }
            self.tally.overflowed += u32::from(queue.cq_overflow());
            drop(queue);
            pass_over(self.enter_without_waiting())?;
            self.collect();
        }
        Ok(())
    }

    /// How many reports there are.
    pub(super) fn waiting(&self) -> usize {
        self.taken.len()
    }

    /// Takes the next report.
    pub(super) fn next(&mut self) -> Option<Report> {
        let entry = self.taken.pop_front()?;
        let (result, length) = match u32::try_from(entry.result()) {
            Ok(length) => (Ok(length), length as usize),
            Err(_) => (Err(io::Error::from_raw_os_error(-entry.result())), 0),
        };
        let lent = match cqueue::buffer_select(entry.flags()) {
            // SAFETY: the kernel reported it, and an entry is taken once.
            Some(index) => Some(unsafe { self.buffers.filled(index, length) }),
            None => None,
        };
        let name = Name::unpack(entry.user_data())?;
        let batch = match name.kind {
            Kind::Send => self.waiting.remove(&entry.user_data()),
            _ => None,
        };
        let (more, more_waits) =
            (cqueue::more(entry.flags()), cqueue::sock_nonempty(entry.flags()));
        Some(Report { name, result, more, more_waits, lent, batch })
    }

    /// Where received bytes lie. What is given back to them the kernel has again with the next
    /// [`enter`](Self::enter).
    pub(super) const fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// The sends of which the kernel may tell nothing.
    pub(super) const fn flights(&mut self) -> &mut Flights {
        &mut self.flights
    }

    /// Hands over what was started, so that descriptors it names may be closed.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        pass_over(self.enter_without_waiting())?;
        self.collect();
        Ok(())
    }

    fn enter_without_waiting(&mut self) -> io::Result<usize> {
        let queue = self.ring.submission();
        let (length, idle) = (queue.len(), !queue.taskrun() && !queue.cq_overflow());
        drop(queue);
        if length == 0 && idle {
            return Ok(0);
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // SAFETY: as many entries are in the queue, and what they name lives: see `start`.
        unsafe { self.ring.submitter().enter::<()>(length, 0, GET_EVENTS, None) }
    }

    /// Empties the completion queue.
    fn collect(&mut self) {
        for entry in self.ring.completion() {
            match Name::unpack(entry.user_data()) {
                Some(Name { kind: Kind::Flight, key }) => {
                    self.flights.note_report(key, entry.result())
                }
                _ => {
                    self.live -= usize::from(!cqueue::more(entry.flags()));
                    self.taken.push_back(entry);
                }
            }
        }
    }

    fn start(&mut self, name: Name, entry: squeue::Entry) -> io::Result<()> {
        let entry = entry.user_data(name.pack());
        for _ in 0..TRIES {
            let mut queue = self.ring.submission();
            // SAFETY: descriptors are open while they are named here. The only memory an entry
            // names is that of a send, which is in `flights` or `waiting` until its end is known.
            let pushed = unsafe { queue.push(&entry) };
            drop(queue);
            if pushed.is_ok() {
                self.live += usize::from(name.kind != Kind::Flight);
                return Ok(());
            }
            self.tally.full += 1;
            self.hand_over()?;
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }
}

fn send_entry(socket: BorrowedFd<'_>, batch: &Buffer, flags: SendFlags) -> squeue::Entry {
    let unsent = batch.bytes();
    // The kernel sends at most that much at a time in any case.
    let length = u32::try_from(unsent.len()).unwrap_or(i32::MAX as u32);
    opcode::Send::new(Fd(socket.as_raw_fd()), unsent.as_ptr(), length)
        .flags((flags | SendFlags::NOSIGNAL).bits().cast_signed())
        .build()
}

/// Passes over what is no failure: nothing happened; a signal came; there are reports to be taken
/// first; there is no memory just now.
fn pass_over(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let everything = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        let _ = self.start(Name { kind: Kind::Cancel, key: 0 }, everything);
        for _ in 0..LAST_TRIES {
            self.taken.clear();
            if self.live == 0 {
                return;
            }
            let _ = self.enter(Some(Duration::from_millis(1)));
        }
        mem::forget(mem::take(&mut self.waiting));
        mem::forget(mem::take(&mut self.flights));
        self.buffers.leak();
    }
}
