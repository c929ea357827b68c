//! What any thread may change while a server runs, and each shard follows by itself.
//!
//! ```text
//!  any thread: change ──▶ one value, its version moves ── shards are woken ──▶ each takes a copy
//! ```

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, Release},
    },
};

use crate::error::Result;

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::engine) struct Versioned<T> {
    value: Mutex<T>,
    /// How often it has changed.
    version: AtomicUsize,
}

impl<T: Clone> Versioned<T> {
    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it as the server begins, which is no change.
    pub(in crate::engine) fn begin(&self, set: impl FnOnce(&mut T)) {
        set(&mut self.value());
    }

    /// Changes it, unless that is an error.
    pub(in crate::engine) fn change(
        &self,
        change: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<()> {
        let mut value = self.value();
        change(&mut value)?;
        self.version.fetch_add(1, Release);
        Ok(())
    }

    /// A copy, if it has changed since version `seen`.
    pub(in crate::engine) fn changed(&self, seen: &mut usize) -> Option<T> {
        let version = self.version.load(Acquire);
        (std::mem::replace(seen, version) != version).then(|| self.value().clone())
    }
}
