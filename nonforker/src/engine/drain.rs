//! How a server ends: what has arrived is answered, then everybody is closed.
//!
//! ```text
//!  Serving ──drain──▶ Settling ──nothing arrives──▶ Draining ──nobody is left──▶ done
//!     │                  │       or 100 ms                │
//!     └──────────────────┴─────────── stop ───────────────┴─ the deadline ──▶ Stopping ──▶ done
//! ```
//!
//! Settling takes in what the kernel has already: connections in the backlog, requests in socket
//! buffers. It ends with the first turn that brings nothing, or after a moment if clients never
//! stop sending. Then the listeners are closed and each connection is *cut*: its complete requests
//! are answered, what is incomplete is not waited for, its queue is sent, it closes.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

use super::Engine;
use crate::{conn::deadlines::Tick, conn::state::State, driver::Driver, error::CloseReason};

/// How long a drain takes in what arrives, at most.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// What was asked for from outside.
#[derive(Debug, Default)]
pub(crate) struct Request(AtomicU8);

impl Request {
    const DRAIN: u8 = 1;
    const STOP: u8 = 2;

    pub(crate) fn drain(&self) {
        self.0.fetch_max(Self::DRAIN, Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.0.fetch_max(Self::STOP, Relaxed);
    }
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Settling { until: Tick, deadline: Tick },
    Draining { deadline: Tick },
    Stopping,
}

impl Phase {
    /// When it ends by itself.
    pub(super) const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Serving | Self::Stopping => None,
            Self::Settling { until, .. } => Some(until),
            Self::Draining { deadline } => Some(deadline),
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Moves towards the end if that was asked for. `quiet` is a turn that brought nothing.
    pub(super) fn mind_phase(&mut self, quiet: bool) {
        let now = self.core.tick();
        if self.request.0.load(Relaxed) >= Request::STOP && self.phase != Phase::Stopping {
            self.stop();
        }
        match self.phase {
            Phase::Serving if self.request.0.load(Relaxed) >= Request::DRAIN => {
                let connections = self.core.slots.len();
                tracing::info!(connections, "draining");
                let until = self.core.tick_after(SETTLE_MAX);
                let deadline = self.core.tick_after(self.core.limits.drain_timeout);
                self.phase = Phase::Settling { until, deadline };
            }
            Phase::Settling { until, deadline } if quiet || until <= now => {
                self.phase = Phase::Draining { deadline };
                self.cut_all();
            }
            Phase::Draining { deadline } if deadline <= now => {
                let connections = self.core.slots.len();
                tracing::warn!(connections, "the drain took too long: cutting off what is left");
                self.stop();
            }
            _ => {}
        }
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Stopping) && self.core.slots.is_empty()
    }

    fn cut_all(&mut self) {
        self.shut_doors();
        let tokens: Vec<_> = self.core.slots.keys().collect();
        for token in tokens {
            let slot = &mut self.core.slots[token];
            slot.conn.cut = true;
            slot.conn.inbound.ended = true;
            self.core.mark_dirty(token);
            self.core.mark_runnable(token);
        }
    }

    fn stop(&mut self) {
        self.phase = Phase::Stopping;
        self.shut_doors();
        let tokens: Vec<_> = self.core.slots.keys().collect();
        for token in tokens {
            // What has been sent already, and only waits for the peer to finish, is not spoilt.
            let reset = self.core.slots[token].conn.state() != State::Lingering;
            self.core.fail(token, CloseReason::Stopped, reset);
        }
    }
}
