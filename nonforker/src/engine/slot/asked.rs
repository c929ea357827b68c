//! What was last asked about the peer of a connection.

use super::Slot;

impl Slot {
    /// Whether some of what had arrived when a deadline was first due may not be delivered yet, if
    /// `unread` bytes are not. Behind the last of them the stream may end, which no count of bytes
    /// shows: so it is asked once more when they are delivered.
    pub(in crate::engine) fn is_owed(&mut self, unread: usize) -> bool {
        let (receives, with_end) = (self.receives(), unread.saturating_add(1));
        let owed = self.watch().owed.get_or_insert(with_end);
        let is_owed = receives && *owed > 0;
        if with_end.min(*owed) == 1 {
            *owed = 0;
        }
        is_owed
    }

    /// Nothing is owed any more: what was is delivered.
    pub(crate) fn owes_nothing(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.owed = None;
        }
    }

    /// How many bytes the peer's kernel had not acknowledged when that was last asked. It is `left`
    /// now.
    pub(in crate::engine) fn asked_unacknowledged(&mut self, left: usize) -> Option<usize> {
        self.watch().unacknowledged.replace(left)
    }

    /// Whether the peer had not taken all when that was last asked.
    pub(in crate::engine) fn has_left_some(&self) -> bool {
        let extra = self.extra.as_ref();
        extra.and_then(|extra| extra.unacknowledged).is_some_and(|left| left > 0)
    }

    /// What was asked does not count any more: the connection lingers.
    pub(in crate::engine) fn forget_what_was_asked(&mut self) {
        if let Some(extra) = &mut self.extra {
            (extra.owed, extra.unacknowledged) = (None, None);
        }
    }
}
