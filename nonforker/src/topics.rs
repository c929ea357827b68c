//! What is said to many at once: connections subscribe to topics, and messages are published to them.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
};

use crate::{
    codec::{Codec, Encode, EncodeError},
    conn::{output::Output, pushed::Overflow},
    connections::Connections,
    context::{Conn, Member},
    engine::{
        slot::Slot,
        topics::{Message, Published, Subscribers},
    },
    error::{CloseReason, SubscribeError},
    handler::Handler,
};

/// The connection whose callback this is, for a message that comes to it as well.
pub(crate) struct Own<'a> {
    pub(crate) slot: &'a mut Slot,
    pub(crate) output: &'a mut Output,
    pub(crate) member: &'a mut dyn Any,
}

impl<H: Handler> Conn<'_, H> {
    /// From now on this connection gets what is [published](Connections::publish) to a topic of this
    /// service, until it [leaves](Self::unsubscribe) the topic or closes. If it has subscribed to it
    /// already, `overflow` takes the place of the former one.
    ///
    /// A topic is any bytes, up to 256, and there is nothing to be created. A connection that closes
    /// subscribes to nothing.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the topic is longer, or if the connection has subscribed to 1,000 topics.
    /// Nothing changes then.
    ///
    /// # Examples
    ///
    /// A line `+rust` subscribes, a line `-rust` leaves, and a line `rust is fine` is published to
    /// `rust`:
    ///
    /// ```
    /// use nonforker::{Outcome, Overflow, Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| -> Outcome {
    ///     match line {
    ///         [b'+', topic @ ..] => conn.subscribe(topic, Overflow::DropOldest)?,
    ///         [b'-', topic @ ..] => _ = conn.unsubscribe(topic),
    ///         _ => {
    ///             let topic = line.split(|&byte| byte == b' ').next().unwrap_or(line);
    ///             conn.publish(topic, line)?;
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// # let _ = server;
    /// ```
    pub fn subscribe(
        &mut self,
        topic: impl AsRef<[u8]>,
        overflow: Overflow,
    ) -> Result<(), SubscribeError> {
        self.core.subscribe(self.slot, topic.as_ref(), overflow)
    }

    /// This connection gets no more of a topic. What is queued for it stays so. Returns whether it had
    /// subscribed.
    pub fn unsubscribe(&mut self, topic: impl AsRef<[u8]>) -> bool {
        self.core.unsubscribe(self.slot, topic.as_ref())
    }

    /// Queues a message for every connection of this service that has subscribed to a topic, this one
    /// included: see [`Connections::publish`].
    ///
    /// This connection gets it between what it was sent before and after this call. It waits for no
    /// open [ticket](Self::defer), although what is [sent](Self::send) does.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the codec cannot frame it. Then nobody gets it.
    pub fn publish<R>(&mut self, topic: impl AsRef<[u8]>, reply: R) -> Result<usize, EncodeError>
    where
        H::Codec: Encode<R>,
        R: Clone,
    {
        self.others().publish(topic, reply)
    }

    /// How many messages were dropped so far that this connection had subscribed to, because the peer
    /// did not take them in time: see [`Overflow`]. [`Handler::relieved`] is called when it has caught
    /// up, a good moment to send it the state of things.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.slot.dropped()
    }
}

