//! Newline echo, by hand over mio, as well as we know how to.
//!
//! Edge-triggered. One read of at most 64 KiB per connection and turn into a shared buffer, one write
//! right after it. A short read ends the turn of a connection; a full one puts it into `again`.

#[path = "../../lines.rs"]
mod lines;

use std::{
    io::{self, ErrorKind, Read, Write},
    time::Duration,
};

use lines::{Partial, READ_BYTES};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);

struct Conn {
    stream: TcpStream,
    partial: Partial,
    /// What the socket did not take, and how much of it has left since.
    unsent: Vec<u8>,
    sent: usize,
    /// There will be no other event: it is read until its end shows.
    finished: bool,
}

struct Server {
    poll: Poll,
    conns: Slab<Conn>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Connections that may have more to read.
    again: Vec<usize>,
}

fn main() -> io::Result<()> {
    let mut listener = TcpListener::bind(lines::address())?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        poll,
        conns: Slab::new(),
        input: vec![0; READ_BYTES],
        output: Vec::with_capacity(2 * READ_BYTES),
        again: Vec::new(),
    };
    let mut events = Events::with_capacity(256);
    loop {
        let timeout = if server.again.is_empty() { None } else { Some(Duration::ZERO) };
        match server.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for key in std::mem::take(&mut server.again) {
            server.turn(key);
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener),
                Token(key) => {
                    if event.is_read_closed() && server.conns.contains(key) {
                        server.conns[key].finished = true;
                    }
                    server.turn(key);
                }
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            let conn = Conn {
                stream,
                partial: Partial::default(),
                unsent: Vec::new(),
                sent: 0,
                finished: false,
            };
            let key = self.conns.insert(conn);
            let stream = &mut self.conns[key].stream;
            if self.poll.registry().register(stream, Token(key), Interest::READABLE).is_err() {
                self.conns.remove(key);
            }
        }
    }

    fn turn(&mut self, key: usize) {
        if !self.conns.contains(key) {
            return;
        }
        let gone_on = match self.conns[key].unsent.is_empty() {
            true => self.receive(key),
            false => self.flush(key),
        };
        if gone_on.is_err() {
            let mut conn = self.conns.remove(key);
            let _ = self.poll.registry().deregister(&mut conn.stream);
        }
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let conn = &mut self.conns[key];
        let count = match conn.stream.read(&mut self.input) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        self.output.clear();
        if !conn.partial.take(&self.input[..count], &mut self.output) {
            return Err(ErrorKind::InvalidData.into());
        }
        let sent = match self.output.len() {
            0 => 0,
            _ => write(&mut conn.stream, &self.output)?,
        };
        if sent < self.output.len() {
            conn.unsent = self.output[sent..].to_vec();
            conn.sent = 0;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().reregister(&mut conn.stream, Token(key), both)?;
        } else if count == 0 || count == self.input.len() || conn.finished {
            self.again.push(key);
        }
        Ok(())
    }

    fn flush(&mut self, key: usize) -> io::Result<()> {
        let conn = &mut self.conns[key];
        conn.sent += write(&mut conn.stream, &conn.unsent[conn.sent..])?;
        if conn.sent == conn.unsent.len() {
            conn.unsent = Vec::new();
            let registry = self.poll.registry();
            registry.reregister(&mut conn.stream, Token(key), Interest::READABLE)?;
            self.again.push(key); // What came meanwhile was not read.
        }
        Ok(())
    }
}

/// How much the socket took, which may be nothing.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        result => result,
    }
}
