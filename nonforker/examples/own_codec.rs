//! A protocol of your own: a length byte, then that many bytes. Each request is answered by its
//! bytes in reverse order. Try it: `printf '\005hello' | nc -N 127.0.0.1 1685`.

use nonforker::{
    Server,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError, check},
};

#[derive(Clone)]
struct Short;

impl Codec for Short {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let size = 1 + usize::from(input[0]);
        Ok(match input.get(1..size) {
            Some(frame) => Decoded::Frame { frame, consumed: size },
            None => Decoded::Incomplete { need: size - input.len() },
        })
    }
}

impl<R: AsRef<[u8]>> Encode<R> for Short {
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (reply, max) = (reply.as_ref(), usize::from(u8::MAX));
        let size = u8::try_from(reply.len())
            .map_err(|_| EncodeError::TooLong { len: reply.len(), max })?;
        out.push(size);
        out.extend_from_slice(reply);
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    // A codec's frames must not depend on how the bytes were cut up on their way. This belongs
    // into a test of yours; it takes no time here.
    let (frames, end) = check::cuts(&Short, b"\x02hi\x00\x03abc", <[u8]>::to_vec);
    assert_eq!((frames.len(), end), (3, Ok(())));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new()
        .serve(address, Short, |conn, frame| {
            let reversed: Vec<u8> = frame.iter().rev().copied().collect();
            conn.send(reversed);
        })
        .drain_on_signals()
        .run()
}
