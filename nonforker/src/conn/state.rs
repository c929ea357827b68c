//! Where a connection is in its life, and the one function that moves it.
//!
//! ```text
//!            PeerFinished                     Flushed
//! Connecting
//!     │ Connected
//!     ▼
//! Arriving ── CloseRequested ─▶ Draining
//!     │ Arrived
//!     ▼
//!   Open ────────────────▶ HalfClosed   ┌──────────────▶ Lingering ─┐
//!     │                        │        │                           │ PeerFinished
//!     │ CloseRequested         │ CloseRequested                     ▼
//!     └───────▶ Draining ──────┼────────┘        Finishing ──▶  Closing ──Released──▶ Closed
//!                  │           └────────────────────▲ Flushed      ▲
//!                  └── PeerFinished ────────────────┘              │
//!                                     Failed, from any of them ────┘
//! ```
//!
//! What cannot happen is a value, [`Illegal`]: the engine closes that one connection and counts
//! it, and every test asserts that the count is zero.

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// We connect to it, and no driver knows it yet.
    Connecting,
    /// It is accepted or connected, and its pipe has to be opened up before its handler may know it.
    Arriving,
    /// Both sides may send.
    Open,
    /// The peer has finished sending; its complete requests are answered, we may go on sending.
    HalfClosed,
    /// We shall close: no more frames are handled, what is queued is sent.
    Draining,
    /// As `Draining`, and the peer has finished too.
    Finishing,
    /// Everything is sent and our side is shut down. What the peer still sends is thrown away:
    /// to close with unread input would reset the connection and destroy the last reply.
    Lingering,
    /// The driver has been told to close, or is about to be.
    Closing,
    /// The driver has let go of it.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It stands, and a driver knows it.
    Connected,
    /// Its pipe is open.
    Arrived,
    /// The peer has finished sending.
    PeerFinished,
    /// The handler, a drain or a rejected frame wants it closed once the queue is sent.
    CloseRequested,
    /// Nothing is queued or in flight.
    Flushed,
    /// It is over: reset by the peer, aborted, timed out.
    Failed,
    /// The driver has said its last word about it.
    Released,
}

/// An event that cannot happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Illegal {
    /// The state that stays.
    pub(crate) state: State,
    /// The event that was refused.
    pub(crate) event: Event,
}

/// What is still to come from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Frames.
    Flows,
    /// Nothing: it has finished.
    Finished,
    /// Nothing, and the handler has been told.
    Told,
    /// Nothing that counts: the server drains, and does not wait for more.
    Cut,
}

/// How a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    InOrder,
    /// With a reset towards the peer.
    Reset,
    /// In order, since an event came that cannot come. No test ever sees it.
    Illegal,
}

impl State {
    /// Returns the state after `event`. The only place where a connection changes state.
    ///
    /// Every pair is written out, so that a new state or event does not compile until each
    /// combination has been decided.
    pub(crate) const fn after(self, event: Event) -> Result<Self, Illegal> {
        use Event::{Arrived, CloseRequested, Connected, Failed, Flushed, PeerFinished, Released};
        use State::{
            Arriving, Closed, Closing, Connecting, Draining, Finishing, HalfClosed, Lingering, Open,
        };

        Ok(match (self, event) {
            (Connecting, Connected) => Arriving,
            (Arriving, Arrived) => Open,
            // Nothing was promised to it.
            (Connecting, CloseRequested) => Closing,
            (Arriving, PeerFinished) => Closing,
            // An alert may be queued.
            (Arriving, CloseRequested) => Draining,

            (Open, PeerFinished) => HalfClosed,
            (Open, CloseRequested) => Draining,
            (HalfClosed, CloseRequested) => Finishing,
            (Draining, PeerFinished) => Finishing,
            (Draining, Flushed) => Lingering,
            (Finishing, Flushed) => Closing,
            (Lingering, PeerFinished) => Closing,
            (
                Connecting | Arriving | Open | HalfClosed | Draining | Finishing | Lingering,
                Failed,
            ) => Closing,
            (Closing, Released) => Closed,

            // An empty queue ends a connection only once it drains.
            (Connecting | Arriving | Open | HalfClosed | Lingering, Flushed) => self,
            // The close was asked for twice.
            (Draining | Finishing | Lingering, CloseRequested) => self,
            // Reports that were already on their way.
            (Closing, PeerFinished | CloseRequested | Flushed | Failed) => Closing,

            (Connecting | HalfClosed | Finishing, PeerFinished)
            | (
                Connecting | Arriving | Open | HalfClosed | Draining | Finishing | Lingering,
                Released,
            )
            | (
                Arriving | Open | HalfClosed | Draining | Finishing | Lingering | Closing,
                Connected,
            )
            | (
                Connecting | Open | HalfClosed | Draining | Finishing | Lingering | Closing,
                Arrived,
            )
            | (
                Closed,
                Connected | Arrived | PeerFinished | CloseRequested | Flushed | Failed | Released,
            ) => {
                return Err(Illegal { state: self, event });
            }
        })
    }

