//! Several engines in one simulated world: how they are put together, and what holds for all of them.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::Net;
use crate::{
    Server, Stats,
    address::Address,
    driver::sim::{SimDriver, world::World},
    engine::{Engine, group::Group},
    shards::{Made, Part},
};

/// Binds a server that has a shard for each of `servers`, which are made alike.
pub(super) fn bind(
    servers: Vec<Server>,
    world: &Rc<RefCell<World>>,
) -> (Arc<Group>, Vec<Engine<SimDriver>>, Vec<Address>) {
    let group = Group::of(servers.len());
    world.borrow_mut().set_shards(servers.len());
    let made = servers.first().map(Made::of);
    let mut engines: Vec<Engine<SimDriver>> = Vec::new();
    let mut addresses = Vec::new();
    for (shard, server) in (0..).zip(servers) {
        let shares = engines.first().map(|engine| engine.shares().expect("it has listeners"));
        let first = made.clone().zip(shares);
        let part = Part { group: Arc::clone(&group), shard, first };
        let bound = server.simulate(Rc::clone(world), part);
        let (engine, actual) = bound.expect("the simulated server can be bound");
        engines.push(engine);
        addresses = actual;
    }
    (group, engines, addresses)
}

impl Net {
    /// What the shards have counted together and what each of them has does not agree, if so.
    pub(super) fn unsound(&self) -> Option<String> {
        let engines: Vec<_> = self.0.engines.iter().map(RefCell::borrow).collect();
        for (shard, (engine, side)) in engines.iter().zip(&self.0.world.borrow().sides).enumerate()
        {
            if side.sleeps_on() && engine.has_mail() {
                return Some(format!("shard {shard} sleeps, and its mail wakes nobody"));
            }
        }
        let first = engines.first().filter(|_| engines.len() > 1)?;
        first.unsound_group(engines.iter().map(|engine| &**engine))
    }

    /// What one shard has counted, as [`Handle::shard_stats`](crate::Handle::shard_stats) says.
    #[must_use]
    pub fn shard_stats(&self, shard: usize) -> Option<Stats> {
        self.0.server.shard_stats(shard)
    }

    /// How many shards the server has.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.engines.len()
    }
}
