//! How the poll driver watches a listener that other shards have too.
//!
//! Each shard has an event queue of its own. With `EPOLLEXCLUSIVE` the kernel wakes one of those that
//! sleep on the listener, and none that is busy: so a peer that connects does not wake all shards, and
//! does not wait for one that is in a handler. Other systems wake all of them.

use std::io;

use mio::Poll;
use socket2::Socket;

use crate::driver::ListenerId;

/// Has `poll` tell when a peer connects.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn watch(poll: &Poll, socket: &Socket, listener: ListenerId) -> io::Result<()> {
    use rustix::event::epoll::{EventData, EventFlags, add};
    let flags = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
    Ok(add(poll.registry(), socket, EventData::new_u64(listener as u64), flags)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn watch(poll: &Poll, socket: &Socket, listener: ListenerId) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut source = mio::unix::SourceFd(&socket.as_raw_fd());
    poll.registry().register(&mut source, mio::Token(listener), mio::Interest::READABLE)
}
