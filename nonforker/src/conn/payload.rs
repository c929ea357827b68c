//! Bytes that were published to many connections: encoded once, and not copied for each of them.
//!
//! ```text
//!  connection ── Buffer ── Share ──┐
//!  connection ── Buffer ── Share ──┼──▶ Payload (the bytes) ──▶ Savings
//!  driver ────── Buffer ── Share ──┘
//! ```
//!
//! The memory account of a connection has the bytes of each payload that it waits for, as if they were
//! its own: so the connections that keep payloads alive are the ones that hold much when memory is
//! scarce. [`Savings`] is what the sum of the accounts has too much by that, exactly.
//!
//! Shards share the bytes, and each has a payload of its own for them: so they are counted once in each
//! shard that has subscribers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Encoded messages are shared from this length on, in bytes, whatever is queued before them. Shorter
/// ones are copied, unless the queue is empty.
pub(crate) const SHARED_MIN: usize = 1024;

/// An encoded message, which shards may have in common.
pub(crate) type Encoded = Arc<Box<[u8]>>;

/// The bytes of all payloads of a shard, counted in two ways.
#[derive(Debug, Default)]
pub(crate) struct Savings {
    /// For each payload, its bytes.
    alive: AtomicUsize,
    /// For each share, the bytes of its payload.
    handed_out: AtomicUsize,
}

impl Savings {
    /// How many bytes are in the accounts of connections and take no memory.
    pub(crate) fn saved(&self) -> usize {
        self.handed_out.load(Relaxed).saturating_sub(self.alive.load(Relaxed))
    }

    /// What connections have in their accounts for payloads, in bytes.
    pub(crate) fn handed_out(&self) -> usize {
        self.handed_out.load(Relaxed)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Encoded,
    savings: Arc<Savings>,
}

impl Payload {
    pub(crate) fn new(bytes: Encoded, savings: &Arc<Savings>) -> Arc<Self> {
        savings.alive.fetch_add(bytes.len(), Relaxed);
        Arc::new(Self { bytes, savings: Arc::clone(savings) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.savings.alive.fetch_sub(self.bytes.len(), Relaxed);
    }
}

/// A connection's share of a payload.
#[derive(Debug)]
pub(super) struct Share(Arc<Payload>);

impl Share {
    pub(super) fn new(payload: &Arc<Payload>) -> Self {
        payload.savings.handed_out.fetch_add(payload.bytes.len(), Relaxed);
        Self(Arc::clone(payload))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.savings.handed_out.fetch_sub(self.0.bytes.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Payload, Savings, Share};
    use std::sync::Arc;

    #[test]
    fn a_payload_counts_once_however_many_have_it() {
        let savings = Arc::new(Savings::default());
        let payload = Payload::new(Arc::new(Box::from([b'x'; 1000])), &savings);
        let first = Share::new(&payload);
        assert_eq!((savings.handed_out(), savings.saved()), (1000, 0));
        let others: Vec<Share> = (0..9).map(|_| Share::new(&payload)).collect();
        assert_eq!((savings.handed_out(), savings.saved()), (10_000, 9000));
        drop((payload, others));
        assert_eq!(first.bytes(), [b'x'; 1000]);
        assert_eq!((savings.handed_out(), savings.saved()), (1000, 0));
        drop(first);
        assert_eq!((savings.handed_out(), savings.saved()), (0, 0));
    }
}
