//! The urgent byte of a socket, for the drivers of real sockets.
//!
//! A kernel keeps one urgent byte beside the stream, and the place in the stream where it was sent:
//! the urgent mark. A read stops at the mark. A read that begins at the mark goes on behind it, and
//! throws the byte away. So a driver may read only what it knows to be in front of a mark, or
//! behind one whose byte it has taken. To ask for the byte before each read is not enough: the byte
//! may arrive between the two calls.

use std::os::fd::AsFd;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, recv},
};

/// What a socket has at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// An urgent byte that was not taken yet.
    pub(super) urgent: bool,
    /// Bytes of the stream in front of the mark of an urgent byte that is not known yet, or the end.
    pub(super) readable: bool,
}

/// Asks a socket what it has. One call asks for both, so that no byte arrives in between.
pub(super) fn look(socket: impl AsFd) -> Look {
    let mut fds = [PollFd::new(&socket, PollFlags::IN | PollFlags::PRI)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => {
                let found = fds[0].revents();
                let urgent = found.contains(PollFlags::PRI);
                return Look { urgent, readable: !found.difference(PollFlags::PRI).is_empty() };
            }
            Err(Errno::INTR) => {}
            // The kernel is out of memory: a read may lose an urgent byte then.
            Err(_) => return Look { urgent: true, readable: true },
        }
    }
}

/// Takes the urgent byte out of the kernel, if there is one.
pub(super) fn take_urgent(socket: impl AsFd) -> Option<u8> {
    let mut byte = [0];
    let flags = RecvFlags::OOB | RecvFlags::DONTWAIT;
    // EINVAL is normal: there is none, a newer one has replaced it, or it was taken already.
    let (count, _) = recv(socket, &mut byte, flags).ok()?;
    (count == 1).then_some(byte[0])
}
