//! A codec of your own for frames that end at a byte: here a semicolon. Copy it, and change `END`,
//! `decode` and `encode`. Try it: `printf 'hello;world;' | nc -N 127.0.0.1 1685`.

use nonforker::{
    Server,
    codec::{Codec, Decoded, Encode, EncodeError, FrameError, check},
};

const END: u8 = b';';
const MAX: usize = 1000;

#[derive(Clone, Default)]
struct Statements {
    /// So many bytes of the frame in progress hold no end, and are not looked at again: a frame
    /// that comes byte by byte costs no more than one that comes at once.
    scanned: usize,
}

impl Codec for Statements {
    type Frame<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
        let ahead = input.iter().skip(self.scanned).position(|&byte| byte == END);
        let end = ahead.map(|ahead| self.scanned + ahead);
        // Whether it is too long must not depend on how much of it has arrived.
        if end.unwrap_or(input.len()) > MAX {
            return Err(FrameError::TooLong { max: MAX });
        }
        self.scanned = if end.is_some() { 0 } else { input.len() };
        Ok(match end {
            Some(end) => Decoded::Frame { frame: &input[..end], consumed: end + 1 },
            None => Decoded::Incomplete { need: 1 },
        })
    }
}

impl<R: AsRef<[u8]>> Encode<R> for Statements {
    fn encode(&mut self, reply: R, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(reply.as_ref());
        out.push(END);
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    // These belong into a test of yours; they take no time here.
    let codec = Statements::default();
    let (frames, end) = check::cuts(&codec, b"a;;bc;d", <[u8]>::to_vec);
    assert_eq!((frames.len(), end), (3, Err(FrameError::Truncated { have: 1 })));
    check::bound(&codec, b"x", MAX);
    check::cost(&codec, &[[b'x'; MAX].as_slice(), b";"].concat());

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve(address, codec, |conn, frame| conn.send(frame)).drain_on_signals().run()
}
