//! By which listener a connection came.
//!
//! Most services have one listener, and ten thousand connections are smaller if none remembers that: only those are
//! in a table that came by another listener of their service than the first.

use std::collections::HashMap;

use super::slot::ServiceId;
use crate::{
    address::Address,
    driver::{ListenerId, Token},
};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct CameBy {
    listeners: Vec<(ServiceId, Address)>,
    by_another: HashMap<Token, ListenerId>,
}

impl CameBy {
    /// The next listener is one of this service, and listens here.
    pub(super) fn add(&mut self, service: ServiceId, address: Address) {
        self.listeners.push((service, address));
    }

    fn first_of(&self, service: ServiceId) -> Option<ListenerId> {
        self.listeners.iter().position(|&(of, _)| of == service)
    }

    pub(super) fn note(&mut self, token: Token, service: ServiceId, listener: ListenerId) {
        if self.first_of(service) != Some(listener) {
            self.by_another.insert(token, listener);
        }
    }

    /// A connection is gone.
    #[inline]
    pub(super) fn forget(&mut self, token: Token) {
        if !self.by_another.is_empty() {
            self.by_another.remove(&token);
        }
    }

    /// Where the listener listens by which a connection of this service came.
    pub(crate) fn address(&self, token: Token, service: ServiceId) -> Option<&Address> {
        let listener = self.by_another.get(&token).copied().or_else(|| self.first_of(service))?;
        self.listeners.get(listener).map(|(_, address)| address)
    }
}
