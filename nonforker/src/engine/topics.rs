//! The topics of a service: which connections have subscribed to each, and how a message comes to one.
//!
//! ```text
//!  publish ── encoded once ──▶ Message ──▶ each subscriber: room? ──┬── short: copied to its queue
//!                                                                   ├── long: the payload is shared
//!                                                                   └── none: dropped, or it closes
//! ```
//!
//! A topic is known to its service while it has subscribers, and a connection knows its topics. So it
//! leaves all of them when it closes, and a topic without subscribers takes no memory.
//!
//! Other shards get a message as a letter, if they have subscribers: see [`Published`].

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use super::{
    core::Core,
    mail::Missed,
    shard::Shard,
    slot::{ServiceId, Slot},
    table::Table,
};
use crate::{
    conn::{
        output::Output,
        payload::{Encoded, Payload},
        pushed::{Overflow, Room},
    },
    driver::Token,
    error::SubscribeError,
};

/// How many topics a connection may have subscribed to.
pub(crate) const TOPICS_MAX: usize = 1000;

/// The longest topic, in bytes.
pub(crate) const TOPIC_LENGTH_MAX: usize = 256;

/// Those that have subscribed to a topic, in the order in which messages are queued for them.
pub(crate) type Subscribers = BTreeMap<Token, Overflow>;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Topics {
    subscribers: HashMap<Arc<[u8]>, Subscribers>,
}

impl Topics {
    /// How many have subscribed to a topic.
    pub(crate) fn count(&self, topic: &[u8]) -> usize {
        self.subscribers.get(topic).map_or(0, BTreeMap::len)
    }

    /// Takes out who has subscribed to a topic, for a message to be delivered: to be
    /// [put back](Self::put_back).
    pub(crate) fn take(&mut self, topic: &[u8]) -> Subscribers {
        self.subscribers.get_mut(topic).map(mem::take).unwrap_or_default()
    }

    pub(crate) fn put_back(&mut self, topic: &[u8], taken: Subscribers) {
        if let Some(place) = self.subscribers.get_mut(topic) {
            *place = taken;
        }
    }

    /// Returns the name of the topic, to be remembered.
    fn join(&mut self, topic: &[u8], token: Token, overflow: Overflow) -> Arc<[u8]> {
        if let Some((name, _)) = self.subscribers.get_key_value(topic) {
            let name = Arc::clone(name);
            self.subscribers.entry(Arc::clone(&name)).or_default().insert(token, overflow);
            return name;
        }
        let name = Arc::<[u8]>::from(topic);
        self.subscribers.insert(Arc::clone(&name), Subscribers::from([(token, overflow)]));
        name
    }

    /// Returns whether it was the last subscriber.
    fn leave(&mut self, topic: &[u8], token: Token) -> bool {
        let Some(subscribers) = self.subscribers.get_mut(topic) else { return false };
        subscribers.remove(&token);
        let is_empty = subscribers.is_empty();
        if is_empty {
            self.subscribers.remove(topic);
        }
        is_empty
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.subscribers.keys()
    }

    /// What is wrong between two turns, if anything is, and how many subscriptions there are.
    pub(super) fn unsound(&self, table: &Table) -> Result<usize, &'static str> {
        let mut count = 0;
        for (topic, subscribers) in &self.subscribers {
            if subscribers.is_empty() {
                return Err("a topic without subscribers takes memory");
            }
            count += subscribers.len();
            for &token in subscribers.keys() {
                let Some(slot) = table.get(token) else {
                    return Err("a connection that is gone has not left a topic");
                };
                if !slot.is_open() || !slot.topics().contains(topic) {
                    return Err("a topic has a subscriber that does not know it");
                }
            }
        }
        Ok(count)
    }
}

/// What a connection has subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    topics: Vec<Arc<[u8]>>,
    /// How many messages were dropped that it had subscribed to.
    dropped: u64,
}

impl Slot {
    pub(super) fn topics(&self) -> &[Arc<[u8]>] {
        self.subscribed().map_or(&[], |subscribed| &subscribed.topics)
    }

    /// How many messages were dropped that it had subscribed to.
    pub(crate) fn dropped(&self) -> u64 {
        self.subscribed().map_or(0, |subscribed| subscribed.dropped)
    }
}

