//! What the engine calls a service for. The types of its codec and its handler are erased here.
//!
//! A service finds what it keeps for a connection beside its slot: see [`Entry`]. Codec and handler
//! are the user's. Whatever they panic with ends the one connection they were called for, so no
//! function here panics.

use std::{any::Any, rc::Rc};

use super::{
    core::Core,
    desk::Desk,
    rules::Rules,
    slot::{ServiceId, Slot},
    table::{Entry, Table},
    topics::Message,
};
use crate::{error::CloseReason, handler::Outcome};

/// What a callback may reach: its connection, all others, and what they share.
pub(crate) struct Scope<'a> {
    pub(crate) core: &'a mut Core,
    /// The entry is taken out of it.
    pub(crate) table: &'a mut Table,
    pub(crate) entry: &'a mut Entry,
}

impl Scope<'_> {
    /// The same for one of several callbacks.
    pub(crate) fn again(&mut self) -> Scope<'_> {
        Scope { core: self.core, table: self.table, entry: self.entry }
    }
}

/// A codec and a handler.
pub(crate) trait Service {
    /// What the server calls it.
    fn name(&mut self, name: String);
    /// What others need to know of it.
    fn desk(&self, rules: Rc<Rules>) -> Desk;
    /// The handler, of the type that its [`Desk`] says.
    fn handler(&mut self) -> &mut dyn Any;
    /// Whether the handler wants urgent bytes.
    fn wants_urgent(&self) -> bool;
    /// Before the first connection.
    fn started(&mut self, core: &mut Core, table: &mut Table, id: ServiceId) -> Outcome;
    /// An entry for a new connection.
    fn entry(&self, core: &mut Core, slot: Slot) -> Box<Entry>;
    /// A connection was accepted.
    fn open(&mut self, scope: Scope<'_>);
    /// Bytes arrived, and frames may be handled as they lie there. They are lent.
    fn received(&mut self, scope: Scope<'_>, bytes: &[u8]);
    /// Bytes arrived and were kept behind others. Frames may be handled.
    fn kept(&mut self, scope: Scope<'_>);
    /// The connection may go on: with what is held, and with the end of the stream.
    fn advance(&mut self, scope: Scope<'_>);
    /// An urgent byte arrived.
    fn urgent(&mut self, scope: Scope<'_>, byte: u8);
    /// Pressure fell.
    fn relieved(&mut self, scope: Scope<'_>);
    /// Timers of the connection are due.
    fn timers(&mut self, scope: Scope<'_>);
    /// Timers of the service are due.
    fn own_timers(&mut self, core: &mut Core, table: &mut Table, id: ServiceId);
    /// A message of another shard has come, for all that have subscribed to the topic.
    fn published(
        &mut self,
        core: &mut Core,
        table: &mut Table,
        id: ServiceId,
        topic: &[u8],
        message: &Message,
    );
    /// Whether a complete frame is kept that the handler has not been given.
    fn holds_frame(&self, entry: &Entry) -> bool;
    /// The connection has ended.
    fn closed(&mut self, scope: Scope<'_>, reason: &CloseReason);
}
