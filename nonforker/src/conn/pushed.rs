//! What is published to a connection: whether it finds room, and what makes room for it.

use std::sync::Arc;

use super::{
    Connection,
    bars::Bars,
    buffer::Buffer,
    outbound::Watermarks,
    output::{Origin, Output},
    payload::Payload,
};
use crate::error::CloseReason;

/// What happens to a message that is published to a connection whose peer takes less than is
/// published, so that the message would exceed [`Limits::output_cap`](crate::Limits::output_cap).
///
/// A message is dropped as a whole, or sent as a whole. For each that is dropped
/// [`Conn::dropped`](crate::Conn::dropped) is one more, and
/// [`Handler::relieved`](crate::Handler::relieved) is called when the peer has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection closes with [`CloseReason::OutputOverflow`]:
    /// for messages of which none may be missing.
    #[default]
    Close,
    /// The oldest messages are dropped that are queued for the connection by subscriptions that drop
    /// the oldest: for news of which the latest counts. Those on their way to the peer are sent. If
    /// none is left to be dropped, the new message is.
    DropOldest,
    /// The new message is dropped.
    DropNewest,
}

/// What became of the room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// How many messages were dropped, the new one included if there is no room for it.
    pub(crate) dropped: u64,
    /// Whether the new message is to be queued.
    pub(crate) is_there: bool,
}

impl Connection {
    /// Whether a message that is published to it would be queued.
    pub(crate) fn takes_messages(&self) -> bool {
        !self.bars.has(Bars::CLOSED) && self.takes_reply(Origin::Other)
    }

    /// Makes room for a message of this length below the cap, or closes the connection, as `overflow`
    /// says. The `last` bytes that are queued stay.
    pub(crate) fn make_room(
        &mut self,
        length: usize,
        overflow: Overflow,
        marks: &Watermarks,
        last: usize,
    ) -> Room {
        let queued = self.queued();
        let fits = |queued: usize| queued == 0 || queued.saturating_add(length) <= marks.cap;
        if fits(queued) {
            return Room { dropped: 0, is_there: true };
        }
        if overflow == Overflow::Close {
            self.fail(CloseReason::OutputOverflow, true);
            return Room { dropped: 0, is_there: false };
        }
        // From now on the handler is to be told when the peer has caught up.
        self.bars.set(Bars::PRESSURED, true);
        let mut dropped = 0;
        if overflow == Overflow::DropOldest && fits(queued - self.outbound.droppable()) {
            while !fits(self.queued()) && self.outbound.drop_oldest(last).is_some() {
                dropped += 1;
            }
        }
        let is_there = fits(self.queued());
        Room { dropped: dropped + u64::from(!is_there), is_there }
    }

    /// Messages were lost that would have been queued: none is queued, and for a handler to which
    /// each of them matters, the connection ends.
    pub(crate) fn misses(&mut self, overflow: Overflow) {
        match overflow {
            Overflow::Close => self.fail(CloseReason::OutputOverflow, true),
            // From now on the handler is to be told when the peer has caught up.
            Overflow::DropOldest | Overflow::DropNewest => self.bars.set(Bars::PRESSURED, true),
        }
    }

    /// Whether a payload of this length is to be [shared](Self::push_shared), and not copied.
    pub(crate) const fn shares(&self, length: usize) -> bool {
        self.outbound.is_shared(length)
    }

    /// Queues a payload, which is not copied.
    pub(crate) fn push_shared(&mut self, payload: &Arc<Payload>, marks: &Watermarks) {
        self.outbound.push_shared(payload);
        self.is_pushed(marks);
    }

    /// Queues a copy of a message, in a buffer from `allocate` (given the least capacity it must have)
    /// if nothing is pending.
    pub(crate) fn push_copy(
        &mut self,
        bytes: &[u8],
        marks: &Watermarks,
        allocate: impl FnOnce(usize) -> Buffer,
    ) {
        self.outbound.push_copy(bytes, allocate);
        self.is_pushed(marks);
    }

    fn is_pushed(&mut self, marks: &Watermarks) {
        if self.queued() > marks.high {
            self.bars.set(Bars::PRESSURED, true);
        }
    }

    /// The message that was queued last, of this length, may be dropped while others are queued.
    pub(crate) fn note_droppable(&mut self, length: usize) {
        // The first one leaves in this turn.
        if self.outbound.queued() > length {
            self.outbound.note_droppable(length);
        }
    }

    /// Puts back the queue that a callback writes to, for a message to be queued in between.
    pub(crate) fn take_output(&mut self, output: &mut Output) {
        if let Some(queue) = output.take_queue() {
            self.take_back(queue);
        }
    }

    /// Takes the queue out again. Its last bytes, so many, are of the callback.
    pub(crate) fn return_output(&mut self, output: &mut Output, of_callback: usize) {
        let queue = self.outbound.lend();
        output.put_queue(queue, self.elsewhere(), of_callback);
    }

    /// What the present callback had queued was taken back.
    pub(crate) fn forget_taken_back(&mut self) {
        self.outbound.forget_taken_back();
    }

    /// What is wrong with what goes ahead, if anything is.
    pub(crate) fn unsound_queue(&self) -> Option<&'static str> {
        self.outbound.unsound()
    }
}
