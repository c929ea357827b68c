//! What is going to happen in a simulation, in order.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{SimSocket, link::End, world::LinkId};
use crate::driver::{AttemptId, Completion, ListenerId};

/// What happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client's connection reaches the listener.
    Arrives(LinkId, ListenerId),
    /// An attempt of a shard to connect reaches its target.
    Reaches(usize, AttemptId),
    Up(LinkId, Vec<u8>),
    UpUrgent(LinkId, u8),
    UpEnd(LinkId, End),
    Down(LinkId, Vec<u8>),
    DownEnd(LinkId, End),
    /// Something that had to wait is tried again.
    Look(LinkId),
    /// A slow client reads.
    Reads(LinkId),
    /// A report for a shard that was late.
    Late(usize, Completion<'static, SimSocket>),
    /// Whoever waits at a listener that shards share is told to all of them.
    TellAll(ListenerId),
    /// A script waits for this time.
    Alarm,
}

#[derive(Debug)]
struct Scheduled {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything that is going to happen, the earliest first, and at one moment in the order in
/// which it was put here.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
}

impl Events {
    /// Has `event` happen at `at`.
    pub(crate) fn push(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, event }));
    }

    /// When the next one happens.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    /// Takes the next one that is due at `now`.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Event> {
        self.next_at().filter(|&at| at <= now)?;
        self.queue.pop().map(|Reverse(scheduled)| scheduled.event)
    }
}
