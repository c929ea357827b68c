//! What a shard knows of each service, for other services to find it and its connections.

use std::{
    any::{Any, TypeId},
    rc::Rc,
};

use super::{rules::Rules, slot::ServiceId, topics::Topics};
use crate::{conn::deadlines::Tick, error::NoSuchService, tls::Tls};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Desk {
    /// The type of its handler.
    pub(crate) handler: TypeId,
    /// What the server called it.
    pub(crate) name: Option<String>,
    /// What holds for its connections.
    pub(crate) rules: Rc<Rules>,
    /// How many places its connections take.
    pub(crate) taken: usize,
    /// How many its connections in other shards take, as far as this one knows.
    pub(crate) elsewhere: usize,
    /// How many of its connections are open: not yet closed, says the handler.
    pub(crate) open: usize,
    /// The timers of the service, whose actions only it knows the type of.
    pub(crate) timers: Box<dyn Any>,
    /// When the first of them is due.
    pub(crate) due: Option<Tick>,
    /// A connection of it has taken a ticket at some time.
    pub(crate) defers: bool,
    /// What its connections can change to when their handler says so.
    pub(crate) start_tls: Option<Tls>,
    /// What its connections have subscribed to.
    pub(crate) topics: Topics,
    /// Its prototype of a codec, an [`Rc`] of a type that only it knows.
    pub(crate) prototype: Box<dyn Any>,
}

/// The one of these services, each a handler's type and a name, that has this handler and this name.
pub(crate) fn find<H: 'static, N: AsRef<str>>(
    services: impl Iterator<Item = (TypeId, Option<N>)>,
    name: Option<&str>,
) -> Result<ServiceId, NoSuchService> {
    let mut found = (0..).zip(services).filter(|(_, (handler, named))| {
        let named = named.as_ref().map(AsRef::as_ref);
        *handler == TypeId::of::<H>() && (name.is_none() || named == name)
    });
    match (found.next(), found.next()) {
        (Some((service, _)), None) => Ok(service),
        (None, _) => Err(NoSuchService::Unknown),
        (Some(_), Some(_)) => Err(NoSuchService::Ambiguous),
    }
}
