//! What a connection has yet to answer, and the bytes that wait behind the answers.
//!
//! ```text
//!  queue │ ticket 1 │ bytes behind it │ ticket 2 │ bytes behind it
//!        ▲
//!        └── an answer goes before the place of its ticket, and takes the bytes behind it along
//! ```
//!
//! A reply that is sent while tickets are open goes behind the last of them. While a ticket is
//! answered, replies go where the ticket was: to the queue if it was the first, behind the ticket
//! before it if not. A ticket that is taken in an answer takes the place of that answer.
//!
//! Invariants:
//!
//! - A connection has [`Tickets`] while one is open or is being answered, and [`Bars::PENDING`] then.
//! - [`Bars::DEFERRED`] is set while a ticket with a place is open, while there are as many without as
//!   there may be, and while a close waits for answers.
//! - [`Fate`] has one owner more than there are open tickets: each of them is somewhere.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{
    Connection, Rare,
    bars::Bars,
    deadlines::Tick,
    output::{Origin, Output},
    state::State,
};
use crate::error::CloseReason;

/// Names a ticket for as long as the server runs.
pub(crate) type TicketId = u64;

/// How many tickets without a place a connection may have before its frames wait.
pub(crate) const LOOSE_MAX: usize = 128;

/// Whether the connection of a ticket can still be answered, for the thread that has the ticket.
#[derive(Debug, Default)]
pub(crate) struct Fate(AtomicBool);

