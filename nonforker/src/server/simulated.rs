//! A server over a simulated network.

use std::{cell::RefCell, rc::Rc};

use super::Server;
use crate::{
    address::Address,
    driver::sim::{SimDriver, offloading::SimThreads, world::World},
    engine::{Engine, resolver::Resolver},
    error::Result,
    shards::Part,
};

/// What a simulated server draws for its own attempts to connect does not depend on other draws.
const CONNECTING_SALT: u64 = 0xca11_ca11_ca11_ca11;

impl Server {
    /// Puts the engine together over a simulated network. What would depend on the machine does
    /// not.
    pub(crate) fn simulate(
        mut self,
        world: Rc<RefCell<World>>,
        part: Part,
    ) -> Result<(Engine<SimDriver>, Vec<Address>)> {
        let shard = usize::from(part.shard);
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        self.becomes(part);
        self.limits.server.simulate();
        self.check()?;
        let threads = SimThreads::new(Rc::clone(&world), self.offload_threads);
        let lookup = world.borrow().names.lookup();
        let seed = world.borrow().seed.wrapping_add(shard as u64) ^ CONNECTING_SALT;
        let resolver =
            Resolver::new(SimThreads::new(Rc::clone(&world), self.offload_threads), lookup);
        let driver = SimDriver::new(world, shard, self.options());
        let (mut engine, addresses) = self.assemble(driver, 1)?;
        engine.offload_to(threads);
        engine.resolve_with(resolver, seed);
        Ok((engine, addresses))
    }
}
