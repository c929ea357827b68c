//! What the io_uring driver remembers of a connection.
//!
//! There is one of these for each idle connection too, so it is kept small.

use socket2::Socket;

/// Whether the kernel has an operation that reports later, or many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arm {
    #[default]
    Idle,
    Armed,
}

/// What is true of a connection, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact(u16);

impl Fact {
    /// The engine wants to receive.
    pub(super) const RECEIVING: Self = Self(1);
    pub(super) const SENDING: Self = Self(1 << 1);
    /// The kernel did not take all of the last send: the next one may have to wait.
    pub(super) const PARTIAL: Self = Self(1 << 2);
    /// The peer's direction has ended. The engine knows, or a completion of it is on its way.
    pub(super) const ENDED: Self = Self(1 << 3);
    /// The connection broke. The driver reports it once no operation can report it.
    pub(super) const BROKEN: Self = Self(1 << 4);
    /// A completion says that it broke, and was delivered or is on its way.
    pub(super) const REPORTED_BROKEN: Self = Self(1 << 5);
    /// The kernel had more when the ring brought the last piece.
    pub(super) const WAITING: Self = Self(1 << 6);
    /// It is among those that have more, to be read by a call.
    pub(super) const QUEUED: Self = Self(1 << 7);
    /// It is in `maybe_silent`, the list of those that may have to be watched.
    pub(super) const LISTED: Self = Self(1 << 8);
    /// The handler wants urgent bytes: the driver receives as [`urgent`](super::urgent) says.
    pub(super) const URGENT: Self = Self(1 << 9);
    /// A read by a call may find something. The ring does not receive meanwhile.
    pub(super) const READABLE: Self = Self(1 << 10);
    /// A short read does not mean that there is no more.
    pub(super) const PROBE: Self = Self(1 << 11);
}

/// One socket and its operations.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    facts: u16,
    pub(super) receive: Arm,
    pub(super) watch: Arm,
    /// The engine wants it closed, with a reset or without.
    pub(super) closing: Option<bool>,
}

impl Connection {
    pub(super) const fn new(socket: Socket, urgent: bool) -> Self {
        let facts = if urgent { Fact::URGENT.0 } else { 0 };
        let (receive, watch) = (Arm::Idle, Arm::Idle);
        Self { socket, facts, receive, watch, closing: None }
    }

    pub(super) const fn is(&self, fact: Fact) -> bool {
        self.facts & fact.0 != 0
    }

    pub(super) const fn set(&mut self, fact: Fact, is: bool) {
        self.facts = if is { self.facts | fact.0 } else { self.facts & !fact.0 };
    }

    /// Sets a fact. Returns whether it was true before.
    pub(super) const fn replace(&mut self, fact: Fact, is: bool) -> bool {
        let was = self.is(fact);
        self.set(fact, is);
        was
    }

    /// Whether the ring is to receive a piece.
    pub(super) fn may_be_armed(&self) -> bool {
        let decides = Fact::RECEIVING.0 | Fact::READABLE.0 | Fact::ENDED.0;
        self.facts & decides == Fact::RECEIVING.0
            && matches!(self.receive, Arm::Idle)
            && self.closing.is_none()
    }

    /// Whether the kernel has no operation of it any more.
    pub(super) fn is_released(&self) -> bool {
        self.receive == Arm::Idle && self.watch == Arm::Idle && !self.is(Fact::SENDING)
    }

    /// Whether no operation is in flight that would report that it broke.
    pub(super) fn is_silent(&self) -> bool {
        !self.is(Fact::RECEIVING)
            && self.receive == Arm::Idle
            && !self.is(Fact::SENDING)
            && self.closing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small() {
        assert!(size_of::<Connection>() <= 12, "{} bytes", size_of::<Connection>());
    }
}
