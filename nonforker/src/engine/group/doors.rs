//! What changes at the listeners while a server runs, for all shards: who may connect, and whether
//! anybody may.

use super::{Group, versioned::Versioned};
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
pub(super) type AllDoors = Versioned<Vec<DoorSettings>>;

impl Group {
    /// The listeners of the server, as it begins. All shards have the same.
    pub(in crate::engine) fn set_doors(&self, settings: Vec<DoorSettings>) {
        self.doors.begin(|doors| *doors = settings);
    }

    /// What holds for the listeners, if that has changed since version `seen`.
    pub(in crate::engine) fn changed_doors(&self, seen: &mut usize) -> Option<Vec<DoorSettings>> {
        self.doors.changed(seen)
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
        whole.doors.change(|doors| {
            let listeners = doors.len();
            change(doors.get_mut(listener).ok_or(Error::NoListener { listener, listeners })?);
            Ok(())
        })?;
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
