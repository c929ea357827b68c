//! Clients with one request in flight each: all send, then all read, and so on.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    process::{self, Stop, now},
    server::connect,
};

/// How long a reply may take. A tool that starts a program for each client needs some of it.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a server is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    /// A line, which comes back.
    Lines,
    /// The same in messages of WebSocket.
    WebSocket,
}

impl Talk {
    fn begin(self, stream: &mut TcpStream) -> Result<()> {
        if self == Self::Lines {
            return Ok(());
        }
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )?;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            heard.push(byte[0]);
        }
        match heard.starts_with(b"HTTP/1.1 101") {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidData, "it does not speak WebSocket")),
        }
    }

    /// What is sent for a line, and what comes back. Digits are the same in upper case.
    pub(super) fn message(self, bytes: usize) -> [Vec<u8>; 2] {
        let mut line: Vec<u8> = (b'0'..=b'9').cycle().take(bytes - 1).collect();
        match self {
            Self::Lines => {
                line.push(b'\n');
                [line.clone(), line]
            }
            // A mask of zeros leaves the text as it is. Lines of up to 125 bytes only.
            Self::WebSocket => {
                let length = u8::try_from(line.len()).unwrap_or(125);
                let masked = [&[0x81, 0x80 | length, 0, 0, 0, 0][..], &line].concat();
                [masked, [&[0x81, length][..], &line].concat()]
            }
        }
    }
}

/// All clients of a server.
#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<TcpStream>,
    request: Vec<u8>,
    reply: Vec<u8>,
    heard: Vec<u8>,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    pub(super) requests: f64,
    pub(super) time: Duration,
}

impl Crowd {
    /// Connects this number of clients, one after the other, each with a first exchange: some tools accept a
    /// client long before they serve it.
    pub(super) fn enter(at: SocketAddr, talk: Talk, clients: usize, bytes: usize) -> Result<Self> {
        let [request, reply] = talk.message(bytes);
        let heard = vec![0; reply.len()];
        let mut crowd = Self { clients: Vec::new(), request, reply, heard };
        for _ in 0..clients {
            let mut stream = connect(at, TIMEOUT)?;
            talk.begin(&mut stream)?;
            stream.write_all(&crowd.request)?;
            crowd.clients.push(stream);
            crowd.hear(crowd.clients.len() - 1)?;
        }
        Ok(crowd)
    }

    fn hear(&mut self, client: usize) -> Result<()> {
        self.clients[client].read_exact(&mut self.heard)?;
        match self.heard == self.reply {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidData, "a reply is not the request")),
        }
    }

    /// One request of each.
    pub(super) fn exchange(&mut self) -> Result<()> {
        for client in &mut self.clients {
            client.write_all(&self.request)?;
        }
        (0..self.clients.len()).try_for_each(|client| self.hear(client))
    }

    /// Exchanges for that long.
    pub(super) fn load(&mut self, time: Duration, stop: &Stop) -> process::Result<Loaded> {
        let (begun, mut exchanges) = (now(), 0);
        while begun.elapsed() < time {
            self.exchange().map_err(|error| error.to_string())?;
            stop.check()?;
            exchanges += 1;
        }
        let requests = (exchanges * self.clients.len()) as f64;
        Ok(Loaded { requests, time: begun.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_it_should_be_in_either_way_of_talking() {
        let [request, reply] = Talk::Lines.message(64);
        assert_eq!((request.len(), reply.len(), request[63]), (64, 64, b'\n'));
        let [request, reply] = Talk::WebSocket.message(64);
        assert_eq!(request[..6], [0x81, 0x80 | 63, 0, 0, 0, 0]);
        assert_eq!(reply[..2], [0x81, 63]);
        assert_eq!(request[6..], reply[2..]);
    }
}
