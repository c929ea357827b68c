//! The handlers that come with the program: each turns one request into at most one reply.

use clap::ValueEnum;
use nonforker::{
    Address, Server,
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
        }
    }
}
