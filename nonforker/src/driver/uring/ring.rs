//! The ring and the memory that the kernel may touch: the only unsafe code of this crate.
//!
//! ```text
//!  accept, receive, send, watch, cancel ──▶ submission queue ──┐
//!                                                              │ enter: submits and waits
//!  next() ──▶ Report ◀── completion queue ◀────────────────────┘
//!               └─ Lent: a buffer of the ring that is ours until it is given back
//! ```
//!
//! What makes it safe:
//!
//! - A batch that is sent moves into the ring and out of it with its completion. Nobody can free
//!   it meanwhile.
//! - A buffer that the kernel filled is named by a [`Lent`], of which there is one. Its bytes can
//!   be looked at through it only, and the kernel gets the buffer back only in exchange for it.
//! - When the ring is dropped, everything is cancelled and waited for first. If the kernel does
//!   not let go, the memory is left to it.

#![expect(unsafe_code, reason = "this is where memory is shared with the kernel")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    collections::HashMap,
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec},
};

use super::report::{Kind, Lent, Name, Report};
use crate::conn::buffer::Buffer;

/// Submissions that fit before they have to be handed to the kernel.
const SUBMISSIONS: u32 = 512;

/// Completions that fit before the kernel has to keep them itself.
const COMPLETIONS: u32 = 4096;

/// Receive buffers: enough for everybody who is served in one turn to have one.
const BUFFERS: u16 = 256;

/// The bytes of each.
const BUFFER_SIZE: u32 = 16 * 1024;

const PAGE: usize = 4096;

/// The one group of receive buffers.
const GROUP: u16 = 0;

/// How often the kernel is asked to let go of everything before its memory is left to it.
const LAST_TRIES: usize = 1000;

/// See the [module](self).
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    /// What is being sent, by name.
    sending: HashMap<u64, Buffer>,
    /// Operations whose last report has not come.
    live: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with its receive buffers. It has to be used by the thread that made it.
    ///
    /// Fails where the kernel lacks something: `DEFER_TASKRUN` came with 6.1, after everything
    /// else that is needed here.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut buffers = Buffers::new();
        // SAFETY: the entries are `BUFFERS` long and live until the ring is destroyed, see `drop`.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.address(),
                BUFFERS,
                GROUP,
                0,
            )?;
        }
        for index in 0..BUFFERS {
            buffers.give(index);
        }
        let ring = Self { ring, buffers, sending: HashMap::new(), live: 0 };
        // It only saves a look-up.
        let _ = ring.ring.submitter().register_ring_fd();
        ring.buffers.publish();
        Ok(ring)
    }

    /// Accepts until it is cancelled or fails.
    pub(super) fn accept(&mut self, who: u64, listener: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(nix::sys::socket::SockFlag::SOCK_CLOEXEC.bits());
        self.start(Name { kind: Kind::Accept, who }, entry.build())
    }

    /// Receives until it is cancelled, ends, or there is no buffer.
    pub(super) fn receive(&mut self, who: u64, socket: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP);
        self.start(Name { kind: Kind::Receive, who }, entry.build())
    }

    /// Sends `batch`, or the part of it that is taken.
    pub(super) fn send(
        &mut self,
        who: u64,
        socket: BorrowedFd<'_>,
        batch: Buffer,
    ) -> Result<(), (io::Error, Buffer)> {
        let name = Name { kind: Kind::Send, who };
        let unsent = batch.bytes();
        let length = u32::try_from(unsent.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), unsent.as_ptr(), length)
            .flags(nix::sys::socket::MsgFlags::MSG_NOSIGNAL.bits());
        // The batch's bytes stay where they are when it moves: they are on the heap.
        let previous = self.sending.insert(name.pack(), batch);
        debug_assert!(previous.is_none(), "one send in flight");
        self.start(name, entry.build()).map_err(|error| {
            let batch = self.sending.remove(&name.pack());
            (error, batch.unwrap_or_else(|| Buffer::with_capacity(0)))
        })
    }

    /// Reports each time that `events` happen.
    pub(super) fn watch(&mut self, name: Name, fd: BorrowedFd<'_>, events: u32) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).multi(true);
        self.start(name, entry.build())
    }

    /// Ends an operation. Its last report still comes.
    pub(super) fn cancel(&mut self, name: Name) -> io::Result<()> {
        let builder = CancelBuilder::user_data(name.pack());
        let cancel = Name { kind: Kind::Cancel, who: 0 };
        self.start(cancel, opcode::AsyncCancel2::new(builder).build())
    }

    /// Hands over what was started, and waits up to `timeout` for something to report.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.buffers.publish();
        let submitter = self.ring.submitter();
        let entered = match timeout {
            None => submitter.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
                // Nothing happened; a signal came; there are reports to be taken first.
                Some(
                    nix::errno::Errno::ETIME
                    | nix::errno::Errno::EINTR
                    | nix::errno::Errno::EBUSY
                    | nix::errno::Errno::EAGAIN,
                ) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes the next report.
    pub(super) fn next(&mut self) -> Option<Report> {
        let entry = self.ring.completion().next()?;
        let more = cqueue::more(entry.flags());
        if !more {
            self.live -= 1;
        }
        let result = u32::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        let lent = cqueue::buffer_select(entry.flags()).map(|index| Lent {
            index,
            length: result.as_ref().map_or(0, |&length| length).min(BUFFER_SIZE) as usize,
        });
        let batch = self.sending.remove(&entry.user_data());
        let name = Name::unpack(entry.user_data())?;
        Some(Report { name, result, more, lent, batch })
    }

    /// The bytes in a buffer that was filled.
    pub(super) fn bytes(&self, lent: &Lent) -> &[u8] {
        self.buffers.bytes(lent)
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, lent: Lent) {
        self.buffers.give(lent.index);
    }

    /// Makes a descriptor that an accept has reported ours.
    pub(super) fn own(report: &Report) -> Option<OwnedFd> {
        debug_assert_eq!(report.name.kind, Kind::Accept, "only accepts report descriptors");
        let fd = i32::try_from(*report.result.as_ref().ok()?).ok()?;
        // SAFETY: the kernel has just opened it for this report, and nobody else knows it.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn start(&mut self, name: Name, entry: squeue::Entry) -> io::Result<()> {
        let entry = entry.user_data(name.pack());
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        let mut queue = self.ring.submission();
        // SAFETY: descriptors are open while they are named here. The only memory an entry names
        // is that of a send, which is in `sending` until its report has come.
        let pushed = unsafe { queue.push(&entry) };
        pushed.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.live += 1;
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let everything = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        let _ = self.start(Name { kind: Kind::Cancel, who: 0 }, everything);
        for _ in 0..LAST_TRIES {
            if self.live == 0 {
                return;
            }
            let _ = self.enter(Some(Duration::from_millis(1)));
            while let Some(report) = self.next() {
                // A connection that nobody will serve is closed again.
                if report.name.kind == Kind::Accept {
                    drop(Self::own(&report));
                }
            }
        }
        mem::forget(mem::take(&mut self.sending));
        self.buffers.entries.leaked = true;
        self.buffers.memory.leaked = true;
    }
}

