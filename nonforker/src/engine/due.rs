//! What follows when a deadline is due.
//!
//! ```text
//!  due ──▶ looked since? ──▶ is it our turn? ──▶ has something arrived, or left? ──▶ judged
//!            │ no               │ yes               │ yes
//!            ▼                  ▼                   ▼
//!          the next turn      a deadline anew     1 ms later, or a deadline anew
//! ```
//!
//! Deadlines measure the peer and not us. The process may have been away for longer than any of
//! them: stopped, suspended, or in a handler. So a deadline is judged only after a look that began
//! when it was due already and was delivered completely: [`Core::looked`]. And two questions go to
//! the kernel before a connection is closed:
//!
//! - What has arrived and is not delivered? So many bytes are delivered first, however many turns
//!   that takes. What arrives after the question does not count, so a peer that trickles does not
//!   move its deadline.
//! - What has the peer's kernel not acknowledged? If that is less than when it was last asked, the
//!   peer goes on taking, however coarse the steps are in which ours has room again.

use std::time::Duration;

use super::{
    Engine,
    core::{Core, NOT_ASKED},
};
use crate::{
    conn::{deadlines::Kind, state::Event},
    driver::{Driver, Token},
    error::CloseReason,
};

/// When to look again for what has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl<D: Driver> Engine<D> {
    /// Handles what is due on the connections whose time has come.
    pub(super) fn run_timers(&mut self) {
        self.core.settle_young();
        let judged = self.core.judged();
        while let Some(token) = self.core.timers.pop(judged) {
            let Some(slot) = self.core.slots.get_mut(token) else { continue };
            slot.scheduled.fired();
            while let Some(kind) =
                self.core.slots.get_mut(token).and_then(|slot| slot.conn.deadlines.due(judged))
            {
                self.due(token, kind);
            }
            let Core { slots, timers, .. } = &mut self.core;
            let Some(slot) = slots.get_mut(token) else { continue };
            match slot.conn.deadlines.earliest() {
                // What was set just now need not be what is due first.
                Some(at) if slot.scheduled.is_young() => {
                    timers.note(token, &mut slot.scheduled, at);
                }
                at => timers.enter(token, &mut slot.scheduled, at),
            }
        }
    }

    fn due(&mut self, token: Token, kind: Kind) {
        let limits = &self.core.limits;
        let (frame, idle, unused) =
            (limits.frame_timeout, limits.idle_timeout, limits.unused_timeout);
        match kind {
            Kind::Retry => {
                self.core.mark_dirty(token);
                self.core.arm_if(token, Kind::Idle, idle);
            }
            Kind::User => self.core.call_timer(&mut self.services, token),
            // Its rest may be waiting for us in the kernel.
            Kind::Frame if !self.core.slots[token].receiving => {
                self.core.arm_if(token, Kind::Frame, frame);
            }
            Kind::Idle if self.core.slots[token].waits_for_us() => {
                self.core.arm_if(token, Kind::Idle, idle);
            }
            Kind::Unused if self.core.slots[token].waits_for_us() => {
                self.core.arm_if(token, Kind::Unused, unused);
            }
            Kind::Frame | Kind::Unused if self.is_owed(token) => {
                self.core.arm(token, kind, LOOK_AGAIN);
            }
            // Being delivered, they put the deadline off.
            Kind::Idle if self.has_unread(token) => self.core.arm(token, kind, LOOK_AGAIN),
            Kind::Idle | Kind::Write if self.goes_on_taking(token, kind) => {
                self.core.arm_if(token, Kind::Idle, idle);
                self.core.await_more_sent(token);
            }
            Kind::Frame => self.core.close(token, CloseReason::FrameTimeout),
            Kind::Unused => self.core.close(token, CloseReason::Unused),
            Kind::Idle => self.core.close(token, CloseReason::IdleTimeout),
            Kind::Write => self.core.fail(token, CloseReason::WriteTimeout, true),
            Kind::Linger | Kind::Quiet => self.linger_on(token, kind),
        }
    }

    /// Our side is shut down, and the peer has not finished.
    fn linger_on(&mut self, token: Token, kind: Kind) {
        let timeout = self.core.limits.linger_timeout;
        let takes = self.goes_on_taking(token, kind);
        let slot = &self.core.slots[token];
        if takes {
            self.core.arm(token, Kind::Linger, timeout);
            self.core.arm(token, Kind::Quiet, timeout / 5);
        } else if kind == Kind::Quiet && slot.has_left_some() {
            // Whether it takes anything is judged by the longer deadline.
            self.core.arm(token, Kind::Quiet, (timeout / 5).max(LOOK_AGAIN));
        } else if kind == Kind::Quiet && self.has_unread(token)
            || kind == Kind::Linger && self.is_owed(token)
        {
            self.core.arm(token, kind, LOOK_AGAIN);
        } else if let Some(slot) = self.core.slots.get_mut(token) {
            slot.conn.apply(Event::Failed);
            self.core.mark_dirty(token);
        }
    }

    /// Whether something has arrived that will be delivered.
    fn has_unread(&self, token: Token) -> bool {
        self.core.slots[token].receiving && self.driver.unread(token) > 0
    }

    /// Whether some of what had arrived when a deadline was first due is not delivered yet.
    fn is_owed(&mut self, token: Token) -> bool {
        let unread = saturate(self.driver.unread(token));
        let slot = &mut self.core.slots[token];
        if slot.owed == NOT_ASKED {
            slot.owed = unread;
        }
        slot.receiving && slot.owed.min(unread) > 0
    }

    /// Whether the peer's kernel has acknowledged anything since that was last asked. The first
    /// time, it may have, if there is anything to acknowledge; a send that waits is reason enough.
    fn goes_on_taking(&mut self, token: Token, kind: Kind) -> bool {
        // Where nobody knows, it takes nothing.
        let left = self.driver.unacknowledged(token).map_or(0, saturate);
        let before = std::mem::replace(&mut self.core.slots[token].unacknowledged, left);
        if before == NOT_ASKED { left > 0 || kind == Kind::Write } else { left < before }
    }
}

impl Core {
    /// Deadlines that have outlived a wait get an entry.
    fn settle_young(&mut self) {
        let young = self.timers.settle();
        for &token in &young {
            if let Some(slot) = self.slots.get_mut(token) {
                self.timers.enter(token, &mut slot.scheduled, slot.conn.deadlines.earliest());
            }
        }
        self.timers.settled(young);
    }

    /// Sets a deadline if there is such a timeout. What is due at once is due a moment later.
    fn arm_if(&mut self, token: Token, kind: Kind, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.arm(token, kind, timeout.max(LOOK_AGAIN));
        }
    }

    /// The peer goes on taking, so a send that is in flight has its time anew.
    fn await_more_sent(&mut self, token: Token) {
        if self.slots[token].conn.outbound.queued() > 0 {
            self.arm_if(token, Kind::Write, self.limits.write_timeout);
        }
    }
}

impl super::core::Slot {
    /// Whether it is our turn: the peer can do nothing until we receive from it.
    fn waits_for_us(&self) -> bool {
        let conn = &self.conn;
        conn.paused || self.starved || conn.inbound.held && !conn.outbound.is_pressured()
    }

    /// Whether the peer had not taken all when that was last asked.
    const fn has_left_some(&self) -> bool {
        self.unacknowledged != NOT_ASKED && self.unacknowledged > 0
    }
}

/// In the width in which it is remembered.
fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(NOT_ASKED - 1)
}
