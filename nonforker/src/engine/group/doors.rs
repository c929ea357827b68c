//! What changes at the listeners while a server runs, for all shards: who may connect, and whether
//! anybody may.
//!
//! ```text
//!  any thread: change_door ──▶ one list, its version moves ── shards are woken ──▶ each takes a copy
//! ```

use std::sync::{
    Mutex, PoisonError,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, Release},
    },
};

use super::Group;
use crate::{
    access::Entrance,
    error::{Error, Result},
};

/// What holds for a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoorSettings {
    pub(crate) entrance: Entrance,
    /// It accepts nobody.
    pub(crate) suspended: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct AllDoors {
    settings: Mutex<Vec<DoorSettings>>,
    /// How often they have changed.
    version: AtomicUsize,
}

impl Group {
    /// The listeners of the server, as it begins. All shards have the same.
    pub(in crate::engine) fn set_doors(&self, settings: Vec<DoorSettings>) {
        *self.doors.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// What holds for the listeners, if that has changed since version `seen`.
    pub(in crate::engine) fn changed_doors(&self, seen: &mut usize) -> Option<Vec<DoorSettings>> {
        let version = self.doors.version.load(Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        Some(self.doors.settings.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Changes what holds for a listener.
    pub(crate) fn change_door(
        &self,
        listener: usize,
        change: impl FnOnce(&mut DoorSettings),
    ) -> Result<()> {
        let whole = self.whole();
        if !whole.is_bound() {
            return Err(Error::NotBound);
        }
        let mut settings = whole.doors.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = settings.len();
        change(settings.get_mut(listener).ok_or(Error::NoListener { listener, listeners })?);
        whole.doors.version.fetch_add(1, Release);
        drop(settings);
        whole.each(|shared| shared.wake());
        Ok(())
    }

    fn is_bound(&self) -> bool {
        self.members.iter().all(|member| member.shared.is_bound())
    }

    /// From now on the server is not ready.
    pub(crate) fn prepare(&self) {
        self.ask(|shared| shared.request.prepare());
    }

    /// Whether the server is bound, and its end is not near.
    pub(crate) fn is_ready(&self) -> bool {
        let whole = self.whole();
        whole.is_bound() && !whole.members.iter().any(|member| member.shared.request.is_prepared())
    }
}
