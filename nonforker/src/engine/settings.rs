//! Limits that change while the server runs.
//!
//! ```text
//!  any thread: set_limits ──▶ checked ──▶ posted ── the driver is woken ──▶ followed by the shard
//! ```
//!
//! The thread that sets them is told what is wrong with them, so the shard only gets what it can
//! follow. Connections get the new [`Rules`] in the turn in which the shard sees them, and their
//! deadlines with them: what a changed limit means for a connection is decided here.

use std::{
    mem,
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use super::{
    core::Core, drain::Phase, mail::mail_bytes_max, rules::Rules, shard::Shard, slot::Slot,
};
use crate::{
    config::Limits,
    conn::{deadlines::Kind, state::State},
    error::Result,
    service_limits::AllLimits,
};

/// The limits that were set from outside.
#[derive(Debug)]
pub(super) struct Settings {
    /// Those of the start.
    began: AllLimits,
    /// Some are posted.
    is_new: AtomicBool,
    posted: Mutex<Option<AllLimits>>,
}

impl Settings {
    pub(super) const fn new(began: AllLimits) -> Self {
        Self { began, is_new: AtomicBool::new(false), posted: Mutex::new(None) }
    }

    /// Posts new limits of the server, if they can be followed. Those of its services stay.
    pub(super) fn post(&self, mut server: Limits) -> Result<()> {
        server.fill_in();
        server.check_against_start(&self.began.server)?;
        let limits = AllLimits { server, ..self.began.clone() };
        limits.check()?;
        *self.posted.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
        self.is_new.store(true, Release);
        Ok(())
    }

    /// What was posted last.
    pub(super) fn take(&self) -> Option<AllLimits> {
        let is_new = self.is_new.swap(false, Acquire);
        is_new.then(|| self.posted.lock().unwrap_or_else(PoisonError::into_inner).take())?
    }
}

impl<S> Shard<S> {
    /// Follows limits that were set, if any were.
    pub(super) fn follow_settings(&mut self) {
        let Some(limits) = self.core.shared.take_limits() else { return };
        tracing::info!("the limits have changed");
        let Self { core, table, acceptor, .. } = self;
        let rules = Rules::of_all(&limits, &core.counters.services);
        for (desk, rules) in core.desks.iter_mut().zip(rules) {
            desk.rules = rules;
        }
        let (budget, _) = limits.server.budget();
        core.memory.set_budget(budget);
        core.pool.set_budget(budget);
        acceptor.set_connections_max(limits.server.connections());
        core.mail.set_max(limits.server.remote_max, mail_bytes_max(budget, core.group.shards()));
        core.tickets.set_max(limits.server.tickets_max);
        let ages_anew = core.limits.max_age != limits.server.max_age;
        core.limits = limits.server;
        for token in table.tokens() {
            if let Some(slot) = table.get_mut(token) {
                core.follow_rules(slot);
            }
        }
        acceptor.unused.forget();
        acceptor.count_addresses(table, &core.group);
        if ages_anew && self.core.phase == Phase::Serving {
            self.age_anew();
        }
    }
}

impl Core {
    /// Gives a connection the present rules of its service. A timeout that is another one now counts
    /// from this moment on.
    fn follow_rules(&mut self, slot: &mut Slot) {
        let rules = Rc::clone(&self.desks[slot.service() as usize].rules);
        let idle_timeout = slot.idle_timeout();
        let old = mem::replace(&mut slot.rules, rules);
        if !slot.has_opened() || !slot.is_open() {
            return;
        }
        if slot.idle_timeout() != idle_timeout {
            self.await_activity(slot);
        }
        let (waits_for_frame, is_unused) = (slot.waits_for_frame(), slot.is_unused());
        let has_queued = slot.conn.outbound().queued() > 0;
        let new = slot.rules();
        for (kind, before, timeout, waits) in [
            (Kind::Frame, old.frame_timeout, new.frame_timeout, waits_for_frame),
            (Kind::Unused, old.unused_timeout, new.unused_timeout, is_unused),
            (Kind::Write, old.write_timeout, new.write_timeout, has_queued),
        ] {
            match timeout {
                _ if before == timeout => {}
                Some(_) if kind == Kind::Write && waits => self.await_sent(slot),
                Some(timeout) if waits => self.arm(slot, kind, timeout),
                Some(_) => {}
                None => slot.conn.deadlines().clear(kind),
            }
        }
        if old.answer_timeout != slot.rules().answer_timeout && slot.conn.open_tickets() > 0 {
            let due = slot.rules().answer_timeout.map(|timeout| self.tick_after(timeout));
            slot.conn.set_answer_due(due);
            if let Some(due) = due
                && slot.conn.deadline(Kind::User).is_none_or(|first| first > due)
            {
                self.arm_at(slot, Kind::User, due);
            }
        }
        if slot.is_relieved() && slot.conn.state().handles() {
            self.mark_runnable(slot);
        }
    }
}

impl Slot {
    /// Whether the start of a frame is here, and the rest of it is waited for.
    fn waits_for_frame(&self) -> bool {
        let is_waiting = self.conn.bars().is_none() && !self.conn.kept().is_empty();
        is_waiting && self.conn.state() == State::Open
    }
}
