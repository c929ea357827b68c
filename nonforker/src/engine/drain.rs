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
//!
//! A connection that does not receive just then, because its replies are not taken or its handler
//! pauses it, may have requests in the kernel that nobody could see. It is cut when it receives
//! again and a turn brings nothing from it; at half of the deadline all are.
//!
//! A stop counts the connections that it *cuts off*: the engine holds a complete request of the
//! peer that no handler has seen, or bytes for the peer that the kernel has not taken. What the
//! kernel still holds of the peer is not counted, since nobody has looked at it.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

use super::{Brought, Engine};
use crate::{
    conn::{deadlines::Tick, state::State},
    driver::{Driver, Token},
    error::CloseReason,
};

/// How long a drain takes in what arrives, at most.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// What was asked for from outside.
#[derive(Debug, Default)]
pub(crate) struct Request(AtomicU8);

impl Request {
    const DRAIN: u8 = 1;
    const STOP: u8 = 2;

    /// Whether anything was asked for.
    fn is_made(&self) -> bool {
        self.0.load(Relaxed) >= Self::DRAIN
    }

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
    Draining { patience: Tick, deadline: Tick },
    Stopping,
}

impl Phase {
    /// When it ends by itself.
    pub(super) const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Serving | Self::Stopping => None,
            Self::Settling { until, .. } => Some(until),
            Self::Draining { patience, .. } => Some(patience),
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Moves towards the end if that was asked for.
    #[inline]
    pub(super) fn mind_phase(&mut self, brought: Brought) {
        if self.phase != Phase::Serving || self.request.is_made() {
            self.move_on(brought);
        }
    }

    fn move_on(&mut self, brought: Brought) {
        let quiet = brought.looked && !brought.something;
        let now = self.core.judged();
        if self.request.0.load(Relaxed) >= Request::STOP && self.phase != Phase::Stopping {
            self.stop();
        }
        match self.phase {
            Phase::Serving if self.request.is_made() => {
                let connections = self.core.slots.len();
                tracing::info!(connections, "draining");
                let until = self.core.tick_after(SETTLE_MAX);
                let deadline = self.core.tick_after(self.core.limits.drain_timeout);
                self.phase = Phase::Settling { until, deadline };
            }
            Phase::Settling { until, deadline } if quiet || until <= now => {
                let half = self.core.limits.drain_timeout / 2;
                let patience = self.core.tick_after(half).min(deadline);
                self.phase = Phase::Draining { patience, deadline };
                self.shut_doors();
                for token in self.core.slots.keys().collect::<Vec<_>>() {
                    if self.core.slots[token].receiving {
                        self.cut(token);
                    } else {
                        self.uncut.push(token);
                    }
                }
            }
            Phase::Draining { deadline, .. } if deadline <= now => {
                let connections = self.core.slots.len();
                self.stop();
                let cut_off = self.cut_off;
                tracing::warn!(
                    connections,
                    cut_off,
                    "the drain took too long: cutting off what is left"
                );
            }
            Phase::Draining { patience, deadline } => {
                let out_of_patience = patience <= now;
                if out_of_patience {
                    self.phase = Phase::Draining { patience: deadline, deadline };
                }
                if brought.looked || out_of_patience {
                    self.cut_quiet(out_of_patience);
                }
            }
            _ => {}
        }
    }

    /// Whether the next wait shows that a connection can be cut.
    pub(super) fn is_about_to_cut(&self) -> bool {
        let slots = &self.core.slots;
        self.uncut.iter().any(|&token| slots.get(token).is_some_and(|slot| slot.receiving))
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Stopping) && self.core.slots.is_empty()
    }

    /// Cuts those of the uncut that were received from in this turn and had nothing to say, or all.
    fn cut_quiet(&mut self, all: bool) {
        for token in std::mem::take(&mut self.uncut) {
            let Some(slot) = self.core.slots.get_mut(token) else { continue };
            let heard = std::mem::take(&mut slot.heard);
            let may_have_more = !slot.receiving || heard;
            if may_have_more && slot.conn.state() == State::Open && !all {
                self.uncut.push(token);
            } else {
                self.cut(token);
            }
        }
    }

    /// From now on nothing is waited for on a connection.
    fn cut(&mut self, token: Token) {
        if let Some(slot) = self.core.slots.get_mut(token) {
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
            self.cut_off += usize::from(self.is_cut_off(token));
            // What has been sent already, and only waits for the peer to finish, is not spoilt.
            let reset = self.core.slots[token].conn.state() != State::Lingering;
            self.core.fail(token, CloseReason::Stopped, reset);
        }
    }

    /// Whether a stop takes something from the peer: see the head of this file.
    fn is_cut_off(&self, token: Token) -> bool {
        let slot = &self.core.slots[token];
        let (state, inbound) = (slot.conn.state(), &slot.conn.inbound);
        if state.sends() && !slot.conn.outbound.is_empty() {
            return true;
        }
        // What is kept and not held is the start of a frame, unless its end is the frame's.
        let may_be_complete = inbound.held || state == State::HalfClosed;
        may_be_complete
            && state.handles()
            && !inbound.is_empty()
            && self
                .services
                .get(slot.service as usize)
                .is_some_and(|service| service.holds_frame(&self.core, token))
    }

    /// How many connections were cut off when the server stopped.
    pub(crate) const fn cut_off(&self) -> usize {
        self.cut_off
    }
}