impl Fate {
    pub(crate) fn is_gone(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// An open ticket.
#[derive(Debug)]
struct Open {
    id: TicketId,
    /// When it is too late for an answer, if ever.
    due: Option<Tick>,
    /// Our side had finished when it was taken: what its answer sends is dropped.
    mute: bool,
}

/// An open ticket and what waits behind it.
#[derive(Debug)]
struct Place {
    open: Open,
    behind: Vec<u8>,
}

/// A ticket that is being answered.
#[derive(Debug)]
struct Answering {
    /// What waited behind it.
    behind: Vec<u8>,
    mute: bool,
    /// It had no place: what it sends goes to the queue.
    loose: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    fate: Arc<Fate>,
    /// In the order in which their answers leave.
    places: VecDeque<Place>,
    /// Those whose answers leave as they come.
    loose: Vec<Open>,
    /// Replies go before the place of this index.
    at: usize,
    answering: Option<Answering>,
    /// How many bytes wait.
    held: usize,
    /// No ticket is due before.
    due: Option<Tick>,
    /// The connection closes when all are answered.
    ends: Option<CloseReason>,
}

impl Tickets {
    fn open(&self) -> impl Iterator<Item = &Open> {
        self.places.iter().map(|place| &place.open).chain(&self.loose)
    }

    fn open_mut(&mut self) -> impl Iterator<Item = &mut Open> {
        self.places.iter_mut().map(|place| &mut place.open).chain(&mut self.loose)
    }

    /// Finds out when the first ticket is due.
    fn find_due(&mut self) {
        self.due = self.open().filter_map(|open| open.due).min();
    }

    fn count(&self) -> usize {
        self.places.len() + self.loose.len()
    }

    fn capacity(&self) -> usize {
        let own = self.answering.as_ref().map_or(0, |answering| answering.behind.capacity());
        own + self.places.iter().map(|place| place.behind.capacity()).sum::<usize>()
    }

    fn bars_frames(&self) -> bool {
        self.answering.is_some()
            || !self.places.is_empty()
            || self.loose.len() >= LOOSE_MAX
            || self.ends.is_some()
    }

    /// What is sent from now on is dropped, but for answers to tickets that are open.
    pub(super) fn finish(&mut self) {
        if let Some(answering) = &mut self.answering {
            answering.mute = true;
        }
    }
}

/// The tickets of a connection, if it has any.
#[inline]
fn tickets(rare: &Option<Box<Rare>>) -> Option<&Tickets> {
    rare.as_ref()?.tickets.as_deref()
}

fn tickets_mut(rare: &mut Option<Box<Rare>>) -> Option<&mut Tickets> {
    rare.as_mut()?.tickets.as_deref_mut()
}

impl Connection {
    /// Opens a ticket, with a place or without. Nothing if the connection closes.
    pub(crate) fn defer(
        &mut self,
        id: TicketId,
        due: Option<Tick>,
        in_order: bool,
    ) -> Option<Arc<Fate>> {
        let closes = tickets(&self.rare).is_some_and(|tickets| tickets.ends.is_some());
        if !self.state.handles() || closes {
            return None;
        }
        let open = Open { id, due, mute: self.bars.has(Bars::MUTE) };
        let tickets = self.rare.get_or_insert_default().tickets.get_or_insert_default();
        tickets.due = tickets.due.into_iter().chain(due).min();
        if in_order {
            if tickets.answering.as_ref().is_some_and(|answering| answering.loose) {
                // What follows in this answer follows its ticket, behind all others.
                tickets.at = tickets.places.len();
                tickets.answering =
                    Some(Answering { behind: Vec::new(), mute: open.mute, loose: false });
            }
            tickets.places.insert(tickets.at, Place { open, behind: Vec::new() });
            tickets.at += 1;
        } else {
            tickets.loose.push(open);
        }
        let fate = Arc::clone(&tickets.fate);
        self.set_bars();
        Some(fate)
    }

    /// From here on replies are the answer to this ticket, until [`end_answer`](Self::end_answer).
    /// Returns whether the ticket is open.
    pub(crate) fn begin_answer(&mut self, id: TicketId) -> bool {
        if !self.state.handles() {
            return false;
        }
        let Some(tickets) = tickets_mut(&mut self.rare) else { return false };
        let found = tickets.places.iter().position(|place| place.open.id == id);
        if let Some(index) = found
            && let Some(Place { open, behind }) = tickets.places.remove(index)
        {
            tickets.at = index;
            tickets.answering = Some(Answering { behind, mute: open.mute, loose: false });
        } else {
            let found = tickets.loose.iter().position(|open| open.id == id);
            let Some(index) = found else { return false };
            let open = tickets.loose.swap_remove(index);
            tickets.at = 0;
            tickets.answering =
                Some(Answering { behind: Vec::new(), mute: open.mute, loose: true });
        }
        self.set_bars();
        true
    }

    /// The answer is complete: what waited behind it follows it.
    pub(crate) fn end_answer(&mut self, output: &mut Output) {
        let Some(tickets) = tickets_mut(&mut self.rare) else { return };
        let Some(Answering { behind, .. }) = tickets.answering.take() else { return };
        match tickets.at.checked_sub(1).and_then(|before| tickets.places.get_mut(before)) {
            Some(place) if place.behind.is_empty() => place.behind = behind,
            Some(place) => place.behind.extend_from_slice(&behind),
            None if self.state.sends() => {
                tickets.held = tickets.held.saturating_sub(behind.len());
                output.push_held(&behind);
            }
            None => {}
        }
        tickets.at = tickets.places.len();
        self.set_bars();
    }

    /// Gives up [`Tickets`] in which none is open. Returns why the connection is to close now, if a
    /// close waited for the answers.
    pub(crate) fn settle_tickets(&mut self) -> Option<CloseReason> {
        if tickets(&self.rare).is_some_and(|tickets| tickets.count() == 0) {
            let tickets = self.rare.as_mut().and_then(|rare| rare.tickets.take());
            // It may be long before the connection needs this again.
            if self.rare.as_ref().is_some_and(|rare| rare.is_vacant()) {
                self.rare = None;
            }
            self.set_bars();
            return tickets.and_then(|tickets| tickets.ends);
        }
        None
    }

    /// The connection ends: nobody answers any more. Returns how many tickets were open.
    pub(crate) fn drop_tickets(&mut self) -> usize {
        let tickets = self.rare.as_mut().and_then(|rare| rare.tickets.take());
        let Some(tickets) = tickets else { return 0 };
        tickets.fate.0.store(true, Relaxed);
        self.set_bars();
        tickets.count()
    }

    fn set_bars(&mut self) {
        let bars_frames = tickets(&self.rare).is_some_and(|tickets| tickets.bars_frames());
        self.bars.set(Bars::PENDING, tickets(&self.rare).is_some());
        self.bars.set(Bars::DEFERRED, bars_frames);
    }

    /// Puts off a close in order until all tickets are answered: then nothing more is sent but the
    /// answers. Returns the reason if the connection closes now, since no ticket is open.
    pub(super) fn closes_behind_tickets(&mut self, reason: CloseReason) -> Option<CloseReason> {
        let waits = matches!(
            reason,
            CloseReason::ByHandler | CloseReason::PeerFinished | CloseReason::Drained
        );
        match tickets_mut(&mut self.rare) {
            Some(tickets) if waits && tickets.count() > 0 && self.state.handles() => {
                tickets.ends.get_or_insert(reason);
                tickets.finish();
                self.bars.set(Bars::MUTE, true);
                self.set_bars();
                None
            }
            _ => Some(reason),
        }
    }

    /// Whether a reply of this origin is queued, now or behind a ticket.
    pub(super) fn takes_reply(&self, origin: Origin) -> bool {
        let answers = || {
            let answering = tickets(&self.rare).and_then(|tickets| tickets.answering.as_ref());
            origin != Origin::Other && answering.is_some_and(|answering| !answering.mute)
        };
        !self.bars.has(Bars::CLOSED) && (!self.bars.has(Bars::MUTE) || answers())
    }

    /// Where a reply goes that has to wait, and the count of what waits. Nothing if it goes to the
    /// queue.
    pub(super) fn behind(&mut self, origin: Origin) -> Option<(&mut Vec<u8>, &mut usize)> {
        let Tickets { places, at, held, .. } = tickets_mut(&mut self.rare)?;
        if origin == Origin::Other {
            return None;
        }
        let place = places.get_mut(at.checked_sub(1)?)?;
        Some((&mut place.behind, held))
    }

    // What others ask.

    /// How many tickets are open.
    pub(crate) fn open_tickets(&self) -> usize {
        tickets(&self.rare).map_or(0, |tickets| tickets.count())
    }

    /// How many bytes wait behind tickets.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        tickets(&self.rare).map_or(0, |tickets| tickets.held)
    }

    /// The memory that takes, in bytes.
    pub(super) fn held_capacity(&self) -> usize {
        tickets(&self.rare).map_or(0, |tickets| tickets.capacity())
    }

    /// Whether an answer is still to be sent.
    pub(crate) fn expects_answers(&self) -> bool {
        tickets(&self.rare).is_some_and(|tickets| tickets.open().any(|open| !open.mute))
    }

    /// A time before which no ticket is due.
    pub(crate) fn answer_due(&self) -> Option<Tick> {
        tickets(&self.rare)?.due
    }

    /// Whether a ticket is due at `now`.
    pub(crate) fn is_answer_late(&mut self, now: Tick) -> bool {
        let Some(tickets) = tickets_mut(&mut self.rare) else { return false };
        tickets.find_due();
        tickets.due.is_some_and(|due| due <= now)
    }

    /// Tickets that are due at `now` are due at `at`.
    pub(crate) fn put_off_answers(&mut self, now: Tick, at: Tick) {
        let Some(tickets) = tickets_mut(&mut self.rare) else { return };
        for open in tickets.open_mut() {
            open.due = open.due.map(|due| if due <= now { at } else { due });
        }
        tickets.find_due();
    }

    /// From now on all open tickets are due then.
    pub(crate) fn set_answer_due(&mut self, due: Option<Tick>) {
        let Some(tickets) = tickets_mut(&mut self.rare) else { return };
        tickets.open_mut().for_each(|open| open.due = due);
        tickets.due = due;
    }

    /// What is wrong with the tickets between two turns, if anything is.
    pub(crate) fn unsound_tickets(&self) -> Option<&'static str> {
        let pending = self.bars.has(Bars::PENDING);
        let Some(tickets) = tickets(&self.rare) else {
            let barred = pending || self.bars.has(Bars::DEFERRED);
            return barred.then_some("a connection waits for a ticket that there is not");
        };
        let held: usize = tickets.places.iter().map(|place| place.behind.len()).sum();
        let checks = [
            (!pending, "an open ticket holds nothing up"),
            (tickets.count() == 0, "all tickets are answered, and the connection waits"),
            (tickets.answering.is_some(), "an answer has no end"),
            (tickets.at != tickets.places.len(), "replies go before an open ticket"),
            (Arc::strong_count(&tickets.fate) != tickets.count() + 1, "a ticket was lost"),
            (self.bars.has(Bars::DEFERRED) != tickets.bars_frames(), "a ticket bars no frame"),
            (tickets.held != held, "what waits behind tickets is not counted"),
            (
                matches!(self.state, State::Arriving) || !self.state.handles(),
                "a connection that closes has tickets",
            ),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}
