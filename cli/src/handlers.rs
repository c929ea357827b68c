//! The handlers that come with the program: each turns one request into at most one reply, or into a
//! message to all others.

use std::marker::PhantomData;

use clap::ValueEnum;
use nonforker::{
    Address, Conn, Frame, Handler as Callbacks, Outcome, Overflow, Parts, Server,
    codec::{Codec, Encode},
};

/// What the reply to a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Handler {
    /// The request itself
    Echo,
    /// Nothing: requests are taken and forgotten
    Discard,
    /// The request with its ASCII letters in upper case
    Upper,
    /// The request with its ASCII letters in lower case
    Lower,
    /// The request's bytes from the last to the first
    Reverse,
    /// How many bytes the request has, its end not counted, as a decimal number
    Length,
    /// Nothing, and all other clients get the request; one that only listens, while nobody says
    /// anything, meets --unused-timeout
    Broadcast,
    /// The same with the sender's ID before it, a colon and a blank
    Chat,
}

impl Handler {
    /// Has `server` answer at `address`.
    pub(crate) fn serve<C>(self, server: Server, address: Address, codec: C) -> Server
    where
        C: for<'f> Codec<Frame<'f> = &'f [u8]>,
        C: for<'r> Encode<&'r [u8]> + Encode<Vec<u8>> + Encode<String>,
    {
        match self {
            Self::Echo => server.serve(address, codec, |conn, frame| conn.send(frame)),
            Self::Discard => server.serve(address, codec, |_conn, _frame| {}),
            Self::Upper => {
                server.serve(address, codec, |conn, frame| conn.send(frame.to_ascii_uppercase()))
            }
            Self::Lower => {
                server.serve(address, codec, |conn, frame| conn.send(frame.to_ascii_lowercase()))
            }
            Self::Reverse => server.serve(address, codec, |conn, frame| {
                conn.send(frame.iter().rev().copied().collect::<Vec<u8>>());
            }),
            Self::Length => {
                server.serve(address, codec, |conn, frame| conn.send(frame.len().to_string()))
            }
            Self::Broadcast => server.serve_with(address, codec, Room::new(false)),
            Self::Chat => server.serve_with(address, codec, Room::new(true)),
        }
    }
}

/// The topic to which all clients subscribe.
const ROOM: &str = "room";

/// Says to all others what one says, on all shards.
struct Room<C> {
    /// With the ID of the one.
    names: bool,
    codec: PhantomData<fn(C)>,
}

impl<C> Room<C> {
    const fn new(names: bool) -> Self {
        Self { names, codec: PhantomData }
    }
}

impl<C> Callbacks for Room<C>
where
    C: for<'f> Codec<Frame<'f> = &'f [u8]> + Encode<Vec<u8>>,
{
    type Codec = C;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        Ok(conn.subscribe(ROOM, Overflow::Close)?)
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: Frame<'_, Self>) -> Outcome {
        let message = match self.names {
            true => [conn.id().to_string().as_bytes(), b": ", line].concat(),
            false => line.to_vec(),
        };
        let Parts { mut others, .. } = conn.parts();
        others.publish(ROOM, message)?;
        Ok(())
    }
}
