//! In which lists and states a connection is, for its [`Slot`](super::slot::Slot).

/// What is true of a connection until something is done about it, a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u8);

impl Marks {
    /// It is in the list of those that are flushed at the end of the turn.
    pub(super) const DIRTY: u8 = 1;
    /// It is in the list of those that go on in the next turn.
    pub(super) const RUNNABLE: u8 = 1 << 1;
    /// It has sent something since a drain last asked.
    pub(super) const HEARD: u8 = 1 << 2;
    /// It took something of what was queued for it since that was last asked, or began to hold
    /// memory since then.
    pub(super) const PROGRESSED: u8 = 1 << 3;

    pub(super) const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    /// Sets a mark. Returns whether it was not set.
    pub(super) const fn set(&mut self, mark: u8) -> bool {
        let is_new = self.0 & mark == 0;
        self.0 |= mark;
        is_new
    }

    /// Takes a mark away. Returns whether it was set.
    pub(super) const fn take(&mut self, mark: u8) -> bool {
        let was = self.has(mark);
        self.0 &= !mark;
        was
    }
}

/// Whether the driver was asked to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    Off,
    On,
    /// It was not, because memory is scarce and the connection holds too much of it.
    Starved,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// There is none yet.
    No,
    /// Our side is shut down, and frames are still handled.
    Shut,
    /// The handler knows, the session is gone, and our side is shut down.
    Told,
    /// The driver was asked to close, too.
    Closing,
}

/// What was ever done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Usage {
    /// It is not open yet: the handler does not know it, and its address is not counted.
    Arriving,
    /// No request was ever complete, and nothing was ever sent.
    Unused,
    /// The same, but for what was sent as it opened.
    Greeted,
    Used,
}