/// A message, encoded.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// For one connection: it is copied to its queue.
    Alone(Vec<u8>),
    /// For many.
    Shared(Arc<Payload>),
}

impl Message {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Alone(bytes) => bytes,
            Self::Shared(payload) => payload.bytes(),
        }
    }
}

/// A message on its way to the subscribers of another shard.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) service: ServiceId,
    pub(crate) topic: Arc<[u8]>,
    pub(crate) encoded: Encoded,
}

impl<S> Shard<S> {
    /// A message of another shard has come. Its subscribers are those of this moment.
    pub(super) fn published(&mut self, Published { service, topic, encoded }: Published) {
        let Self { core, table, services, .. } = self;
        if let Some(typed) = services.get_mut(service as usize) {
            let message = core.message(encoded);
            typed.published(core, table, service, &topic, &message);
        }
    }

    /// Messages of other shards were lost, since this one did not read its mail in time.
    #[cold]
    pub(super) fn missed(&mut self, missed: Missed) {
        let Self { core, table, .. } = self;
        for ((service, topic), count) in missed {
            let Some(desk) = core.desks.get_mut(service as usize) else { continue };
            let subscribers = desk.topics.take(&topic);
            for (&token, &overflow) in &subscribers {
                if let Some(slot) = table.get_mut(token) {
                    core.misses(slot, overflow, count);
                }
            }
            core.desks[service as usize].topics.put_back(&topic, subscribers);
        }
    }
}

impl Core {
    /// A connection subscribes to a topic of its service. If it has, `overflow` is changed.
    pub(crate) fn subscribe(
        &mut self,
        slot: &mut Slot,
        topic: &[u8],
        overflow: Overflow,
    ) -> Result<(), SubscribeError> {
        if topic.len() > TOPIC_LENGTH_MAX {
            return Err(SubscribeError::TooLong { length: topic.len(), max: TOPIC_LENGTH_MAX });
        }
        if !slot.is_open() || !slot.conn.state().handles() {
            return Ok(());
        }
        let topics = &mut self.desks[slot.service() as usize].topics;
        let is_new = !slot.topics().iter().any(|name| **name == *topic);
        if is_new && slot.topics().len() >= TOPICS_MAX {
            return Err(SubscribeError::TooMany { max: TOPICS_MAX });
        }
        let name = topics.join(topic, slot.token(), overflow);
        if !self.alone && topics.count(topic) == 1 {
            self.group.enter_topic(self.shard, slot.service(), &name);
        }
        if is_new {
            slot.subscribed_mut().topics.push(name);
        }
        Ok(())
    }

    /// A connection leaves a topic. Returns whether it had subscribed.
    pub(crate) fn unsubscribe(&mut self, slot: &mut Slot, topic: &[u8]) -> bool {
        let Some(index) = slot.topics().iter().position(|name| **name == *topic) else {
            return false;
        };
        slot.subscribed_mut().topics.swap_remove(index);
        self.leave_topic(slot, topic);
        true
    }

    fn leave_topic(&mut self, slot: &Slot, topic: &[u8]) {
        let service = slot.service();
        let is_empty = self.desks[service as usize].topics.leave(topic, slot.token());
        if is_empty && !self.alone {
            self.group.take_out_topic(self.shard, service, topic);
        }
    }

    /// A connection that closes leaves its topics.
    pub(super) fn leave_topics(&mut self, slot: &mut Slot) {
        if slot.topics().is_empty() {
            return;
        }
        for topic in mem::take(&mut slot.subscribed_mut().topics) {
            self.leave_topic(slot, &topic);
        }
    }

    /// Makes a message for many of what was encoded, which shards may have in common.
    pub(crate) fn message(&mut self, encoded: Encoded) -> Message {
        Message::Shared(Payload::new(encoded, self.memory.savings()))
    }

    /// Whether other shards have subscribers to a topic: then with its name, and which.
    pub(crate) fn other_shards_of(
        &self,
        service: ServiceId,
        topic: &[u8],
    ) -> Option<(Arc<[u8]>, Vec<u16>)> {
        self.group.other_shards_of(self.shard, service, topic)
    }

