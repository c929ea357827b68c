//! What goes before the bytes that are pending, and which messages may be dropped from the queue.
//!
//! ```text
//!  unsent │ sealed │ segment │ segment │ segment │ pending
//!                  └ the queue: base                      end
//! ```
//!
//! Most connections have nothing of it: their queue is what is pending. A long payload that is shared is
//! a segment of its own, unless the queue was empty, and what was pending before it becomes one.
//!
//! A message that may be dropped lies in one segment or in what is pending, as a whole. When a segment
//! departs to the driver, its messages cannot be dropped any more. So no message is torn.

use std::collections::VecDeque;

use super::buffer::Buffer;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The remainder of a short send: it goes first.
    pub(super) unsent: Option<Buffer>,
    /// Bytes that were encrypted, and go before everything that is in clear.
    pub(super) sealed: Option<Buffer>,
    segments: VecDeque<Buffer>,
    /// How many bytes the segments have.
    bytes: usize,
    /// The memory they take, in bytes.
    held: usize,
    droppable: Option<Box<Droppable>>,
}

/// Messages that may be dropped, the oldest first.
#[derive(Debug, Default)]
struct Droppable {
    /// How many bytes have left the queue since the first message was noted.
    base: usize,
    messages: VecDeque<Message>,
    /// How many bytes they have.
    bytes: usize,
}

impl Droppable {
    /// Takes the oldest message out.
    fn take_oldest(&mut self) -> Option<Message> {
        let oldest = self.messages.pop_front()?;
        self.bytes -= oldest.length;
        Some(oldest)
    }
}

/// Where a message is.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// How many bytes came before it.
    at: usize,
    length: usize,
}

impl Ahead {
    /// Whether it is of no use.
    pub(super) fn is_vacant(&self) -> bool {
        self.unsent.is_none()
            && self.sealed.is_none()
            && self.segments.is_empty()
            && self.droppable.is_none()
    }

