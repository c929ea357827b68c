//! What the io_uring driver remembers of a connection.

use socket2::Socket;

use crate::conn::buffer::Buffer;

/// Where an operation that reports many times is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arm {
    #[default]
    Idle,
    Armed,
    /// Cancelled, and its last report has not come.
    Ending,
}

/// How the peer's direction ended.
#[derive(Debug)]
pub(super) enum End {
    Finished,
    Broken(std::io::Error),
}

/// One socket and its operations.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// The engine wants to receive.
    pub(super) receiving: bool,
    pub(super) receive: Arm,
    pub(super) watch: Arm,
    pub(super) sending: bool,
    /// The engine wants it closed, with a reset or without.
    pub(super) closing: Option<bool>,
    /// What came of a send that the close overtook.
    pub(super) unsent: Option<Buffer>,
    /// Bytes that came while they were not wanted, or beyond the turn's share.
    pub(super) stash: Vec<u8>,
    /// How many of them have been delivered.
    pub(super) delivered: usize,
    /// It comes behind the stash.
    pub(super) end: Option<End>,
    /// The peer's direction has ended, and was or will be told.
    pub(super) ended: bool,
    /// The connection broke: told when nothing else tells it.
    pub(super) broken: bool,
    /// In which wait it was last served, and with how many bytes.
    pub(super) turn: u64,
    pub(super) taken: usize,
    /// It is in the queue of those to be looked at.
    pub(super) queued: bool,
}

impl Connection {
    pub(super) const fn new(socket: Socket) -> Self {
        Self {
            socket,
            receiving: false,
            receive: Arm::Idle,
            watch: Arm::Idle,
            sending: false,
            closing: None,
            unsent: None,
            stash: Vec::new(),
            delivered: 0,
            end: None,
            ended: false,
            broken: false,
            turn: 0,
            taken: 0,
            queued: false,
        }
    }

    /// Whether the kernel has no operation of it any more.
    pub(super) fn is_released(&self) -> bool {
        self.receive == Arm::Idle && self.watch == Arm::Idle && !self.sending
    }

    /// Bytes in the stash that have not been delivered.
    pub(super) const fn stashed(&self) -> usize {
        self.stash.len() - self.delivered
    }

    /// Whether it broke and no operation is left that would tell.
    pub(super) fn is_silently_broken(&self) -> bool {
        self.broken
            && self.receive == Arm::Idle
            && !self.sending
            && self.end.is_none()
            && self.stashed() == 0
            && self.closing.is_none()
    }

    /// What is left of this turn's share of `read_max` bytes.
    pub(super) const fn share(&mut self, turn: u64, read_max: usize) -> usize {
        if self.turn != turn {
            self.turn = turn;
            self.taken = 0;
        }
        read_max - self.taken
    }
}
