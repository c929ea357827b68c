//! The requests and their replies: made once, before the run, sent from and compared with where
//! they lie.
//!
//! ```text
//!  │ 0‥ │ 1‥ │ 2‥ │ … │ K-1‥ ┃ 0‥ │ 1‥ │ …        a ring of K numbered messages, and
//!  └──────── period ─────────┴─ its beginning again: any `span` bytes lie in one piece
//! ```
//!
//! All connections share the ring. Each begins at a place of its own and goes round, so a request
//! differs from those before and after it and from those of other connections. A batch of requests
//! is one slice to write, and a batch of replies one slice to compare with: nothing is built and
//! nothing is searched per message. Where a reply is not its request again, there is a second ring.

use crate::codec::Codec;

/// The least and the most bytes of the ring: more messages differ, and it stays in the cache.
const RING_MIN: usize = 256 * 1024;
const RING_MAX: usize = 4 * 1024 * 1024;

/// Digits of a message's number.
const DIGITS_MAX: usize = 8;

/// What stands before and behind the letters of a message.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) head: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

/// What is sent, and what has to come back.
#[derive(Debug)]
pub(crate) struct Messages {
    requests: Ring,
    /// None if they are the requests.
    replies: Option<Ring>,
}

impl Messages {
    /// Messages of `size` bytes, which `codec` counts, for this many connections, of which any
    /// `in_flight`, and any `span` bytes, can be had in one piece.
    pub(crate) fn new(
        codec: &Codec,
        size: usize,
        connections: usize,
        in_flight: usize,
        span: usize,
    ) -> Result<Self, String> {
        let Some(letters) = codec.letters(size) else {
            let least = codec.end().len() + 1;
            return Err(format!("`size`: a request has at least {least} bytes, its end counted"));
        };
        let alphabet: Vec<u8> = (b'a'..=b'z')
            .chain(b'A'..=b'Z')
            .chain(b'0'..=b'9')
            .filter(|letter| !codec.end().contains(letter))
            .collect();
        if alphabet.len() < 2 {
            return Err("`codec`: the delimiter leaves no letters to write requests with".into());
        }
        let bytes = codec.request_bytes(size);
        let count = (RING_MIN / bytes).max(connections).min(RING_MAX / bytes).max(2);
        let ring = |around| Ring::new(count, letters, &around, &alphabet, in_flight, span);
        Ok(Self {
            requests: ring(codec.request(size))?,
            replies: codec.reply(size).map(ring).transpose()?,
        })
    }

    pub(crate) fn requests(&self) -> &Ring {
        &self.requests
    }

    pub(crate) fn replies(&self) -> &Ring {
        self.replies.as_ref().unwrap_or(&self.requests)
    }

    /// The number of the message that a connection begins with: as far as can be from all the
    /// others.
    pub(crate) fn first(&self, connection: usize, connections: usize) -> usize {
        let count = self.requests.period / self.requests.size;
        let stride = (count / connections.max(1)).max(1);
        connection.wrapping_mul(stride) % count
    }

    /// How many bytes may come back for this many requests, of which `unsent` bytes have not been sent.
    ///
    /// An echo may begin before its request has ended, any other reply may not.
    pub(crate) fn due(&self, requests: usize, unsent: usize) -> usize {
        match &self.replies {
            None => (requests * self.requests.size).saturating_sub(unsent),
            Some(replies) => {
                requests.saturating_sub(unsent.div_ceil(self.requests.size)) * replies.size
            }
        }
    }
}

/// Messages that differ, again and again.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    size: usize,
    period: usize,
}

impl Ring {
    fn new(
        count: usize,
        letters: usize,
        around: &Around,
        alphabet: &[u8],
        in_flight: usize,
        span: usize,
    ) -> Result<Self, String> {
        let size = around.head.len() + letters + around.end.len();
        let (period, span) = (count * size, span.max(in_flight.saturating_mul(size)));
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(period + span).map_err(|_| {
            let needed = period + span;
            format!("`size`: there is no memory for requests of {size} bytes: {needed} are needed")
        })?;
        for number in 0..count {
            bytes.extend_from_slice(&around.head);
            write(&mut bytes, number, letters, alphabet);
            bytes.extend_from_slice(&around.end);
        }
        while bytes.len() < period + span {
            let more = (period + span - bytes.len()).min(period);
            bytes.extend_from_within(..more);
        }
        Ok(Self { bytes, size, period })
    }

    /// Bytes of a message.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where a message begins.
    pub(crate) fn place(&self, number: usize) -> usize {
        number * self.size
    }

    /// The bytes from a place in the ring, at most `span` of them.
    pub(crate) fn slice(&self, at: usize, len: usize) -> &[u8] {
        let len = len.min(self.bytes.len() - self.period);
        &self.bytes[at..at + len]
    }

