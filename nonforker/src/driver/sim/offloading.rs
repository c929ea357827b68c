//! What a simulated server offloads: done on the script's thread, at virtual times.
//!
//! ```text
//!  submit ──▶ a thread is free: is it still wanted? ──▶ done: the work runs and posts its answer
//! ```

use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::OccupiedEntry},
    fmt,
    rc::Rc,
    time::Duration,
};

use super::{events::Event, trace::What, world::World};
use crate::offload::{Job, Threads};

/// How many threads a simulated server has.
const THREADS: usize = 4;

/// The longest work, in microseconds.
const WORK_MAX: usize = 1 << 18;

/// See the [module](self).
pub(crate) struct SimThreads {
    world: Rc<RefCell<World>>,
}

impl SimThreads {
    pub(crate) fn new(world: Rc<RefCell<World>>, threads: Option<usize>) -> Self {
        world.borrow_mut().jobs.free = vec![Duration::ZERO; threads.unwrap_or(THREADS)];
        Self { world }
    }
}

impl Threads for SimThreads {
    fn submit(&mut self, job: Box<dyn Job>) {
        self.world.borrow_mut().offload(job);
    }
}

/// A job that waits for a thread, or is being done until some time.
enum Step {
    Begins(Box<dyn Job>, Duration),
    Ends(Box<dyn Job>),
}

/// The jobs of a simulated server.
#[derive(Default)]
pub(crate) struct Jobs {
    /// When each thread is free.
    free: Vec<Duration>,
    /// By time, and of one time in the order in which they came.
    steps: BTreeMap<(Duration, u64), Step>,
    order: u64,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

impl World {
    fn offload(&mut self, job: Box<dyn Job>) {
        let micros = self.rng.magnitude(WORK_MAX) as u64;
        self.note(0, What::Offloads(micros));
        let now = self.now;
        let first = self.jobs.free.iter_mut().min();
        let Some(free) = first else { return };
        let begins = now.max(*free);
        let ends = begins + Duration::from_micros(micros);
        *free = ends;
        self.step(begins, Step::Begins(job, ends));
    }

    fn step(&mut self, at: Duration, step: Step) {
        self.jobs.order += 1;
        self.jobs.steps.insert((at, self.jobs.order), step);
        self.schedule(at, Event::Alarm);
    }
}

/// Does what the threads of the server do by now. The world is free meanwhile, since jobs are the
/// user's.
pub(crate) fn run_jobs(world: &RefCell<World>) {
    loop {
        let step = {
            let world = &mut *world.borrow_mut();
            let first = world.jobs.steps.first_entry();
            first.filter(|first| first.key().0 <= world.now).map(OccupiedEntry::remove)
        };
        match step {
            Some(Step::Begins(job, ends)) if job.is_wanted() => {
                world.borrow_mut().step(ends, Step::Ends(job));
            }
            // Its client has left.
            Some(Step::Begins(..)) => {}
            Some(Step::Ends(job)) => job.run(),
            None => return,
        }
    }
}