    /// How many bytes it has, without what is unsent.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.sealed.as_ref().map_or(0, Buffer::len)
    }

    /// How many bytes may be dropped.
    pub(super) fn droppable(&self) -> usize {
        self.droppable.as_ref().map_or(0, |droppable| droppable.bytes)
    }

    /// The memory that the queue takes, in bytes. What is unsent is counted as what is in flight.
    pub(super) fn capacity(&self) -> usize {
        let sealed = self.sealed.as_ref().map_or(0, Buffer::held);
        if self.segments.is_empty() && self.droppable.is_none() {
            return sealed;
        }
        let messages = self.droppable.as_ref().map_or(0, |droppable| {
            size_of::<Droppable>() + droppable.messages.capacity() * size_of::<Message>()
        });
        let segments = self.segments.capacity() * size_of::<Buffer>() + self.held;
        size_of::<Self>() + segments + sealed + messages
    }

    /// Appends a segment.
    pub(super) fn push(&mut self, segment: Buffer) {
        self.bytes += segment.len();
        self.held += segment.held();
        self.segments.push_back(segment);
    }

    /// Takes the first segment, or else what is `pending`. It departs to the driver.
    pub(super) fn take_first(&mut self, pending: &mut Option<Buffer>) -> Option<Buffer> {
        let first = self.segments.pop_front();
        if let Some(segment) = &first {
            self.bytes -= segment.len();
            self.held -= segment.held();
        }
        let batch = first.or_else(|| pending.take())?;
        self.departed(batch.len());
        Some(batch)
    }

    /// The first segment.
    pub(super) fn first(&self) -> Option<&Buffer> {
        self.segments.front()
    }

    /// The first `count` bytes of the first segment leave, or of what is `pending` if there is none: the
    /// rest becomes a segment. Returns the buffer if all of it leaves.
    pub(super) fn leave(&mut self, count: usize, pending: &mut Option<Buffer>) -> Option<Buffer> {
        if self.segments.is_empty()
            && let Some(pending) = pending.take()
        {
            self.push(pending);
        }
        let first = self.segments.front_mut()?;
        first.advance(count);
        self.bytes -= count;
        self.departed(count);
        let is_done = self.segments.front().is_some_and(Buffer::is_empty);
        let done = if is_done { self.segments.pop_front() } else { None };
        if let Some(done) = &done {
            self.held -= done.held();
        }
        done
    }

    /// The first `count` bytes of the queue have left it: messages in them cannot be dropped any more.
    fn departed(&mut self, count: usize) {
        if let Some(droppable) = &mut self.droppable {
            droppable.base += count;
            while droppable.messages.front().is_some_and(|message| message.at < droppable.base) {
                droppable.take_oldest();
            }
            self.drop_vacant();
        }
    }

    /// Throws the segments away.
    pub(super) fn discard_clear(&mut self) {
        self.segments.clear();
        (self.bytes, self.held, self.droppable) = (0, 0, None);
    }

    /// The last `length` bytes, behind which there are none of `pending`, are a message that may be
    /// dropped.
    pub(super) fn note(&mut self, length: usize, pending: usize) {
        let queue = self.bytes + pending;
        let droppable = self.droppable.get_or_insert_default();
        droppable.messages.push_back(Message { at: droppable.base + queue - length, length });
        droppable.bytes += length;
    }

    /// Drops the oldest message that may be dropped, unless it is among the `last` bytes. Returns its
    /// length.
    pub(super) fn drop_oldest(
        &mut self,
        pending: &mut Option<Buffer>,
        last: usize,
    ) -> Option<usize> {
        let end = self.bytes + pending.as_ref().map_or(0, Buffer::len);
        let droppable = self.droppable.as_mut()?;
        let &Message { at, length } = droppable.messages.front()?;
        let mut offset = at - droppable.base;
        if offset + length > end - last {
            return None;
        }
        droppable.take_oldest();
        // The messages behind it move to the front, as if this one had left the queue.
        droppable.base += length;
        self.drop_vacant();
        for index in 0..self.segments.len() {
            let segment = &mut self.segments[index];
            if offset >= segment.len() {
                offset -= segment.len();
                continue;
            }
            self.bytes -= length;
            if segment.len() == length {
                self.held -= segment.held();
                self.segments.remove(index);
            } else {
                segment.cut_out(offset, length);
            }
            return Some(length);
        }
        if let Some(last) = pending {
            last.cut_out(offset, length);
            if last.is_empty() {
                *pending = None;
            }
        }
        Some(length)
    }

    /// Forgets messages that a callback took back, which leaves this number of bytes `pending`.
    pub(super) fn forget_beyond(&mut self, pending: usize) {
        let Some(droppable) = &mut self.droppable else { return };
        let end = droppable.base + self.bytes + pending;
        while let Some(&Message { at, length }) = droppable.messages.back()
            && at + length > end
        {
            droppable.messages.pop_back();
            droppable.bytes -= length;
        }
        self.drop_vacant();
    }

    /// Gives up the list of messages if it is empty.
    fn drop_vacant(&mut self) {
        self.droppable.take_if(|droppable| droppable.messages.is_empty());
    }

    /// What is wrong with it between two turns, if anything is.
    pub(super) fn unsound(&self, pending: usize) -> Option<&'static str> {
        let (bytes, held) = self
            .segments
            .iter()
            .fold((0, 0), |(bytes, held), segment| (bytes + segment.len(), held + segment.held()));
        let in_disorder = self.droppable.as_ref().is_some_and(|droppable| {
            let mut behind = droppable.base;
            let mut orderly = droppable.messages.iter().all(|message| {
                let follows = message.at >= behind;
                behind = message.at + message.length;
                follows
            });
            orderly &= behind <= droppable.base + bytes + pending;
            let length: usize = droppable.messages.iter().map(|message| message.length).sum();
            !orderly || droppable.messages.is_empty() || length != droppable.bytes
        });
        let checks = [
            (self.is_vacant(), "nothing goes before what is pending, and that takes memory"),
            ((bytes, held) != (self.bytes, self.held), "what goes before is not counted"),
            (in_disorder, "messages that may be dropped are not where they should be"),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}