    /// The place `len` bytes further on.
    pub(crate) fn after(&self, at: usize, len: usize) -> usize {
        let next = at + len;
        if next < self.period { next } else { next % self.period }
    }
}

/// Writes the number, as far as it fits, and letters that differ from message to message.
fn write(bytes: &mut Vec<u8>, number: usize, body: usize, alphabet: &[u8]) {
    let letter = |at: usize| alphabet[at % alphabet.len()];
    let mut rest = number;
    for _ in 0..body.min(DIGITS_MAX) {
        bytes.push(letter(rest));
        rest /= alphabet.len();
    }
    bytes.extend((DIGITS_MAX..body).map(|at| letter(at + number)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn messages(codec: Codec, size: usize, connections: usize, span: usize) -> Messages {
        Messages::new(&codec, size, connections, 1, span).unwrap()
    }

    #[test]
    fn messages_differ_and_end_as_they_should() {
        let messages = messages(Codec::Crlf, 16, 10, 1000);
        let ring = messages.requests();
        let all: BTreeSet<&[u8]> = ring.bytes[..ring.period].chunks(16).collect();
        assert_eq!(all.len(), ring.period / 16);
        assert!(all.iter().all(|message| message.ends_with(b"\r\n")));
        assert!(all.iter().all(|message| !message[..14].contains(&b'\n')));
        assert_eq!(ring.slice(0, ring.period).len(), 1000, "no more than the span");
    }

    #[test]
    fn a_reply_is_what_its_request_asks_for() {
        for (size, head) in [(1, "$1\r\n"), (64, "$64\r\n"), (100_000, "$100000\r\n")] {
            let messages = messages(Codec::Resp, size, 10, 1);
            let (requests, replies) = (messages.requests(), messages.replies());
            let request_head = format!("*2\r\n$4\r\nECHO\r\n{head}");
            for number in 0..requests.period / requests.size() {
                let request = &requests.bytes[requests.place(number)..][..requests.size()];
                let reply = &replies.bytes[replies.place(number)..][..replies.size()];
                let letters = request.strip_prefix(request_head.as_bytes()).unwrap();
                assert_eq!(reply.strip_prefix(head.as_bytes()).unwrap(), letters);
                assert_eq!((letters.len(), &letters[size..]), (size + 2, &b"\r\n"[..]));
            }
        }
    }

    #[test]
    fn what_is_due_has_been_asked_for() {
        let echo = messages(Codec::Lines, 10, 1, 1);
        assert_eq!((echo.due(3, 0), echo.due(3, 1), echo.due(3, 11)), (30, 29, 19));
        let resp = messages(Codec::Resp, 10, 1, 1);
        let (request, reply) = (resp.requests().size(), resp.replies().size());
        for (unsent, replies) in [(0, 3), (1, 2), (request, 2), (request + 1, 1), (3 * request, 0)]
        {
            assert_eq!(resp.due(3, unsent), replies * reply, "{unsent}");
        }
    }

    #[test]
    fn any_span_lies_in_one_piece_and_goes_round() {
        for (size, span) in [(1, 64), (64, 8192), (1 << 20, 3 << 20)] {
            let messages = messages(Codec::Raw, size, 4, span);
            let ring = messages.requests();
            let last = ring.period - size;
            let piece = ring.slice(last, span);
            assert_eq!(piece.len(), span);
            let next = ring.after(last, size);
            assert_eq!(next, 0);
            assert!(piece[size..] == ring.bytes[..span - size]);
        }
        let resp = Messages::new(&Codec::Resp, 10, 4, 1000, 1).unwrap();
        for ring in [resp.requests(), resp.replies()] {
            assert_eq!(ring.slice(0, usize::MAX).len(), 1000 * ring.size());
        }
    }

    #[test]
    fn connections_begin_apart_from_each_other() {
        let messages = messages(Codec::Lines, 64, 10_000, 64);
        let places: BTreeSet<usize> = (0..10_000).map(|nth| messages.first(nth, 10_000)).collect();
        assert_eq!(places.len(), 10_000);
    }

    #[test]
    fn what_leaves_no_room_for_a_message_is_refused() {
        let wrong = |codec, size| Messages::new(&codec, size, 1, 1, 1);
        assert!(wrong(Codec::Crlf, 2).is_err_and(|what| what.contains("at least 3")));
        let letters: String = ('0'..='z').filter(char::is_ascii_alphanumeric).collect();
        let codec = Codec::Delimited(letters.into_bytes());
        assert!(wrong(codec, 200).is_err_and(|what| what.contains("`codec`")));
    }
}
