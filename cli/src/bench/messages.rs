//! The requests: made once, before the run, and sent from where they lie.
//!
//! ```text
//!  │ 0‥ │ 1‥ │ 2‥ │ … │ K-1‥ ┃ 0‥ │ 1‥ │ …        a ring of K numbered messages, and
//!  └──────── period ─────────┴─ its beginning again: any `span` bytes lie in one piece
//! ```
//!
//! All connections share the ring. Each begins at a place of its own and goes round, so a request
//! is told from those before and after it and from those of other connections. A batch of requests
//! is one slice to write, and a batch of replies one slice to compare with: nothing is built and
//! nothing is searched per message.

/// The least and the most bytes of the ring: more messages differ, and it stays in the cache.
const RING_MIN: usize = 256 * 1024;
const RING_MAX: usize = 4 * 1024 * 1024;

/// Digits of a message's number.
const DIGITS_MAX: usize = 8;

/// The ring of messages.
#[derive(Debug)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    size: usize,
    period: usize,
}

impl Messages {
    /// Messages of `size` bytes that end in `end`, for so many connections, of which any `span`
    /// bytes can be had in one piece.
    pub(crate) fn new(
        size: usize,
        end: &[u8],
        connections: usize,
        span: usize,
    ) -> Result<Self, String> {
        let Some(body @ 1..) = size.checked_sub(end.len()) else {
            return Err(format!(
                "--size: a request has at least {} bytes, its end counted",
                end.len() + 1
            ));
        };
        let alphabet: Vec<u8> = (b'a'..=b'z')
            .chain(b'A'..=b'Z')
            .chain(b'0'..=b'9')
            .filter(|b| !end.contains(b))
            .collect();
        if alphabet.len() < 2 {
            return Err("--codec: the delimiter leaves no letters to write requests with".into());
        }
        let count = (RING_MIN / size).max(connections).min(RING_MAX / size).max(2);
        let period = count * size;
        let mut bytes = Vec::with_capacity(period + span);
        for number in 0..count {
            write(&mut bytes, number, body, &alphabet);
            bytes.extend_from_slice(end);
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

    /// Where in the ring a connection begins: as far as can be from all the others.
    pub(crate) fn start(&self, connection: usize, connections: usize) -> usize {
        let count = self.period / self.size;
        let stride = (count / connections.max(1)).max(1);
        connection.wrapping_mul(stride) % count * self.size
    }

    /// The bytes from a place in the ring, at most `span` of them.
    pub(crate) fn slice(&self, at: usize, len: usize) -> &[u8] {
        let len = len.min(self.bytes.len() - self.period);
        &self.bytes[at..at + len]
    }

    /// The place so many bytes further on.
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

    #[test]
    fn messages_differ_and_end_as_they_should() {
        let messages = Messages::new(16, b"\r\n", 10, 1000).unwrap();
        let ring = messages.slice(0, messages.period);
        let all: BTreeSet<&[u8]> = messages.bytes[..messages.period].chunks(16).collect();
        assert_eq!(all.len(), messages.period / 16);
        assert!(all.iter().all(|message| message.ends_with(b"\r\n")));
        assert!(all.iter().all(|message| !message[..14].contains(&b'\n')));
        assert_eq!(ring.len(), 1000, "no more than the span");
    }

    #[test]
    fn any_span_lies_in_one_piece_and_goes_round() {
        for (size, span) in [(1, 64), (64, 8192), (1 << 20, 3 << 20)] {
            let messages = Messages::new(size, b"", 4, span).unwrap();
            let last = messages.period - size;
            let piece = messages.slice(last, span);
            assert_eq!(piece.len(), span);
            let next = messages.after(last, size);
            assert_eq!(next, 0);
            assert!(piece[size..] == messages.bytes[..span - size]);
        }
    }

    #[test]
    fn connections_begin_apart_from_each_other() {
        let messages = Messages::new(64, b"\n", 10_000, 64).unwrap();
        let places: BTreeSet<usize> = (0..10_000).map(|nth| messages.start(nth, 10_000)).collect();
        assert_eq!(places.len(), 10_000);
    }

    #[test]
    fn what_leaves_no_room_for_a_message_is_refused() {
        assert!(Messages::new(2, b"\r\n", 1, 1).is_err_and(|what| what.contains("at least 3")));
        let letters: Vec<u8> = (b'0'..=b'z').collect();
        assert!(Messages::new(200, &letters, 1, 1).is_err_and(|what| what.contains("--codec")));
    }
}