/// Memory on whole pages.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
    /// The kernel may still use it: it is never freed.
    leaked: bool,
}

impl Pages {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, PAGE).expect("a small power of two");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout, leaked: false }
    }

    fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: it was allocated with this layout, and is freed once.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

/// The receive buffers, and the ring in which they are offered to the kernel.
#[derive(Debug)]
struct Buffers {
    entries: Pages,
    memory: Pages,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let entries = Pages::new(usize::from(BUFFERS) * size_of::<BufRingEntry>());
        let memory = Pages::new(usize::from(BUFFERS) * BUFFER_SIZE as usize);
        Self { entries, memory, tail: 0 }
    }

    fn first_entry(&self) -> *mut BufRingEntry {
        self.entries.start.as_ptr().cast()
    }

    fn start_of(&self, index: u16) -> *mut u8 {
        debug_assert!(index < BUFFERS, "the kernel names buffers that we gave it");
        let offset = usize::from(index % BUFFERS) * BUFFER_SIZE as usize;
        // SAFETY: the offset is within the memory.
        unsafe { self.memory.start.as_ptr().add(offset) }
    }

    fn bytes(&self, lent: &Lent) -> &[u8] {
        // SAFETY: the kernel filled this part and does not touch the buffer until it is given
        // back, in exchange for `lent`.
        unsafe { slice::from_raw_parts(self.start_of(lent.index), lent.length) }
    }

    /// Offers a buffer to the kernel, with the next [`publish`](Self::publish).
    fn give(&mut self, index: u16) {
        let place = usize::from(self.tail % BUFFERS);
        let address = self.start_of(index) as u64;
        // SAFETY: the place is within the entries.
        let entry = unsafe { self.first_entry().add(place) };
        // SAFETY: the kernel does not read this entry before the tail is published.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_SIZE);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given.
    fn publish(&self) {
        // SAFETY: it is the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.first_entry()) };
        // SAFETY: the tail is aligned, lives as long as the entries, and the kernel reads it
        // atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
