//! The tickets of all connections: how many there are, what an answer does, and who waits for one.
//!
//! ```text
//!  defer ──▶ open ──┬── a letter with an answer ──▶ answered: the connection goes on
//!                   ├── a letter without one    ──▶ closed: Unanswered
//!                   ├── its time has come       ──▶ closed: AnswerTimeout
//!                   └── the connection ends     ──▶ gone
//! ```
//!
//! While as many are open as there may be, connections of services that defer handle no more frames:
//! each waits in a list as soon as bytes of it arrive, and goes on in the order of the list.
//!
//! Tickets of all shards are counted together, in the [group](super::group). A shard looks there when
//! it opens or ends one, and while clients of it wait. Between that it may believe too long that there
//! are some: then it opens one too many, and knows. Or that there are none: then clients wait a turn.

use std::{any::Any, collections::VecDeque, mem, sync::Arc, time::Duration};

use super::{
    core::Core, group::Group, mail::discard, service::Scope, shard::Shard, slot::Slot, table::Table,
};
use crate::{
    conn::{
        bars::Bars,
        deadlines::{Kind, Tick},
        tickets::{Fate, TicketId},
    },
    driver::Token,
    error::CloseReason,
};

/// When to look again if answers may be among mail that is not read yet.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What answers a ticket, its types erased.
pub(crate) trait Answer: Send {
    /// Gives the answer with the service's handler. It does not panic.
    fn give(self: Box<Self>, handler: &mut dyn Any, scope: Scope<'_>);
}

/// An answer on its way, or the news that there is none.
pub(crate) struct Answered {
    pub(crate) token: Token,
    pub(crate) id: TicketId,
    /// Held until the answer is given, so that a lost ticket can be told from one on its way.
    pub(crate) fate: Arc<Fate>,
    pub(crate) answer: Option<Box<dyn Answer>>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct TicketOffice {
    /// How many were ever taken: the id of the last.
    taken: TicketId,
    open: usize,
    max: usize,
    /// Where those of all shards are counted, if there are others.
    all: Option<Arc<Group>>,
    /// No more may be taken.
    are_out: bool,
    /// Connections whose frames wait for that to change.
    waiting: VecDeque<Token>,
}

impl TicketOffice {
    pub(super) fn new(max: usize, group: &Arc<Group>) -> Self {
        let all = (!group.is_alone()).then(|| Arc::clone(group));
        Self { taken: 0, open: 0, max, all, are_out: false, waiting: VecDeque::new() }
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.count(self.open);
    }

    fn count(&mut self, open: usize) {
        let before = mem::replace(&mut self.open, open);
        let all = self.all.as_ref().map(|group| group.count_tickets(before, open, self.max));
        self.are_out = all.unwrap_or(open) >= self.max;
    }

    /// How many more may be opened. Looks anew at what other shards have.
    fn free(&mut self) -> usize {
        let open = self.all.as_ref().map_or(self.open, |group| group.open_tickets());
        self.are_out = open >= self.max;
        self.max.saturating_sub(open)
    }

    /// How many are open in this shard.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Whether frames of services that defer have to wait.
    #[inline]
    pub(super) const fn are_out(&self) -> bool {
        self.are_out
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is wrong between two turns, if anything is.
    pub(super) fn unsound(&self, table: &Table, goes_on: bool) -> Option<String> {
        let mut open = 0;
        for slot in table.slots() {
            open += slot.conn.open_tickets();
            if slot.conn.bars().has(Bars::TICKETLESS) && !self.waiting.contains(&slot.token()) {
                return Some("a connection waits for tickets, and is not in the list".to_owned());
            }
        }
        if open != self.open {
            return Some(format!("{open} tickets are open, not {}", self.open));
        }
        let forgotten = self.has_waiting() && !self.are_out && !goes_on;
        forgotten.then(|| "there are tickets again, and nobody who waits goes on".to_owned())
    }
}

impl Drop for TicketOffice {
    /// The shard ends. What it had open is open no more, however it ends.
    fn drop(&mut self) {
        self.count(0);
    }
}

impl Core {
    /// Opens a ticket of a connection. Nothing if the connection closes.
    pub(crate) fn defer(
        &mut self,
        slot: &mut Slot,
        in_order: bool,
    ) -> Option<(TicketId, Arc<Fate>)> {
        let due = slot.rules().answer_timeout.map(|timeout| self.tick_after(timeout));
        let id = self.tickets.taken + 1;
        let fate = slot.conn.defer(id, due, in_order)?;
        self.tickets.taken = id;
        self.tickets.count(self.tickets.open + 1);
        slot.counters().tickets.add(1);
        self.desks[slot.service() as usize].defers = true;
        if let Some(due) = due
            && slot.conn.deadline(Kind::User).is_none_or(|first| first > due)
        {
            self.arm_at(slot, Kind::User, due);
        }
        self.mark_dirty(slot);
        Some((id, fate))
    }

