//! What the io_uring driver remembers of a connection.
//!
//! There is one of these for each idle connection too, so it is kept small: what is rare is behind
//! a pointer.

use std::io;

use socket2::Socket;

use crate::conn::buffer::Buffer;

/// Where an operation is that reports later, or many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arm {
    #[default]
    Idle,
    Armed,
    /// Cancelled, and its last report has not come.
    Ending,
}

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Finished,
    /// The number of the error.
    Broken(i32),
}

impl End {
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::Broken(error.raw_os_error().unwrap_or(nix::libc::ECONNRESET))
    }
}

/// What most connections never have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Bytes that came while they were not wanted, or beyond the turn's share.
    pub(super) stash: Vec<u8>,
    /// How many of them have been delivered.
    pub(super) delivered: usize,
    /// What came of a send that the close overtook.
    pub(super) unsent: Option<Buffer>,
}

/// One socket and its operations.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// In which wait it was last served, and with how many bytes.
    turn: u32,
    taken: u32,
    /// It comes behind the stash.
    pub(super) end: Option<End>,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) receive: Arm,
    pub(super) watch: Arm,
    /// The engine wants to receive.
    pub(super) receiving: bool,
    pub(super) sending: bool,
    /// The kernel did not take all of the last send: the next one may have to wait.
    pub(super) clogged: bool,
    /// The engine wants it closed, with a reset or without.
    pub(super) closing: Option<bool>,
    /// The peer's direction has ended, and was or will be told.
    pub(super) ended: bool,
    /// The connection broke: told when nothing else tells it.
    pub(super) broken: bool,
    /// That it broke was told, or will be.
    pub(super) told_broken: bool,
    /// It is in the queue of those to be served.
    pub(super) queued: bool,
    /// It is in the list of those that may have to be watched.
    pub(super) minded: bool,
    /// Urgent bytes are wanted: it is received from as [`urgent`](super::urgent) says.
    pub(super) urgent: bool,
    /// There may be something to be read.
    pub(super) readable: bool,
    /// A short read does not mean that there is no more.
    pub(super) probe: bool,
}

impl Connection {
    pub(super) const fn new(socket: Socket, urgent: bool) -> Self {
        Self {
            socket,
            turn: 0,
            taken: 0,
            end: None,
            rare: None,
            receive: Arm::Idle,
            watch: Arm::Idle,
            receiving: false,
            sending: false,
            clogged: false,
            closing: None,
            ended: false,
            broken: false,
            queued: false,
            minded: false,
            urgent,
            told_broken: false,
            readable: false,
            probe: false,
        }
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether the kernel has no operation of it any more.
    pub(super) fn is_released(&self) -> bool {
        self.receive == Arm::Idle && self.watch == Arm::Idle && !self.sending
    }

    /// Bytes in the stash that have not been delivered.
    pub(super) fn stashed(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.stash.len() - rare.delivered)
    }

    /// Whether nothing is going on that would tell that it broke.
    pub(super) fn is_silent(&self) -> bool {
        !self.receiving
            && self.receive == Arm::Idle
            && !self.sending
            && self.end.is_none()
            && self.stashed() == 0
            && self.closing.is_none()
    }

    /// What is left of this turn's share of `read_max` bytes.
    pub(super) fn share(&mut self, turn: u32, read_max: usize) -> usize {
        if self.turn != turn {
            self.turn = turn;
            self.taken = 0;
        }
        read_max.saturating_sub(self.taken as usize)
    }

    /// It was served so many bytes of its share.
    pub(super) fn took(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small() {
        assert!(size_of::<Connection>() <= 56, "{} bytes", size_of::<Connection>());
    }
}
