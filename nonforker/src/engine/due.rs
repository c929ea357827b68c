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
//!   that takes, and the end of the stream if it is behind them. What arrives after the question does
//!   not count, so a peer that trickles does not move its deadline.
//! - What has the peer's kernel not acknowledged? If that is less than when it was last asked, the
//!   peer goes on taking, however coarse the steps are in which ours has room again.

use std::time::Duration;

use super::{Engine, core::Core, shard::Shard, slot::Slot};
use crate::{
    conn::{deadlines::Kind, state::Event},
    driver::{Driver, Token},
    error::CloseReason,
    tls::TlsError,
};

/// When to look again for what has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl<D: Driver> Engine<D> {
    /// Handles what is due: on connections, for services, and in the log.
    pub(super) fn run_timers(&mut self) {
        let shard = &mut self.shard;
        shard.settle_young();
        let (now, judged) = (shard.core.tick(), shard.core.judged());
        shard.core.throttles.tell(now);
        shard.run_timers_of_services();
        shard.run_ages();
        while let Some(token) = self.shard.core.timers.pop(judged) {
            let Some(slot) = self.shard.table.get_mut(token) else { continue };
            slot.scheduled.fired();
            while let Some(kind) =
                self.shard.table.get_mut(token).and_then(|slot| slot.conn.deadlines().due(judged))
            {
                if kind == Kind::User {
                    self.shard.judge_tickets(token, judged);
                    self.shard.call(token, |service, scope| service.timers(scope));
                } else {
                    self.due(token, kind);
                }
            }
            let Shard { core, table, .. } = &mut self.shard;
            let Some(slot) = table.get_mut(token) else { continue };
            match slot.conn.earliest() {
                // What was set just now need not be what is due first.
                Some(at) if slot.scheduled.is_young() => {
                    core.timers.note(token, &mut slot.scheduled, at);
                }
                at => core.timers.enter(token, &mut slot.scheduled, at),
            }
        }
        // Find out anew what is due first.
        self.shard.core.timers_moved = true;
    }

    /// A deadline of the peer is due.
    fn due(&mut self, token: Token, kind: Kind) {
        let Self { driver, shard: Shard { core, table, .. } } = self;
        let Some(slot) = table.get_mut(token) else { return };
        if slot.is_unknown_to_drivers() {
            return core.connecting_is_due(slot, kind);
        }
        let rules = slot.rules();
        let (frame, idle, unused) =
            (rules.frame_timeout, slot.idle_timeout(), rules.unused_timeout);
        match kind {
            Kind::Retry => {
                core.mark_dirty(slot);
                core.arm_if(slot, Kind::Idle, idle);
            }
            // Its rest may be waiting for us in the kernel.
            Kind::Frame if !slot.receives() => core.arm_if(slot, Kind::Frame, frame),
            Kind::Idle if slot.waits_for_us() => core.arm_if(slot, Kind::Idle, idle),
            Kind::Unused if slot.waits_for_us() => core.arm_if(slot, Kind::Unused, unused),
            Kind::Frame | Kind::Unused | Kind::Handshake if slot.is_owed(driver.unread(token)) => {
                core.arm(slot, kind, LOOK_AGAIN);
            }
            // It waits for us.
            Kind::Handshake if slot.conn.has_unread_records() => core.arm(slot, kind, LOOK_AGAIN),
            // Being delivered, they put the deadline off.
            Kind::Idle if has_unread(driver, slot) => core.arm(slot, kind, LOOK_AGAIN),
            Kind::Idle | Kind::Write if goes_on_taking(driver, slot, kind) => {
                core.arm_if(slot, Kind::Idle, idle);
                if slot.conn.outbound().queued() > 0 {
                    core.arm_if(slot, Kind::Write, slot.rules().write_timeout);
                }
            }
            Kind::Handshake if slot.conn.shakes() && slot.conn.is_encrypted() => {
                if !slot.has_opened() && !slot.is_outgoing() {
                    slot.counters().refused.add(1);
                }
                let error = TlsError::new("the handshake was not complete in time");
                core.fail(slot, CloseReason::Tls(error), true);
            }
            Kind::Handshake => {
                core.refuse_arriving(slot, &"it sent no complete PROXY header in time")
            }
            Kind::Frame => core.close(slot, CloseReason::FrameTimeout),
            Kind::Unused => core.close(slot, CloseReason::Unused),
            Kind::Idle => core.close(slot, CloseReason::IdleTimeout),
            Kind::Write => core.fail(slot, CloseReason::WriteTimeout, true),
            Kind::Linger | Kind::Quiet => linger_on(driver, core, slot, kind),
            Kind::Delay => core.mark_runnable(slot),
            // The service has its own.
            Kind::User => {}
        }
    }
}

/// Our side is shut down, and the peer has not finished.
fn linger_on<D: Driver>(driver: &D, core: &mut Core, slot: &mut Slot, kind: Kind) {
    let timeout = slot.rules().linger_timeout;
    if goes_on_taking(driver, slot, kind) {
        core.arm(slot, Kind::Linger, timeout);
        core.arm(slot, Kind::Quiet, timeout / 5);
    } else if kind == Kind::Quiet && slot.has_left_some() {
        // Whether it takes anything is judged by the longer deadline.
        core.arm(slot, Kind::Quiet, (timeout / 5).max(LOOK_AGAIN));
    } else if kind == Kind::Quiet && has_unread(driver, slot)
        || kind == Kind::Linger && slot.is_owed(driver.unread(slot.token()))
    {
        core.arm(slot, kind, LOOK_AGAIN);
    } else {
        slot.conn.apply(Event::Failed);
        core.mark_dirty(slot);
    }
}

/// Whether something has arrived that will be delivered.
fn has_unread<D: Driver>(driver: &D, slot: &Slot) -> bool {
    slot.receives() && driver.unread(slot.token()) > 0
}

/// Whether the peer's kernel has acknowledged anything since that was last asked. The first time, it
/// may have, if there is anything to acknowledge; a send that waits is reason enough.
fn goes_on_taking<D: Driver>(driver: &D, slot: &mut Slot, kind: Kind) -> bool {
    // Where nobody knows, it takes nothing.
    let left = driver.unacknowledged(slot.token()).unwrap_or(0);
    match slot.asked_unacknowledged(left) {
        Some(before) => left < before,
        None => left > 0 || kind == Kind::Write,
    }
}

impl<S> Shard<S> {
    /// Deadlines that have outlived a wait get an entry.
    fn settle_young(&mut self) {
        let Self { core, table, .. } = self;
        let young = core.timers.settle();
        for &token in &young {
            if let Some(slot) = table.get_mut(token) {
                core.timers.enter(token, &mut slot.scheduled, slot.conn.earliest());
            }
        }
        core.timers.settled(young);
    }

    /// Has the services run those of their own timers that are due.
    fn run_timers_of_services(&mut self) {
        let Self { core, table, services, .. } = self;
        for (id, service) in (0..).zip(services) {
            if core.desks[id as usize].due.is_some_and(|at| at <= core.judged()) {
                service.own_timers(core, table, id);
            }
        }
    }
}

impl Core {
    /// Sets a deadline if there is such a timeout. What is due at once is due a moment later.
    fn arm_if(&mut self, slot: &mut Slot, kind: Kind, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.arm(slot, kind, timeout.max(LOOK_AGAIN));
        }
    }
}
