//! In which lists and states a connection is, for its [`Slot`](super::slot::Slot).

/// What is true of a connection until something is done about it, a bit each.
pub(super) type Marks = u8;

/// It is in the list of those that are flushed at the end of the turn.
pub(super) const DIRTY: Marks = 1;
/// It is in the list of those that go on in the next turn.
pub(super) const RUNNABLE: Marks = 1 << 1;
/// It has sent something since a drain last asked.
pub(super) const HEARD: Marks = 1 << 2;
/// It took something of what was queued for it since that was last asked, or began to hold memory
/// since then.
pub(super) const PROGRESSED: Marks = 1 << 3;
/// More than usual depends on what goes both ways: an idle deadline, an answer of the kernel, or a
/// count. Once set, it stays.
pub(super) const WATCHED: Marks = 1 << 4;
/// A handler has asked for it, and no listener has accepted it.
pub(super) const OUTGOING: Marks = 1 << 5;
/// It takes no place: it was asked for just now, or there was none.
pub(super) const PLACELESS: Marks = 1 << 6;

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
    /// The same, but its address is counted: a TLS handshake is under way.
    LetIn,
    /// No request was ever complete, and nothing was ever sent.
    Unused,
    /// The same, but for what was sent as it opened.
    Greeted,
    Used,
}

/// What went both ways on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) since: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) frames: u64,
    pub(crate) replies: u64,
}
