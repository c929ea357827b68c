//! What holds between two turns, for every connection. A simulation checks it after each turn. And
//! whether anything is left to be done.
//!
//! Most of these say that nothing is forgotten: what could go on has been set going. A lost
//! wake-up shows here in the turn in which it is lost, not an hour later as a silent client.

use std::collections::HashMap;

use super::{
    Engine,
    connecting::Connecting,
    core::time_of,
    slot::{End, Slot},
};
use crate::{
    conn::{
        bars::Bars,
        deadlines::{Kind, Tick},
        state::{Incoming, Manner, State},
    },
    driver::{Driver, Token},
};

impl<D: Driver> Engine<D> {
    /// What is wrong with the engine's state between two turns, if anything is.
    pub(crate) fn unsound(&self) -> Option<String> {
        let (core, table) = (&self.shard.core, &self.shard.table);
        if !core.dirty.is_empty() || table.slots().any(Slot::is_dirty) {
            return Some("connections are dirty after the flush".to_owned());
        }
        if table.slots().count() != table.len() {
            return Some("a connection was taken out and not put back".to_owned());
        }
        let mut held = Vec::new();
        for slot in table.slots() {
            held.push(slot.holding());
            let wrong = self.unsound_slot(slot).or_else(|| self.unsound_deadlines(slot));
            let wrong = wrong.or_else(|| self.unsound_way(slot));
            if let Some(wrong) = wrong {
                return Some(format!("{wrong}: {:?}", slot.conn));
            }
        }
        if table.is_empty() && core.timers.earliest().is_some() {
            return Some("a deadline waits for a connection that is gone".to_owned());
        }
        if !self.shard.unusual && self.shard.is_unusual() {
            return Some("nobody will look at accepting, memory or the phase".to_owned());
        }
        let earliest = self.shard.earliest();
        let will_look = self.shard.unusual || core.timers_moved;
        if !will_look
            && earliest.is_some_and(|at| self.shard.due_at.is_none_or(|due| due > time_of(at)))
        {
            return Some("the server would sleep past a time at which something is due".to_owned());
        }
        let outgoing = table.slots().filter(|slot| slot.is_outgoing()).count();
        if outgoing != core.outgoing.count {
            return Some("connections that were asked for are not counted".to_owned());
        }
        let goes_on = self.shard.unusual || !core.runnable.is_empty();
        if let Some(wrong) = core.tickets.unsound(table, goes_on) {
            return Some(wrong);
        }
        let shaking = table.slots().filter(|slot| slot.conn.is_counted_as_shaking()).count();
        if shaking != core.handshakes.open() {
            let counted = core.handshakes.open();
            return Some(format!("{shaking} handshakes are under way, not {counted}"));
        }
        let mut subscriptions = 0;
        for desk in &core.desks {
            match desk.topics.unsound(table) {
                Ok(count) => subscriptions += count,
                Err(wrong) => return Some(wrong.to_owned()),
            }
        }
        if table.slots().map(|slot| slot.topics().len()).sum::<usize>() != subscriptions {
            return Some("a connection has subscribed to a topic that does not know it".to_owned());
        }
        if !core.ages.is_sound(table) {
            return Some("a connection that is gone has an age".to_owned());
        }
        if !self.shard.acceptor.is_sound(table) {
            return Some("connections of an address are not counted exactly".to_owned());
        }
        let starved = table.slots().filter(|slot| slot.is_starved()).count();
        core.memory.unsound(&held, starved)
    }

