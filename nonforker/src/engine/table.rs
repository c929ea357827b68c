//! Every connection of a shard, by token.
//!
//! An entry is a connection and what its service keeps for it: a codec, a session. The engine sees
//! the connection; only the service knows the type of the rest. While callbacks run for a connection
//! its entry is taken out, so that they may do what they like to all others.

use std::any::Any;

use slotmap::SlotMap;

use super::slot::{ServiceId, Slot};
use crate::driver::Token;

/// A connection and what its service keeps for it.
#[derive(Debug)]
pub(crate) struct Entry<M: ?Sized = dyn Any> {
    pub(crate) slot: Slot,
    pub(crate) member: M,
}

/// For so many connections there is room from the start. It takes no memory before they come, and
/// then none for what has been outgrown.
const RESERVED: usize = 1 << 16;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Table {
    /// Nothing in the place of the one that is taken out.
    entries: SlotMap<Token, Option<Box<Entry>>>,
}

impl Table {
    /// A table for at most so many connections.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { entries: SlotMap::with_capacity_and_key(connections_max.min(RESERVED)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains(&self, token: Token) -> bool {
        self.entries.contains_key(token)
    }

    /// Makes an entry for a new connection.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Token) -> Box<Entry>) -> Token {
        self.entries.insert_with_key(|token| Some(make(token)))
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Box<Entry>> {
        self.entries.remove(token).flatten()
    }

    /// Takes an entry out for its callbacks: to be [put back](Self::put_back).
    #[inline]
    pub(super) fn take(&mut self, token: Token) -> Option<Box<Entry>> {
        self.entries.get_mut(token)?.take()
    }

    #[inline(always)]
    pub(super) fn put_back(&mut self, entry: Box<Entry>) {
        // There is nothing to be dropped in its place.
        if let Some(place @ None) = self.entries.get_mut(entry.slot.token) {
            *place = Some(entry);
        }
    }

    pub(crate) fn entry(&mut self, token: Token) -> Option<&mut Entry> {
        self.entries.get_mut(token)?.as_deref_mut()
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Slot> {
        Some(&self.entries.get(token)?.as_deref()?.slot)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Slot> {
        Some(&mut self.entries.get_mut(token)?.as_deref_mut()?.slot)
    }

    /// Every connection that is not taken out.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.entries.values().flatten().map(|entry| &entry.slot)
    }

    /// Every entry of one service that is not taken out.
    pub(crate) fn of_service(&mut self, service: ServiceId) -> impl Iterator<Item = &mut Entry> {
        let entries = self.entries.values_mut().flatten().map(|entry| &mut **entry);
        entries.filter(move |entry| entry.slot.service() == service)
    }

    /// The tokens of all connections, also of the one that is taken out.
    pub(super) fn tokens(&self) -> Vec<Token> {
        self.entries.keys().collect()
    }
}