    /// The next time at which a timer of the handler is due, or an answer is late.
    pub(crate) fn arm_user(&mut self, slot: &mut Slot, timer: Option<Tick>) {
        match timer.into_iter().chain(slot.conn.answer_due()).min() {
            Some(at) if slot.conn.state().handles() => self.arm_at(slot, Kind::User, at),
            _ => slot.conn.deadlines().clear(Kind::User),
        }
    }

    fn ended(&mut self, slot: &Slot, tickets: usize) {
        self.tickets.count(self.tickets.open.saturating_sub(tickets));
        slot.counters().tickets_ended.add(tickets);
    }

    /// The connection ends, and with it its tickets.
    pub(super) fn drop_tickets(&mut self, slot: &mut Slot) {
        let tickets = slot.conn.drop_tickets();
        self.ended(slot, tickets);
    }

    /// A ticket was answered: the connection goes on, if nothing else holds it up.
    fn goes_on(&mut self, slot: &mut Slot) {
        if let Some(reason) = slot.conn.settle_tickets() {
            self.close(slot, reason);
        }
        self.is_active(slot);
        self.mark_dirty(slot);
        if slot.conn.state().handles() && !slot.conn.bars().has(Bars::DEFERRED) {
            self.mark_runnable(slot);
        }
    }

    /// Has the frames of a connection wait if it may take tickets and there are none. Returns whether
    /// that is so.
    #[cold]
    pub(super) fn wait_for_tickets(&mut self, slot: &mut Slot) -> bool {
        let may_need_one =
            self.desks[slot.service() as usize].defers && slot.conn.state().handles();
        if !may_need_one || slot.conn.bars().has(Bars::TICKETLESS) {
            return false;
        }
        slot.conn.wait_for_tickets(true);
        self.tickets.waiting.push_back(slot.token());
        self.mark_dirty(slot);
        true
    }
}

impl<S> Shard<S> {
    /// Gives an answer to the connection that waits for it.
    pub(super) fn answer(&mut self, Answered { token, id, fate, answer }: Answered) {
        let Self { core, table, services, .. } = self;
        let found = table.take(token);
        let Some(mut entry) = found else { return self.discard_answer(answer) };
        if !entry.slot.conn.begin_answer(id) {
            table.put_back(entry);
            return self.discard_answer(answer);
        }
        core.ended(&entry.slot, 1);
        match (answer, services.get_mut(entry.slot.service() as usize)) {
            (Some(answer), Some(service)) => {
                answer.give(service.handler(), Scope { core, table, entry: &mut entry });
            }
            _ => core.close(&mut entry.slot, CloseReason::Unanswered),
        }
        drop(fate);
        core.goes_on(&mut entry.slot);
        table.put_back(entry);
    }

    /// The connection is gone. What its answer holds is the user's.
    fn discard_answer(&mut self, answer: Option<Box<dyn Answer>>) {
        if let Some(payload) = discard(answer) {
            tracing::error!("an answer panicked as it was dropped");
            // A panic may hold anything.
            discard(payload);
        }
    }

    /// A ticket may be due: then its connection closes, unless the answer may be in the mail.
    pub(super) fn judge_tickets(&mut self, token: Token, now: Tick) {
        let Self { core, table, .. } = self;
        let Some(slot) = table.get_mut(token) else { return };
        if slot.conn.is_answer_late(now) {
            if core.mail.is_left() {
                let at = core.tick_after(LOOK_AGAIN);
                slot.conn.put_off_answers(now, at);
            } else {
                core.close(slot, CloseReason::AnswerTimeout);
            }
        }
    }

    /// Lets connections go on that wait for tickets, as many as there are tickets for.
    pub(super) fn go_on_with_tickets(&mut self) {
        let Self { core, table, .. } = self;
        loop {
            let mut free = core.tickets.free();
            while free > 0
                && let Some(token) = core.tickets.waiting.pop_front()
            {
                let Some(slot) = table.get_mut(token) else { continue };
                slot.conn.wait_for_tickets(false);
                core.is_active(slot);
                core.mark_runnable(slot);
                free -= 1;
            }
            if core.alone {
                break;
            }
            core.group.set_lacks_tickets(core.shard, core.tickets.has_waiting());
            // Another shard may have ended one before it could see that somebody waits.
            if !core.tickets.has_waiting() || free > 0 || core.tickets.free() == 0 {
                break;
            }
        }
        // Those that closed meanwhile are still in the list.
        if core.tickets.waiting.len() > 2 * table.len() {
            core.tickets.waiting.retain(|&token| table.contains(token));
        }
    }
}