    /// What the shards have counted for all of them and what each of them has does not agree, if so.
    /// `self` is one of `engines`.
    pub(crate) fn unsound_group<'e>(
        &self,
        engines: impl Iterator<Item = &'e Self> + Clone,
    ) -> Option<String>
    where
        D: 'e,
    {
        let (group, core) = (&self.shard.core.group, &self.shard.core);
        let taken = core.desks.iter().enumerate().map(|(service, _)| {
            engines.clone().map(|engine| engine.shard.core.desks[service].taken).sum()
        });
        let mut per_ip = HashMap::new();
        for engine in engines.clone() {
            engine.shard.acceptor.add_addresses(&mut per_ip);
        }
        let held = engines.clone().map(|engine| engine.shard.core.memory.known()).sum();
        let tickets = engines.clone().map(|engine| engine.shard.core.tickets.open()).sum();
        let mut topics = 0;
        for core in engines.clone().map(|engine| &engine.shard.core) {
            if core.tickets.has_waiting() && !group.lacks_tickets(core.shard) {
                return Some("a shard waits for tickets, and nobody will wake it".to_owned());
            }
            for (service, desk) in (0..).zip(&core.desks) {
                for topic in desk.topics.names() {
                    topics += 1;
                    if !group.has_topic(core.shard, service, topic) {
                        return Some("other shards do not know a topic".to_owned());
                    }
                }
            }
        }
        if topics != group.topics_entered() {
            return Some("a topic without subscribers is known to other shards".to_owned());
        }
        let connections = engines
            .clone()
            .map(|engine| engine.shard.table.slots().filter(|slot| slot.has_place()).count());
        let connections = connections.sum::<usize>();
        if connections > self.shard.core.limits.connections() && !group.has_new_limits() {
            return Some(format!("there are {connections} connections in all shards"));
        }
        group.unsound(&taken.collect::<Vec<_>>(), &per_ip, held, tickets)
    }

    /// Whether mail waits that the shard has not read.
    pub(crate) fn has_mail(&self) -> bool {
        self.shard.core.mail.is_left() || self.shard.core.mail.mailbox.has_letters()
    }

    /// Whether the next thing that it does by itself is to call a handler's timer, to close a silent
    /// connection, or nothing.
    pub(crate) fn rests(&self) -> bool {
        let (shard, core) = (&self.shard, &self.shard.core);
        if !core.runnable.is_empty()
            || core.mail.is_left()
            || shard.is_about_to_cut()
            || shard.is_about_to_accept()
        {
            return false;
        }
        // Nothing is under way on a connection that only waits for its client to say something.
        let waits = |kind| matches!(kind, Kind::User | Kind::Idle | Kind::Unused);
        let of_slots = |wanted: bool| {
            let kinds = Kind::ALL.into_iter().filter(move |&kind| waits(kind) == wanted);
            shard
                .table
                .slots()
                .flat_map(move |slot| kinds.clone().filter_map(|kind| slot.conn.deadline(kind)))
        };
        let of_services = core.desks.iter().filter_map(|desk| desk.due);
        let timer = of_slots(true).chain(of_services).chain(core.ages.next()).min();
        let own = [shard.acceptor.look_at(), shard.core.phase.deadline(), core.memory.look_at];
        let others = own.into_iter().flatten().chain(of_slots(false));
        others.min().is_none_or(|first| timer.is_some_and(|timer| timer < first))
    }

    fn unsound_slot(&self, slot: &Slot) -> Option<&'static str> {
        let core = &self.shard.core;
        let conn = &slot.conn;
        let (state, bars) = (conn.state(), conn.bars());
        let queued = conn.outbound().queued() > 0;
        if let Some(wrong) = conn.unsound_tickets().or_else(|| conn.unsound_queue()) {
            return Some(wrong);
        }
        let idle = !conn.keeps_records()
            && conn.kept().is_empty()
            && !queued
            && conn.held() == 0
            && !conn.outbound().is_sending();
        let waits = core.runnable.contains(&slot.token());
        if let Some(wrong) = conn.unsound_records(waits, slot.is_outgoing()) {
            return Some(wrong);
        }
        // Nothing is sent in clear while the handshake is under way.
        let queued = queued && !conn.shakes();
        let withheld = slot.is_withheld(&core.memory);
        let is_told = conn.incoming() == Incoming::Told;
        let checks = [
            (conn.manner() == Manner::Illegal, "an event came that cannot come"),
            (slot.accounted() != conn.capacity(), "the memory account is not settled"),
            (idle && conn.capacity() > 0, "an idle connection holds a buffer"),
            (
                state == State::Arriving && conn.deadline(Kind::Handshake).is_none(),
                "a connection may arrive for ever",
            ),
            (!bars.agree_with(state), "the state and its bars do not agree"),
            (
                bars.has(Bars::HELD) && bars.is_at_most_held() && !waits,
                "held frames could be handled, and are forgotten",
            ),
            (conn.is_at_end() && !is_told && !waits, "the end of the stream is forgotten"),
            (slot.is_relieved() && state.handles() && !waits, "that pressure fell is forgotten"),
            (
                conn.wants_receive() && !slot.receives() && !withheld,
                "a connection that wants to receive does not",
            ),
            (!conn.wants_receive() && slot.receives(), "a connection receives that must not"),
            (withheld && slot.receives(), "a connection receives that holds too much"),
            (
                slot.is_starved() != (conn.wants_receive() && withheld),
                "who waits for memory is not counted",
            ),
            (
                queued
                    && state.sends()
                    && !conn.outbound().is_sending()
                    && conn.deadline(Kind::Retry).is_none(),
                "queued bytes are not being sent",
            ),
            (
                queued
                    && state.sends()
                    && conn.deadline(Kind::Write).is_none()
                    && slot.rules().write_timeout.is_some(),
                "queued bytes have no deadline",
            ),
            (
                matches!(state, State::Draining | State::Finishing) && conn.outbound().is_empty(),
                "everything is sent, and the close is forgotten",
            ),
            (state == State::Lingering && slot.end() != End::Told, "our side is not shut down"),
            (
                conn.finishes()
                    && conn.outbound().is_empty()
                    && !conn.expects_answers()
                    && slot.end() == End::No,
                "our side has finished, and is not shut down",
            ),
            (
                conn.finishes() && conn.incoming() == Incoming::Told && conn.open_tickets() == 0,
                "both sides have finished, and the connection stays",
            ),
            (state == State::Closing && slot.end() != End::Closing, "the close is forgotten"),
            (state == State::Closed, "a closed connection has a slot"),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }

    /// What is wrong with a connection that was asked for, or is relayed.
    fn unsound_way(&self, slot: &Slot) -> Option<&'static str> {
        let conn = &slot.conn;
        let connects = conn.state() == State::Connecting;
        let checks = [
            (
                connects && conn.deadline(Kind::Handshake).is_none(),
                "a connection may be made for ever",
            ),
            (
                connects
                    && conn.deadline(Kind::Retry).is_none()
                    && slot.connecting().is_none_or(Connecting::is_stuck),
                "a connection that is to be made is forgotten",
            ),
            (
                slot.relay().is_some_and(|other| self.forgets_relay(slot, other)),
                "a relayed connection could go on, and is forgotten",
            ),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }

    /// Whether a relayed connection has something for the other, or could be received from again, and
    /// nothing sees to it.
    fn forgets_relay(&self, slot: &Slot, other: Token) -> bool {
        let (core, table) = (&self.shard.core, &self.shard.table);
        let Some(other) = table.get(other) else { return true };
        let goes_on = [slot, other].iter().any(|one| core.runnable.contains(&one.token()));
        if goes_on || !slot.conn.state().handles() || !other.conn.state().handles() {
            return false;
        }
        let (bars, conn) = (slot.conn.bars(), &slot.conn);
        if let Some(way) = slot.impaired() {
            let waits = way.has_stalled()
                || other.conn.bars().has(Bars::PRESSURED)
                || conn.deadline(Kind::Delay).is_some();
            let has_some = !conn.kept().is_empty() || bars.has(Bars::BLOCKED);
            return !waits && (has_some || conn.has_passed_all_on() && !other.conn.finishes());
        }
        let blocked_for_nothing =
            bars.has(Bars::BLOCKED) && !other.conn.bars().has(Bars::PRESSURED);
        let end_forgotten = conn.has_passed_all_on() && !other.conn.finishes();
        !conn.kept().is_empty() || blocked_for_nothing || end_forgotten
    }

    fn unsound_deadlines(&self, slot: &Slot) -> Option<&'static str> {
        let timers = &self.shard.core.timers;
        let first = timers.earliest();
        let earliest = slot.conn.earliest();
        let checks = [
            (
                slot.end() == End::Closing && earliest.is_some(),
                "a connection that closes has a deadline",
            ),
            (
                slot.conn.answer_due().is_some_and(|due| {
                    slot.conn.deadline(Kind::User).is_none_or(|first| first > due)
                }),
                "a ticket is not looked at when it is due",
            ),
            (
                earliest.is_some_and(|at| !slot.scheduled.is_by(at)),
                "a deadline is not in the timers",
            ),
            (
                earliest.is_some_and(|at| at < Tick::MAX && first.is_none_or(|first| first > at)),
                "the server would sleep past a deadline",
            ),
            (
                slot.scheduled.is_young() && !timers.has_young(slot.token()),
                "a young deadline is forgotten",
            ),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}
