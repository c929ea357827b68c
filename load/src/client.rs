//! One connection's books: what it has asked for, what came back, and whether that is right.
//!
//! ```text
//!  ask(n) ──▶ unsent ── flush ──▶ awaited ── take(bytes) ──▶ replies
//! ```
//!
//! A reply is compared with what is due where both lie: the received bytes with a slice of the
//! ring. Partial writes, and replies in pieces, are positions in that ring and nothing else.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write},
};

use crate::{generator::Role, human::human, messages::Messages, stream::Stream};

/// Where a reply ends, and whether it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// A reply is the one that is due, byte for byte.
    Same,
    /// A reply ends at this byte, whatever is in it.
    Ends(u8),
    /// A reply has as many bytes as the one that is due, whatever they are.
    Length,
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server closed it.
    Closed,
    /// The kernel says that it is broken.
    Broken(io::Error),
    /// A reply differs from the one that is due.
    Wrong {
        /// Where, counted from the first byte of all replies.
        offset: u64,
        expected: u8,
        got: u8,
    },
    /// There are more bytes than were asked for.
    Unasked,
    /// A request is unanswered for longer than a reply may take.
    Late {
        /// Nanoseconds since it was put up for sending, or due.
        age: u64,
    },
    /// The run has ended, and a request was waited for in vain.
    Unanswered {
        /// Nanoseconds since it was put up for sending, or due.
        age: u64,
        /// What the slowest reply of the run took, in nanoseconds.
        slowest: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "closed by the server"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Wrong { offset, expected, got } => write!(
                f,
                "wrong reply: byte {offset} is {:?} and not {:?}",
                char::from(*got),
                char::from(*expected)
            ),
            Self::Unasked => write!(f, "wrong reply: more bytes than were asked for"),
            Self::Late { age } => {
                write!(f, "no reply in time: a request is unanswered for {}", human(*age))
            }
            Self::Unanswered { age, slowest } => write!(
                f,
                "no reply in time: a request is unanswered for {}, after the end of the run; the \
                 slowest reply took {}",
                human(*age),
                human(*slowest)
            ),
        }
    }
}

/// Requests that left together.
#[derive(Clone, Copy, Debug)]
struct Batch {
    at: u64,
    messages: usize,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) role: Role,
    /// None once it has failed.
    pub(crate) stream: Option<Stream>,
    /// Messages asked for and not answered, sent or not; those of a failed connection, too.
    awaited: usize,
    /// Messages asked for that will never be sent.
    withdrawn: usize,
    unsent: usize,
    send_at: usize,
    expect_at: usize,
    /// Bytes of the reply that has begun to arrive.
    partial: usize,
    received: u64,
    replies: u64,
    batches: VecDeque<Batch>,
}

impl Client {
    /// A connection that begins with this message.
    pub(crate) fn new(role: Role, stream: Stream, messages: &Messages, first: usize) -> Self {
        Self {
            role,
            stream: Some(stream),
            awaited: 0,
            withdrawn: 0,
            unsent: 0,
            send_at: messages.requests().place(first),
            expect_at: messages.replies().place(first),
            partial: 0,
            received: 0,
            replies: 0,
            batches: VecDeque::new(),
        }
    }

    /// Messages asked for and not answered.
    pub(crate) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Messages asked for that will never be sent.
    pub(crate) fn withdrawn(&self) -> usize {
        self.withdrawn
    }

