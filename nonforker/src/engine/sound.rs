//! What holds between two turns, for every connection. A simulation checks it after each turn. And
//! whether anything is left to be done.
//!
//! Most of these say that nothing is forgotten: what could go on has been set going. A lost
//! wake-up shows here in the turn in which it is lost, not an hour later as a silent client.

use super::{Engine, core::Slot};
use crate::{
    conn::{
        deadlines::{Kind, Tick},
        state::State,
    },
    driver::{Driver, Token},
};

impl<D: Driver> Engine<D> {
    /// What is wrong with the engine's state between two turns, if anything is.
    pub(crate) fn unsound(&self) -> Option<String> {
        let core = &self.core;
        if !core.dirty.is_empty() {
            return Some("connections are dirty after the flush".to_owned());
        }
        let mut held = Vec::new();
        for (token, slot) in &core.slots {
            held.push((token, slot.accounted, slot.closing));
            if let Some(wrong) = self.unsound_slot(token, slot) {
                return Some(format!("{wrong}: {:?}", slot.conn));
            }
        }
        if core.slots.is_empty() && core.timers.earliest().is_some() {
            return Some("a deadline waits for a connection that is gone".to_owned());
        }
        let starved = core.slots.values().filter(|slot| slot.starved).count();
        core.memory.unsound(&held, starved)
    }

    /// Whether the next thing that it does by itself is to call a handler's timer, to close a silent
    /// connection, or nothing.
    pub(crate) fn rests(&self) -> bool {
        let core = &self.core;
        if !core.runnable.is_empty() || self.is_about_to_cut() || self.is_about_to_accept() {
            return false;
        }
        // Nothing is under way on a connection that only waits for its client to say something.
        let waits = |kind| matches!(kind, Kind::User | Kind::Idle | Kind::Unused);
        let of_slots = |wanted: bool| {
            let slots = core.slots.values();
            let kinds = Kind::ALL.into_iter().filter(move |&kind| waits(kind) == wanted);
            slots.flat_map(move |slot| {
                kinds.clone().filter_map(|kind| slot.conn.deadlines.get(kind))
            })
        };
        let timer = of_slots(true).min();
        let own = [self.acceptor.look_at(), self.phase.deadline(), core.memory.look_at];
        let others = own.into_iter().flatten().chain(of_slots(false));
        others.min().is_none_or(|first| timer.is_some_and(|timer| timer < first))
    }

    fn unsound_slot(&self, token: Token, slot: &Slot) -> Option<&'static str> {
        let conn = &slot.conn;
        let state = conn.state();
        let queued = conn.outbound.queued() > 0;
        let idle = conn.inbound.is_empty() && !queued && !conn.outbound.is_sending();
        let waits = self.core.runnable.contains(&token);
        let withheld = self.core.memory.withholds(slot.accounted);
        let checks = [
            (conn.is_illegal(), "an event came that cannot come"),
            (slot.accounted != conn.capacity(), "the memory account is not settled"),
            (idle && conn.capacity() > 0, "an idle connection holds a buffer"),
            (
                conn.inbound.held && conn.may_handle() && !waits,
                "held frames could be handled, and are forgotten",
            ),
            (
                conn.is_at_end() && (conn.cut || !slot.told_end) && !waits,
                "the end of the stream is forgotten",
            ),
            (slot.relieved && !waits, "that pressure fell is forgotten"),
            (
                conn.wants_receive() && !slot.receiving && !withheld && !conn.inbound.ended,
                "a connection that wants to receive does not",
            ),
            (!conn.wants_receive() && slot.receiving, "a connection receives that must not"),
            (withheld && slot.receiving, "a connection receives that holds too much"),
            (
                slot.starved != (conn.wants_receive() && withheld),
                "who waits for memory is not counted",
            ),
            (
                queued
                    && state.sends()
                    && !conn.outbound.is_sending()
                    && conn.deadlines.get(Kind::Retry).is_none(),
                "queued bytes are not being sent",
            ),
            (
                queued
                    && state.sends()
                    && conn.deadlines.get(Kind::Write).is_none()
                    && self.core.limits.write_timeout.is_some(),
                "queued bytes have no deadline",
            ),
            (
                matches!(state, State::Draining | State::Finishing) && conn.outbound.is_empty(),
                "everything is sent, and the close is forgotten",
            ),
            (state == State::Lingering && !slot.shut, "our side is not shut down"),
            (state == State::Closing && !slot.closing, "the close is forgotten"),
            (state == State::Closed, "a closed connection has a slot"),
        ];
        let wrong = checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what));
        wrong.or_else(|| self.unsound_deadlines(token, slot))
    }

    fn unsound_deadlines(&self, token: Token, slot: &Slot) -> Option<&'static str> {
        let first = self.core.timers.earliest();
        let earliest = slot.conn.deadlines.earliest();
        let checks = [
            (
                earliest.is_some_and(|at| !slot.scheduled.is_by(at)),
                "a deadline is not in the timers",
            ),
            (
                earliest.is_some_and(|at| at < Tick::MAX && first.is_none_or(|first| first > at)),
                "the server would sleep past a deadline",
            ),
            (
                slot.scheduled.is_young() && !self.core.timers.has_young(token),
                "a young deadline is forgotten",
            ),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}