impl<H: Handler> Connections<'_, H> {
    /// Queues a message for every connection of this service that has
    /// [subscribed](Conn::subscribe) to a topic, the one whose callback this is included. Returns for
    /// how many it was queued: 0 for a topic that nobody has subscribed to.
    ///
    /// The message is framed once, by a clone of the codec that the service was given, unless a codec
    /// says that it does not [share](Codec::shares). Its bytes are in memory once, however many connections
    /// wait for them, unless it is shorter than 1 KiB and other output is queued: then it is copied. Each subscriber gets the messages of a
    /// topic in the order in which they were published. For one that does not keep up, [`Overflow`]
    /// says what happens beyond [`Limits::output_cap`](crate::Limits::output_cap).
    ///
    /// With [shards](crate::Shards) it goes to all that have subscribers, framed once for all of them;
    /// the number that is returned is that of this shard. What one handler publishes to a topic is
    /// delivered everywhere in that order; what those of several shards publish at a time, in any
    /// order. A shard that is far behind with its mail, by
    /// [`Limits::remote_max`](crate::Limits::remote_max) messages or its part of a sixteenth of the
    /// memory budget, loses what comes then: its subscribers close, or have it counted as
    /// [dropped](Conn::dropped), as their [`Overflow`] says. A codec that does not share frames for
    /// its own shard only: a message in another one's framing is lost for it in the same way.
    ///
    /// Only the `others` of [`Conn::parts`] are without the connection whose callback it is, since
    /// its output is lent.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the codec cannot frame it. Then nobody gets it. A connection whose own codec
    /// frames it, and cannot, closes.
    ///
    /// # Examples
    ///
    /// A thread publishes:
    ///
    /// ```
    /// use nonforker::{Connections, Handler, PostError, Remote, codec::Lines};
    ///
    /// fn tell<H: Handler<Codec = Lines>>(remote: &Remote<H>, price: u64) -> Result<(), PostError> {
    ///     remote.post(move |_, all: &mut Connections<'_, H>| {
    ///         all.publish("price", price.to_string())?;
    ///         nonforker::Outcome::Ok(())
    ///     })
    /// }
    /// ```
    pub fn publish<R>(&mut self, topic: impl AsRef<[u8]>, reply: R) -> Result<usize, EncodeError>
    where
        H::Codec: Encode<R>,
        R: Clone,
    {
        let topic = topic.as_ref();
        let elsewhere = self.core.other_shards_of(self.service, topic);
        if self.subscribers(topic) == 0 && elsewhere.is_none() {
            return Ok(0);
        }
        let message = self.encode(&reply)?.map(|encoded| {
            let encoded = Arc::new(encoded.into_boxed_slice());
            if let Some((topic, shards)) = elsewhere {
                let encoded = Arc::clone(&encoded);
                let published = Published { service: self.service, topic, encoded };
                self.core.publish_to(&shards, &published);
            }
            self.core.message(encoded)
        });
        let encode = |codec: &mut H::Codec| {
            let mut encoded = Vec::new();
            Some(codec.encode(reply.clone(), &mut encoded).map(|()| encoded))
        };
        Ok(self.deliver_here(topic, message.as_ref(), encode))
    }

    /// How many connections of this service have subscribed to a topic, those included that close just
    /// now. With [shards](crate::Shards), those of this shard: it does not know how many the others
    /// have.
    #[must_use]
    pub fn subscribers(&self, topic: impl AsRef<[u8]>) -> usize {
        self.core.desks[self.service as usize].topics.count(topic.as_ref())
    }

    /// The message as a new connection's codec frames it, if it frames it as all do.
    fn encode<R>(&mut self, reply: &R) -> Result<Option<Vec<u8>>, EncodeError>
    where
        H::Codec: Encode<R>,
        R: Clone,
    {
        let prototype = self.core.desks[self.service as usize].prototype.downcast_ref();
        let prototype: &Rc<H::Codec> =
            prototype.expect("a service is found by the type of its handler");
        if !prototype.shares() {
            return Ok(None);
        }
        let mut encoded = Vec::new();
        H::Codec::clone(prototype).encode(reply.clone(), &mut encoded)?;
        Ok(Some(encoded))
    }
}

impl<H: Handler> Connections<'_, H> {
    /// Delivers a message to the subscribers of this shard. Returns for how many it was queued.
    ///
    /// One whose codec frames it by itself gets what `encode` makes of it. If that is nothing, it
    /// misses the message.
    pub(crate) fn deliver_here(
        &mut self,
        topic: &[u8],
        message: Option<&Message>,
        encode: impl FnMut(&mut H::Codec) -> Option<Result<Vec<u8>, EncodeError>>,
    ) -> usize {
        let service = self.service as usize;
        let subscribers = self.core.desks[service].topics.take(topic);
        // A codec may panic: the subscribers are still there then.
        let queued = catch_unwind(AssertUnwindSafe(|| self.deliver(&subscribers, message, encode)));
        self.core.desks[service].topics.put_back(topic, subscribers);
        queued.unwrap_or_else(|payload| resume_unwind(payload))
    }

    fn deliver(
        &mut self,
        subscribers: &Subscribers,
        shared: Option<&Message>,
        mut encode: impl FnMut(&mut H::Codec) -> Option<Result<Vec<u8>, EncodeError>>,
    ) -> usize {
        let Self { core, table, own, .. } = self;
        let mut queued = 0;
        for (&token, &overflow) in subscribers {
            let (slot, member, output) = match (own.as_mut(), table.entry(token)) {
                (_, Some(entry)) => (&mut entry.slot, &mut entry.member, None),
                (Some(Own { slot, output, member }), None) if slot.token() == token => {
                    (&mut **slot, &mut **member, Some(&mut **output))
                }
                _ => continue,
            };
            let Some(Member { codec, .. }) = member.downcast_mut::<Member<H>>() else { continue };
            let alone;
            let message = match shared {
                Some(message) if codec.shares() => message,
                _ => match encode(codec) {
                    Some(Ok(encoded)) => {
                        alone = Message::Alone(encoded);
                        &alone
                    }
                    Some(Err(error)) => {
                        core.close(slot, CloseReason::Encode(error));
                        continue;
                    }
                    None => {
                        core.misses(slot, overflow, 1);
                        continue;
                    }
                },
            };
            queued += usize::from(core.deliver(slot, output, message, overflow));
        }
        queued
    }
}
