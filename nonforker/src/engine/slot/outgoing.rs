//! What a slot remembers of a connection that a handler asked for, and of one that is relayed.

use std::rc::Rc;

use super::Slot;
use crate::{
    address::Peer,
    conn::{Connection, pipe::Pipe, state::State},
    driver::Token,
    engine::{
        connecting::Connecting,
        impaired::Impaired,
        marks::{OUTGOING, PLACELESS},
        rules::Rules,
    },
    target::Target,
};

impl Slot {
    /// A connection that a handler asked for `now`, in milliseconds.
    pub(in crate::engine) fn outgoing(
        token: Token,
        rules: Rc<Rules>,
        target: Target,
        now: u32,
    ) -> Self {
        let mut slot = Self::new(token, target.peer(), rules, Pipe::Plain, now);
        slot.conn = Connection::connecting();
        slot.marks = OUTGOING | PLACELESS;
        slot.put_connecting(Box::new(Connecting::new(target)));
        slot
    }

    // What a connection that a handler asked for has.

    /// Whether a handler has asked for it, and no listener has accepted it.
    pub(crate) const fn is_outgoing(&self) -> bool {
        self.marks & OUTGOING != 0
    }

    /// Whether a handler has asked for it, and it does not stand yet: no driver knows it, or its handshake
    /// is under way.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.conn.state(), State::Connecting | State::Arriving) && self.is_outgoing()
    }

    /// The same, and no driver knows it.
    pub(in crate::engine) fn is_unknown_to_drivers(&self) -> bool {
        self.conn.state() == State::Connecting
    }

    pub(in crate::engine) fn connecting(&self) -> Option<&Connecting> {
        self.extra.as_ref()?.connecting.as_deref()
    }

    /// Takes out how far it has come, to be [put back](Self::put_connecting) while it does not stand.
    pub(in crate::engine) fn take_connecting(&mut self) -> Option<Box<Connecting>> {
        self.extra.as_mut()?.connecting.take()
    }

    pub(in crate::engine) fn put_connecting(&mut self, connecting: Box<Connecting>) {
        self.extra.get_or_insert_default().connecting = Some(connecting);
    }

    pub(in crate::engine) fn connected_to(&mut self, peer: Peer) {
        self.peer = peer.into();
    }

    /// Whether it takes one of the places for connections.
    pub(in crate::engine) const fn has_place(&self) -> bool {
        self.marks & PLACELESS == 0
    }

    pub(in crate::engine) const fn takes_place(&mut self) {
        self.marks &= !PLACELESS;
    }

    // What a relayed connection has.

    /// The connection with which it exchanges its bytes.
    pub(crate) fn relay(&self) -> Option<Token> {
        self.extra.as_ref()?.relay
    }

    pub(in crate::engine) fn impaired(&self) -> Option<&Impaired> {
        self.extra.as_ref()?.impaired.as_deref()
    }

    pub(in crate::engine) fn impaired_mut(&mut self) -> Option<&mut Impaired> {
        self.extra.as_mut()?.impaired.as_deref_mut()
    }

    /// Whether it is not received from, on purpose: it has stalled, or too much of it is delayed.
    pub(in crate::engine) fn holds_back(&self) -> bool {
        self.impaired()
            .is_some_and(|way| way.has_stalled() || self.conn.kept().len() > self.rules.marks.high)
    }

    /// Takes out what is done to its bytes on purpose, to be [put back](Self::put_impaired).
    pub(in crate::engine) fn take_impaired(&mut self) -> Option<Box<Impaired>> {
        self.extra.as_mut()?.impaired.take()
    }

    pub(in crate::engine) fn put_impaired(&mut self, impaired: Box<Impaired>) {
        self.extra.get_or_insert_default().impaired = Some(impaired);
    }

    pub(in crate::engine) fn set_relay(&mut self, other: Option<Token>) {
        self.extra.get_or_insert_default().relay = other;
    }
}
