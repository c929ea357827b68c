//! Which shards have subscribers to a topic, so that a message goes to those and to no others.
//!
//! A shard enters a topic here with its first subscriber, and takes it out with its last. A message is
//! published behind that: one that subscribes before, on whatever shard, gets it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use super::Group;
use crate::engine::slot::ServiceId;

/// The shards in which each topic of a service has subscribers.
type OfService = HashMap<Arc<[u8]>, BTreeSet<u16>>;

/// See the [module](self). By service.
#[derive(Debug, Default)]
pub(super) struct AllTopics(RwLock<Vec<OfService>>);

impl Group {
    /// A topic of a service has its first subscriber in a shard.
    pub(in crate::engine) fn enter_topic(&self, shard: u16, service: ServiceId, topic: &Arc<[u8]>) {
        let mut services = self.topics.0.write().unwrap_or_else(PoisonError::into_inner);
        let service = service as usize;
        if services.len() <= service {
            services.resize_with(service + 1, HashMap::new);
        }
        services[service].entry(Arc::clone(topic)).or_default().insert(shard);
    }

    /// It has none there any more.
    pub(in crate::engine) fn take_out_topic(&self, shard: u16, service: ServiceId, topic: &[u8]) {
        let mut services = self.topics.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(topics) = services.get_mut(service as usize) else { return };
        if let Some(shards) = topics.get_mut(topic) {
            shards.remove(&shard);
            if shards.is_empty() {
                topics.remove(topic);
            }
        }
    }

    /// The other shards in which a topic has subscribers, with the topic's name.
    pub(in crate::engine) fn other_shards_of(
        &self,
        shard: u16,
        service: ServiceId,
        topic: &[u8],
    ) -> Option<(Arc<[u8]>, Vec<u16>)> {
        if self.is_alone() {
            return None;
        }
        let services = self.topics.0.read().unwrap_or_else(PoisonError::into_inner);
        let (name, shards) = services.get(service as usize)?.get_key_value(topic)?;
        let others: Vec<_> = shards.iter().copied().filter(|&other| other != shard).collect();
        (!others.is_empty()).then(|| (Arc::clone(name), others))
    }

    /// How many topics are entered, each once for each shard.
    pub(in crate::engine) fn topics_entered(&self) -> usize {
        let services = self.topics.0.read().unwrap_or_else(PoisonError::into_inner);
        services.iter().flat_map(HashMap::values).map(BTreeSet::len).sum()
    }

    /// Whether a topic is entered for a shard.
    pub(in crate::engine) fn has_topic(
        &self,
        shard: u16,
        service: ServiceId,
        topic: &[u8],
    ) -> bool {
        let services = self.topics.0.read().unwrap_or_else(PoisonError::into_inner);
        let shards = services.get(service as usize).and_then(|topics| topics.get(topic));
        shards.is_some_and(|shards| shards.contains(&shard))
    }
}
