//! Which simulation this thread runs, for what a handler asks of it without holding it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{trace::What, world::World};

/// The longest a handler works at a time, so that time can be counted for ever after.
const WORK_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

thread_local! {
    static RUNNING: RefCell<Option<Rc<RefCell<World>>>> = const { RefCell::new(None) };
}

/// While it lives, handlers that this thread calls are in a simulation.
#[derive(Debug)]
pub(crate) struct Running {
    before: Option<Rc<RefCell<World>>>,
}

impl Running {
    /// The handlers of this shard.
    pub(crate) fn begin(world: &Rc<RefCell<World>>, shard: usize) -> Self {
        world.borrow_mut().running = shard;
        Self { before: RUNNING.replace(Some(Rc::clone(world))) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(self.before.take());
    }
}

/// See [`sim::work`](crate::sim::work).
pub(crate) fn work(duration: Duration) {
    // The world is free while the server's code runs: see `SimDriver`.
    let Some(world) = RUNNING.with_borrow(Clone::clone) else { return };
    let mut world = world.borrow_mut();
    let duration = duration.min(WORK_MAX);
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    world.note(0, What::Works(micros));
    let shard = world.running;
    world.works(shard, duration);
}