    /// Sends a message to the subscribers in other shards.
    pub(crate) fn publish_to(&self, shards: &[u16], published: &Published) {
        for mailbox in shards.iter().filter_map(|&shard| self.group.mailbox(shard)) {
            mailbox.publish(published);
        }
    }

    /// A connection that has subscribed misses messages.
    pub(crate) fn misses(&mut self, slot: &mut Slot, overflow: Overflow, count: u64) {
        if !slot.conn.takes_messages() {
            return;
        }
        slot.conn.misses(overflow);
        if overflow != Overflow::Close {
            self.count_dropped(slot, count);
        }
        self.mark_dirty(slot);
    }

    fn count_dropped(&mut self, slot: &mut Slot, count: u64) {
        slot.counters().dropped.add(usize::try_from(count).unwrap_or(usize::MAX));
        slot.subscribed_mut().dropped += count;
        // Its peer may have caught up already, with what is left.
        if slot.is_relieved() {
            self.mark_runnable(slot);
        }
    }

    /// Queues a message for a connection that has subscribed. Returns whether it is queued.
    ///
    /// The connection whose callback this is has lent its queue to an `output`: what it has sent itself
    /// goes before. The message is copied then, so that all of the callback's output is in one place
    /// if it panics.
    pub(crate) fn deliver(
        &mut self,
        slot: &mut Slot,
        mut output: Option<&mut Output>,
        message: &Message,
        overflow: Overflow,
    ) -> bool {
        if !slot.conn.takes_messages() {
            return false;
        }
        let length = message.bytes().len();
        let of_callback = output.as_deref().map_or(0, Output::since_mark);
        if let Some(output) = output.as_deref_mut() {
            slot.conn.take_output(output);
        }
        let is_there = self.make_room(slot, length, overflow, of_callback);
        if is_there {
            match message {
                Message::Shared(payload) if output.is_none() && slot.conn.shares(length) => {
                    let marks = slot.rules().marks;
                    slot.conn.push_shared(payload, &marks);
                }
                message => self.push_copy(slot, message.bytes()),
            }
            slot.called(0, 1, length);
            if overflow == Overflow::DropOldest {
                slot.conn.note_droppable(length);
            }
        }
        if let Some(output) = output {
            slot.conn.return_output(output, of_callback + if is_there { length } else { 0 });
        }
        self.mark_dirty(slot);
        is_there
    }

    fn push_copy(&mut self, slot: &mut Slot, bytes: &[u8]) {
        let marks = slot.rules().marks;
        slot.conn.push_copy(bytes, &marks, |least| self.pool.take(least));
        self.collected += bytes.len();
    }

    fn make_room(
        &mut self,
        slot: &mut Slot,
        length: usize,
        overflow: Overflow,
        last: usize,
    ) -> bool {
        let marks = slot.rules().marks;
        let Room { dropped, is_there } = slot.conn.make_room(length, overflow, &marks, last);
        if dropped > 0 {
            self.count_dropped(slot, dropped);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::{Overflow, Token, Topics};

    #[test]
    fn a_topic_is_known_while_it_has_subscribers() {
        let mut topics = Topics::default();
        let mut tokens = SlotMap::<Token, ()>::with_key();
        let [one, two] = [tokens.insert(()), tokens.insert(())];
        let name = topics.join(b"news", one, Overflow::Close);
        assert_eq!(*topics.join(b"news", two, Overflow::DropOldest), *name);
        topics.join(b"news", one, Overflow::DropNewest);
        assert_eq!((topics.count(b"news"), topics.count(b"new")), (2, 0));
        let taken = topics.take(b"news");
        assert_eq!(
            taken.iter().map(|(_, &overflow)| overflow).collect::<Vec<_>>(),
            [Overflow::DropNewest, Overflow::DropOldest]
        );
        topics.put_back(b"news", taken);
        topics.leave(b"news", one);
        topics.leave(b"news", one);
        topics.leave(b"unknown", one);
        assert_eq!(topics.count(b"news"), 1);
        topics.leave(b"news", two);
        assert_eq!(topics.count(b"news"), 0);
        assert!(topics.subscribers.is_empty(), "it takes no memory");
        let taken = topics.take(b"news");
        topics.put_back(b"news", taken);
        assert!(topics.subscribers.is_empty());
    }
}