    /// When the oldest of the messages that are awaited was asked for, as [`stamp`](Self::stamp)
    /// says.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.batches.front().map(|batch| batch.at)
    }

    /// Replies that have come.
    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Puts `count` requests up for sending.
    pub(crate) fn ask(&mut self, count: usize, messages: &Messages) {
        self.awaited += count;
        self.unsent += count * messages.requests().size();
    }

    /// Expects what another connection has asked for.
    pub(crate) fn expect(&mut self, count: usize, now: u64) {
        self.awaited += count;
        self.stamp(count, now);
    }

    /// Sends requests that will be answered to others.
    pub(crate) fn send(&mut self, count: usize, messages: &Messages) -> Result<(), Fault> {
        self.unsent += count * messages.requests().size();
        self.flush(messages)
    }

    /// Sends nothing any more of requests that have not begun to leave.
    pub(crate) fn withdraw(&mut self, messages: &Messages) {
        let size = messages.requests().size();
        let withdrawn = self.unsent / size;
        self.unsent %= size;
        self.awaited -= withdrawn;
        self.withdrawn += withdrawn;
    }

    /// Ends the connection. Its missing replies stay counted. Says whether it was open.
    pub(crate) fn end(&mut self) -> bool {
        self.unsent = 0;
        self.stream.take().is_some()
    }

    /// Remembers when requests were put up, so that [`answered`](Self::answered) can give their latencies.
    pub(crate) fn stamp(&mut self, count: usize, now: u64) {
        self.batches.push_back(Batch { at: now, messages: count });
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self, messages: &Messages) -> Result<(), Fault> {
        let Some(stream) = self.stream.as_mut() else { return Ok(()) };
        let requests = messages.requests();
        loop {
            let written = match self.unsent {
                0 => stream.settle().map(|()| 0),
                unsent => stream.write(requests.slice(self.send_at, unsent)),
            };
            match written {
                Ok(sent) => {
                    self.unsent -= sent;
                    self.send_at = requests.after(self.send_at, sent);
                    if self.unsent == 0 {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Broken(error)),
            }
        }
    }

    /// Writes once, at most `most` bytes of requests whose replies are not counted.
    pub(crate) fn push(&mut self, messages: &Messages, most: usize) -> Result<usize, Fault> {
        let Some(stream) = self.stream.as_mut() else { return Ok(0) };
        let requests = messages.requests();
        match stream.write(requests.slice(self.send_at, most)) {
            Ok(sent) => {
                self.send_at = requests.after(self.send_at, sent);
                Ok(sent)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(Fault::Broken(error)),
        }
    }

    /// Takes what was received, and returns how many replies are complete with it.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        messages: &Messages,
        check: Check,
    ) -> Result<usize, Fault> {
        let replies = match check {
            Check::Ends(end) => bytes.iter().filter(|&&byte| byte == end).count(),
            Check::Same | Check::Length => self.measure(bytes, messages, check)?,
        };
        if replies > self.awaited {
            return Err(Fault::Unasked);
        }
        self.awaited -= replies;
        self.replies += replies as u64;
        self.received += bytes.len() as u64;
        Ok(replies)
    }

    /// Replies of a length that is known.
    fn measure(&mut self, bytes: &[u8], messages: &Messages, check: Check) -> Result<usize, Fault> {
        let replies = messages.replies();
        let due = messages.due(self.awaited, self.unsent).saturating_sub(self.partial);
        if check == Check::Same {
            let due = &bytes[..bytes.len().min(due)];
            let expected = replies.slice(self.expect_at, due.len());
            if due != expected {
                return Err(self.wrong(due, expected));
            }
            self.expect_at = replies.after(self.expect_at, due.len());
        }
        if bytes.len() > due {
            return Err(Fault::Unasked);
        }
        let have = self.partial + bytes.len();
        self.partial = have % replies.size();
        Ok(have / replies.size())
    }

    /// Where the difference is.
    fn wrong(&self, bytes: &[u8], expected: &[u8]) -> Fault {
        let mut pairs = bytes.iter().zip(expected).enumerate();
        match pairs.find(|(_, (got, expected))| got != expected) {
            Some((at, (&got, &expected))) => {
                Fault::Wrong { offset: self.received + at as u64, expected, got }
            }
            None => Fault::Unasked,
        }
    }

    /// Says for how long each reply has been awaited, in batches: the oldest first.
    pub(crate) fn ages(&self, now: u64, mut each: impl FnMut(u64, usize)) {
        for batch in &self.batches {
            each(now.saturating_sub(batch.at), batch.messages);
        }
    }

    /// Says when each of these replies was asked for, in batches: the oldest first.
    pub(crate) fn answered(&mut self, mut replies: usize, mut each: impl FnMut(u64, usize)) {
        while let Some(batch) = self.batches.front_mut().filter(|_| replies > 0) {
            let count = batch.messages.min(replies);
            each(batch.at, count);
            replies -= count;
            batch.messages -= count;
            if batch.messages == 0 {
                self.batches.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::codec::Codec;

    const SIZE: usize = 10;

    /// Messages of one codec whose replies are the requests, and of one whose replies are not.
    fn both() -> [Messages; 2] {
        [Codec::Lines, Codec::Resp].map(|codec| Messages::new(&codec, SIZE, 2, 10, 1000).unwrap())
    }

    /// A connection that has sent `count` requests, and the other end of it.
    fn asked(count: usize, messages: &Messages) -> (Client, Socket) {
        let (socket, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let stream = Stream::Plain(socket);
        let mut client = Client::new(Role::Normal, stream, messages, messages.first(1, 2));
        client.ask(count, messages);
        client.flush(messages).unwrap();
        assert_eq!(client.unsent(), 0);
        (client, other)
    }

    /// The right replies to the first `count` requests of [`asked`].
    fn answers(count: usize, messages: &Messages) -> &[u8] {
        let replies = messages.replies();
        replies.slice(replies.place(messages.first(1, 2)), count * replies.size())
    }

    #[test]
    fn replies_do_not_depend_on_how_they_arrive() {
        let [lines, resp] = both();
        for (messages, check) in [
            (&lines, Check::Same),
            (&lines, Check::Length),
            (&lines, Check::Ends(b'\n')),
            (&resp, Check::Same),
            (&resp, Check::Length),
        ] {
            let replies = answers(7, messages);
            for piece in 1..=replies.len() {
                let (mut client, _other) = asked(7, messages);
                let taken = replies.chunks(piece).map(|bytes| client.take(bytes, messages, check));
                let sum: usize = taken.map(|replies| replies.expect("they are right")).sum();
                assert_eq!((sum, client.awaited(), client.replies()), (7, 0, 7), "{piece}");
                let more = client.take(b"\n", messages, check);
                assert!(matches!(more, Err(Fault::Unasked)), "{check:?}, {piece}: {more:?}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_found_at_every_place_and_in_every_piece() {
        for messages in both() {
            let size = messages.replies().size();
            for place in 0..3 * size {
                for piece in [1, 3, size, 3 * size] {
                    let (mut client, _other) = asked(3, &messages);
                    let mut replies = answers(3, &messages).to_vec();
                    replies[place] = b'?';
                    let mut pieces = replies.chunks(piece);
                    let fault =
                        pieces.find_map(|bytes| client.take(bytes, &messages, Check::Same).err());
                    assert!(
                        matches!(fault, Some(Fault::Wrong { offset, got: b'?', .. })
                            if offset == place as u64),
                        "{place} in {piece}: {fault:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_reply_to_what_has_not_left_is_wrong() {
        for messages in both() {
            let (mut client, _other) = asked(1, &messages);
            client.ask(1, &messages);
            let both = answers(2, &messages);
            assert!(matches!(client.take(both, &messages, Check::Same), Err(Fault::Unasked)));
        }
    }

    #[test]
    fn replies_find_the_batch_they_were_asked_in() {
        let [messages, _] = both();
        let (mut client, _other) = asked(5, &messages);
        client.stamp(3, 100);
        client.stamp(2, 200);
        let mut batches = Vec::new();
        client.answered(2, |at, count| batches.push((at, count)));
        client.answered(3, |at, count| batches.push((at, count)));
        client.answered(1, |at, count| batches.push((at, count)));
        assert_eq!(batches, [(100, 2), (100, 1), (200, 2)]);
        assert_eq!(client.oldest(), None);
    }

    #[test]
    fn what_is_owed_has_an_age() {
        let [messages, _] = both();
        let (mut client, _other) = asked(5, &messages);
        client.stamp(3, 100);
        client.stamp(2, 200);
        client.answered(4, |_, _| {});
        assert_eq!(client.oldest(), Some(200));
        let mut ages = Vec::new();
        client.ages(250, |age, count| ages.push((age, count)));
        assert_eq!(ages, [(50, 1)]);
    }

    #[test]
    fn what_has_not_begun_to_leave_can_be_withdrawn() {
        for messages in both() {
            let (mut client, _other) = asked(2, &messages);
            let size = messages.requests().size();
            client.ask(3, &messages);
            client.withdraw(&messages);
            assert_eq!((client.awaited(), client.withdrawn(), client.unsent()), (2, 3, 0));
            client.ask(3, &messages);
            client.push(&messages, 1).unwrap();
            client.unsent -= 1;
            client.withdraw(&messages);
            let left = (client.awaited(), client.withdrawn(), client.unsent());
            assert_eq!(left, (3, 5, size - 1), "one has begun to leave");
        }
    }
}
