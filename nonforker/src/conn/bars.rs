//! What keeps a connection from its next frame, a bit each; and one for its next reply.

use super::state::State;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bars(u16);

impl Bars {
    /// It takes no more requests and no more replies: it closes.
    pub(crate) const CLOSED: Self = Self(1);
    /// The handler wants no frames for now.
    pub(crate) const PAUSED: Self = Self(1 << 1);
    /// Output stood above the high watermark, and the handler has not been told that it fell.
    pub(crate) const PRESSURED: Self = Self(1 << 2);
    /// Complete frames may be kept: they wait for the engine, not for the peer.
    pub(crate) const HELD: Self = Self(1 << 3);
    /// Answers are to come before the next frame: replies wait as well.
    pub(crate) const DEFERRED: Self = Self(1 << 4);
    /// It may need a ticket, and as many are open as there may be.
    pub(crate) const TICKETLESS: Self = Self(1 << 5);

    /// A ticket is open. This bars no frame, but the end of the stream comes behind the answer.
    pub(crate) const PENDING: Self = Self(1 << 6);

    /// Our side ends behind what is queued. This bars no frame: they are handled, unanswered.
    pub(crate) const MUTE: Self = Self(1 << 7);
    /// A TLS handshake has begun in the middle of the stream: nothing is a frame until it is done.
    pub(crate) const SHAKES: Self = Self(1 << 8);
    /// What arrives goes to another connection: it is no frames.
    pub(crate) const RELAYED: Self = Self(1 << 9);
    /// What arrives on a relayed connection waits for the other one: that does not stand yet, or has
    /// too much queued.
    pub(crate) const BLOCKED: Self = Self(1 << 10);

    /// Its state is not [`Open`](State::Open): it does not stand yet, or ends. By itself this
    /// bars no frame: those that came before the end are handled.
    pub(crate) const ENDING: Self = Self(1 << 11);

    /// One of them: something ends once everything queued is sent, our side or the connection.
    pub(crate) const ENDS: Self = Self(Self::ENDING.0 | Self::MUTE.0);
    /// One of them: something follows when what is queued is sent.
    pub(crate) const AWAITS: Self = Self(Self::ENDS.0 | Self::PRESSURED.0);
    /// One of them: a reply is dropped, or has to wait.
    pub(crate) const NOT_AT_ONCE: Self = Self(Self::CLOSED.0 | Self::MUTE.0 | Self::DEFERRED.0);
    /// One of them: the peer waits for our handler.
    pub(crate) const OUR_TURN: Self =
        Self(Self::PAUSED.0 | Self::PENDING.0 | Self::TICKETLESS.0 | Self::BLOCKED.0);
    /// These bar no frame.
    const OPEN: Self = Self(Self::MUTE.0 | Self::PENDING.0 | Self::ENDING.0);

    /// Whether it has this one, or one of these.
    #[inline]
    pub(crate) const fn has(self, bar: Self) -> bool {
        self.0 & bar.0 != 0
    }

    pub(crate) const fn set(&mut self, bar: Self, on: bool) {
        self.0 = if on { self.0 | bar.0 } else { self.0 & !bar.0 };
    }

    /// The state is another one.
    pub(super) const fn follow(&mut self, state: State) {
        self.set(Self::CLOSED, !state.handles());
        self.set(Self::ENDING, !matches!(state, State::Open));
    }

    /// Whether they are what this state makes them.
    pub(crate) fn agree_with(self, state: State) -> bool {
        let mut right = self;
        right.follow(state);
        right == self
    }

    /// Whether the next frame may be handled as it arrives.
    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        self.0 & !Self::OPEN.0 == 0
    }

    /// Whether what arrives may go to another connection at once. Pressure on this one does not bar it:
    /// each direction has its own.
    pub(crate) const fn relays(self) -> bool {
        let bars_nothing = Self::RELAYED.0 | Self::PRESSURED.0 | Self::OPEN.0;
        self.has(Self::RELAYED) && self.0 & !bars_nothing == 0
    }

    /// Whether a handshake is under way, and has not to wait for its turn.
    pub(crate) const fn only_shakes(self) -> bool {
        self.0 & (Self::SHAKES.0 | Self::CLOSED.0 | Self::HELD.0) == Self::SHAKES.0
    }

    /// Whether nothing but [`HELD`](Self::HELD) keeps it from the next frame, if that does.
    #[inline]
    pub(crate) const fn is_at_most_held(self) -> bool {
        self.0 & !(Self::HELD.0 | Self::OPEN.0) == 0
    }
}
