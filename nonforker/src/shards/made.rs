//! What a server was made of, to be compared: all shards have to be made alike.

use std::sync::Arc;

use crate::{
    access::Entrance,
    bound::Bound,
    driver::{ListenerShare, socket},
    engine::group::Group,
    error::{Error, Result},
    listening::Place,
    server::{Secured, Server},
    service_limits::AllLimits,
};

/// Which shard a server becomes.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) group: Arc<Group>,
    pub(crate) shard: u16,
    /// What the first one was made of, and shares of its listeners. The first one has none.
    pub(crate) first: Option<(Made, Vec<ListenerShare>)>,
}

impl Part {
    /// A server without shards.
    pub(crate) fn alone() -> Self {
        Self { group: Group::alone(), shard: 0, first: None }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Where it is to listen, in words, and which service serves there.
    places: Vec<String>,
    services: usize,
    /// What encrypts the connections of each service: in every shard it is that of the first.
    pub(crate) tls: Vec<Secured>,
    limits: AllLimits,
    offload_threads: Option<usize>,
    entrances: Vec<Entrance>,
    pub(crate) drain_on_signals: bool,
}

impl Made {
    pub(crate) fn of(server: &Server) -> Self {
        let places = server.places.iter().map(|(place, service)| match place {
            Place::Address(Ok(address)) => format!("{address} for service {service}"),
            Place::Address(Err(error)) => error.to_string(),
            Place::Given(given) => match socket::address_of(given) {
                Ok(address) => format!("a listener given at {address} for service {service}"),
                Err(error) => error.to_string(),
            },
        });
        Self {
            places: places.collect(),
            services: server.services(),
            tls: server.tls.clone(),
            limits: server.limits.clone(),
            offload_threads: server.offload_threads,
            entrances: server.entrances.clone(),
            drain_on_signals: server.drains_on_signals(),
        }
    }

    /// How another one differs from this one, if it does.
    fn difference(&self, other: &Self) -> Option<String> {
        if self.places != other.places {
            let (own, others) = (self.places.join(", "), other.places.join(", "));
            return Some(format!("its addresses are [{others}], and those of the first [{own}]"));
        }
        if self.services != other.services {
            let (own, others) = (self.services, other.services);
            return Some(format!("it has {others} services, and the first {own}"));
        }
        let kinds = |made: &Self| {
            let kind = |it: &Secured| (it.at_once.is_some(), it.later.is_some());
            made.tls.iter().map(kind).collect::<Vec<_>>()
        };
        if kinds(self) != kinds(other) {
            return Some("it does not encrypt what the first does".to_owned());
        }
        let is_alike = self.limits == other.limits
            && self.offload_threads == other.offload_threads
            && self.entrances == other.entrances;
        (!is_alike).then(|| "it has other limits than the first".to_owned())
    }
}

impl Server {
    /// Binds a server as one of several shards. Returns also what it was made of.
    pub(crate) fn bind_part(mut self, part: Part) -> Result<(Bound, Made)> {
        let made = Made::of(&self);
        if let Some((first, _)) = &part.first
            && let Some(what) = first.difference(&made)
        {
            return Err(Error::ShardDiffers { shard: part.shard.into(), what });
        }
        self.becomes(part);
        self.bind().map(|bound| (bound, made))
    }

    /// From now on the server is a shard. Handles of it are handles of all.
    pub(crate) fn becomes(&mut self, part: Part) {
        self.part.group.join(&part.group);
        self.part = part;
    }
}
