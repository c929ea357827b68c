//! Which shards have no clients any more: one that others need ends behind them.

use std::sync::atomic::Ordering::SeqCst;

use super::Group;

impl Group {
    /// A shard that drains has no client left, and none will come.
    pub(in crate::engine) fn has_no_clients(&self, shard: u16) {
        if !self.members[usize::from(shard)].is_done.swap(true, SeqCst) {
            self.wake_others(shard);
        }
    }

    /// Whether another shard has clients, or may get any.
    pub(in crate::engine) fn others_have_clients(&self, shard: u16) -> bool {
        self.others(shard).any(|(_, member)| !member.is_done.load(SeqCst))
    }
}