    /// Whether the handler may still be given frames.
    pub(crate) const fn handles(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosed)
    }

    /// Whether it is about to end: no more frames are handled.
    pub(crate) const fn ends(self) -> bool {
        !self.handles() && !matches!(self, Self::Connecting | Self::Arriving)
    }

    /// Whether what the peer sends is read and thrown away.
    pub(crate) const fn discards(self) -> bool {
        matches!(self, Self::Draining | Self::Lingering)
    }

    /// Whether the peer has finished sending, and nothing more is to be read.
    pub(crate) const fn has_finished(self) -> bool {
        matches!(self, Self::HalfClosed | Self::Finishing)
    }

    /// Whether queued bytes may still be sent.
    pub(crate) const fn sends(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosed | Self::Draining | Self::Finishing)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Event::{
            self, Arrived, CloseRequested, Connected, Failed, Flushed, PeerFinished, Released,
        },
        Illegal,
        State::{
            self, Arriving, Closed, Closing, Connecting, Draining, Finishing, HalfClosed,
            Lingering, Open,
        },
    };

    const EVENTS: [Event; 7] =
        [Connected, Arrived, PeerFinished, CloseRequested, Flushed, Failed, Released];

    #[rustfmt::skip]
    const TABLE: [(State, [Option<State>; 7]); 9] = [
        //            Connected       Arrived     PeerFinished      CloseRequested   Flushed           Failed         Released
        (Connecting, [Some(Arriving), None,       None,             Some(Closing),   Some(Connecting), Some(Closing), None]),
        (Arriving,   [None,           Some(Open), Some(Closing),    Some(Draining),  Some(Arriving),   Some(Closing), None]),
        (Open,       [None,           None,       Some(HalfClosed), Some(Draining),  Some(Open),       Some(Closing), None]),
        (HalfClosed, [None,           None,       None,             Some(Finishing), Some(HalfClosed), Some(Closing), None]),
        (Draining,   [None,           None,       Some(Finishing),  Some(Draining),  Some(Lingering),  Some(Closing), None]),
        (Finishing,  [None,           None,       None,             Some(Finishing), Some(Closing),    Some(Closing), None]),
        (Lingering,  [None,           None,       Some(Closing),    Some(Lingering), Some(Lingering),  Some(Closing), None]),
        (Closing,    [None,           None,       Some(Closing),    Some(Closing),   Some(Closing),    Some(Closing), Some(Closed)]),
        (Closed,     [None,           None,       None,             None,            None,             None,          None]),
    ];

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        for (state, row) in TABLE {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let expected = expected.ok_or(Illegal { state, event });
                assert_eq!(state.after(event), expected, "{state:?} after {event:?}");
            }
        }
    }
}
