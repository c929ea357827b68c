//! What shards say to each other about clients and workers: in order, and nothing is lost while the server
//! runs.
//!
//! ```text
//!  push ──▶ messages ──▶ one letter in the mailbox, however many there are ──▶ the other shard takes all
//! ```
//!
//! A mailbox may be full. Then the messages stay, and the caller posts again a moment later. How many there
//! are is bounded by those who push: a request has a place, and a client ends once.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    connections::Connections, context::ConnId, error::PostError, handler::Handler, remote::Remote,
    ticket::Ticket,
};

use super::{gate::Left, lines::Why};
use crate::address::Peer;

/// What a shard says to the one that has the workers. `H` is the handler of the clients.
#[derive(Debug)]
pub(super) enum ToWorkers<H: Handler> {
    /// A request, to be answered with the ticket.
    Ask { client: ConnId, ticket: Ticket<H>, payload: Vec<u8> },
    /// A client has come, with the tagged protocol.
    Open { client: ConnId, peer: Peer },
    /// It has said something.
    Data { client: ConnId, payload: Vec<u8> },
    /// It has finished sending.
    End { client: ConnId },
    /// It is gone.
    Gone { client: ConnId, why: Why },
}

/// What the shard that has the workers says to the one that has a client.
#[derive(Debug)]
pub(super) enum ToClients {
    /// Requests of that shard do not wait any more.
    Left(Left),
    /// A worker says this, framed.
    Send {
        client: ConnId,
        framed: Vec<u8>,
    },
    Close {
        client: ConnId,
    },
    /// It is closed, and this is why.
    Refuse {
        client: ConnId,
        why: &'static str,
    },
    /// It is closed, since it does not take what workers say.
    Overflows {
        client: ConnId,
    },
}

#[derive(Debug)]
struct Messages<M> {
    all: VecDeque<M>,
    bytes: usize,
    /// A letter is on its way.
    is_posted: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Channel<M>(Arc<Mutex<Messages<M>>>);

impl<M> Channel<M> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Messages { all: VecDeque::new(), bytes: 0, is_posted: false })))
    }

    fn messages(&self) -> MutexGuard<'_, Messages<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes wait, as they were said to be.
    pub(super) fn bytes(&self) -> usize {
        self.messages().bytes
    }

    pub(super) fn push(&self, message: M, bytes: usize) {
        let mut messages = self.messages();
        messages.all.push_back(message);
        messages.bytes += bytes;
    }

    /// Has the other shard `take` each message. Returns whether it will: if not, its mailbox is full.
    pub(super) fn post<H: Handler>(
        &self,
        to: &Remote<H>,
        take: fn(&mut H, M, &mut Connections<'_, H>),
        taken: fn(&mut H, &mut Connections<'_, H>),
    ) -> bool
    where
        M: Send + 'static,
    {
        let mut messages = self.messages();
        if messages.all.is_empty() || mem::replace(&mut messages.is_posted, true) {
            return true;
        }
        drop(messages);
        let there = Self(Arc::clone(&self.0));
        let posted = to.post(move |handler: &mut H, all: &mut Connections<'_, H>| {
            let mut messages = there.messages();
            (messages.bytes, messages.is_posted) = (0, false);
            let batch = mem::take(&mut messages.all);
            drop(messages);
            for message in batch {
                take(handler, message, all);
            }
            taken(handler, all);
        });
        let mut messages = self.messages();
        match posted {
            Ok(()) => true,
            Err(PostError::Full) => {
                messages.is_posted = false;
                false
            }
            // Nobody waits for them.
            Err(PostError::Ended) => {
                let dropped = mem::take(&mut messages.all);
                messages.bytes = 0;
                drop(messages);
                drop(dropped);
                true
            }
        }
    }
}
