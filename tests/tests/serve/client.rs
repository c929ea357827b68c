//! A client whose every wait has a bound.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use nonforker::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::PATIENCE;

/// One connection to a server under test, TCP or Unix.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    /// Received, and not asked for yet.
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: &Address) -> Self {
        Self::connect_with(address, |_| Ok(()))
    }

    /// Connects with a socket that `set_up` has seen before.
    pub(crate) fn connect_with(
        address: &Address,
        set_up: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> Self {
        Self::open(address, set_up).expect("the server listens")
    }

    /// The server's end of a connection that the server under test has made.
    pub(crate) fn accepted(listener: &Socket) -> Self {
        let (socket, _) = loop {
            match listener.accept() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                accepted => break accepted.expect("the server connects"),
            }
        };
        socket.set_read_timeout(Some(PATIENCE)).expect("it can wait");
        socket.set_write_timeout(Some(PATIENCE)).expect("it can wait");
        Self { socket, received: Vec::new() }
    }

    pub(crate) fn try_connect(address: &Address) -> io::Result<Self> {
        Self::open(address, |_| Ok(()))
    }

    fn open(address: &Address, set_up: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Self> {
        let client = Self::prepare(address)?;
        set_up(&client.socket)?;
        client.finish(address)?;
        Ok(client)
    }

    /// A client with a descriptor and no connection, to be [finished](Self::finish) later.
    pub(crate) fn prepare(address: &Address) -> io::Result<Self> {
        let domain = match address {
            Address::Tcp(address) => Domain::for_address(*address),
            _ => Domain::UNIX,
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        Ok(Self { socket, received: Vec::new() })
    }

    /// Connects a [prepared](Self::prepare) client.
    pub(crate) fn finish(&self, address: &Address) -> io::Result<()> {
        match address {
            Address::Tcp(address) => {
                self.socket.set_tcp_nodelay(true)?;
                self.socket.connect_timeout(&SockAddr::from(*address), PATIENCE)?;
            }
            Address::Unix(path) => self.socket.connect(&SockAddr::unix(path)?)?,
            Address::Abstract(name) => {
                self.socket.connect(&SockAddr::unix(format!("\0{name}"))?)?;
            }
            _ => panic!("a kind of address that no test knows: {address}"),
        }
        self.socket.set_read_timeout(Some(PATIENCE))?;
        self.socket.set_write_timeout(Some(PATIENCE))
    }

    /// A second hold on the same connection, for another thread.
    pub(crate) fn twin(&self) -> Self {
        let socket = self.socket.try_clone().expect("a descriptor is free");
        Self { socket, received: Vec::new() }
    }

    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Sends an urgent byte.
    pub(crate) fn urgent(&self, byte: u8) -> io::Result<()> {
        self.socket.send_out_of_band(&[byte]).map(|_| ())
    }

    /// Reads once more. Returns whether something came.
    fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 64 * 1024];
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(count) => {
                    self.received.extend_from_slice(&bytes[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What was received and not asked for.
    #[cfg(feature = "_rustls")]
    pub(crate) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// The next line as text, without its ending.
    pub(crate) fn line(&mut self) -> String {
        let line = self.line_bytes();
        String::from_utf8_lossy(&line[..line.len() - 1]).into_owned()
    }

    /// The next line, with its ending.
    pub(crate) fn line_bytes(&mut self) -> Vec<u8> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received[seen..].iter().position(|&byte| byte == b'\n') {
                return self.received.drain(..=seen + at).collect();
            }
            seen = self.received.len();
            let more = self.read().unwrap_or_else(|error| panic!("no line comes: {error}"));
            assert!(more, "the connection ended in {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    /// The next line if there is one, and nothing if the connection ends before.
    pub(crate) fn try_line(&mut self) -> Option<String> {
        while !self.received.contains(&b'\n') {
            if !self.read().ok()? {
                return None;
            }
        }
        Some(self.line())
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            let more = self.read().unwrap_or_else(|error| panic!("no bytes come: {error}"));
            assert!(more, "the connection ended after {} bytes", self.received.len());
        }
        self.received.drain(..count).collect()
    }

    /// Reads and forgets so many bytes. False if the stream ended before.
    pub(crate) fn exactly_or_end(&mut self, count: usize) -> bool {
        while self.received.len() < count {
            if !self.read().unwrap_or_else(|error| panic!("no bytes come: {error}")) {
                return false;
            }
        }
        self.received.drain(..count);
        true
    }

    /// Everything up to the end of the stream, or the error that came instead.
    pub(crate) fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        while self.read()? {}
        Ok(std::mem::take(&mut self.received))
    }

    /// Everything up to the end of the stream, which has to be an orderly one.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.try_rest().unwrap_or_else(|error| {
            panic!("after {} bytes, instead of the end: {error}", self.received.len())
        })
    }

    /// [`rest`](Self::rest) as text.
    pub(crate) fn rest_text(&mut self) -> String {
        String::from_utf8_lossy(&self.rest()).into_owned()
    }

    /// The connection is reset, whatever came before.
    pub(crate) fn is_reset(&mut self) {
        match self.try_rest() {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("not a reset: {other:?}"),
        }
    }

    /// Nothing comes for a while.
    pub(crate) fn hears_nothing_for(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).expect("a timeout");
        match self.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => {
                panic!("not silence: {other:?}, {:?}", String::from_utf8_lossy(&self.received))
            }
        }
        assert!(self.received.is_empty(), "received before: {:?}", self.received);
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }

    /// Waits for some bytes for so long, whether they come or not.
    pub(crate) fn hears_something_for(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).expect("a timeout");
        let _ = self.read();
    }

    /// Sends a line and returns the next one that comes.
    pub(crate) fn ask(&mut self, line: impl AsRef<str>) -> String {
        self.send([line.as_ref(), "\n"].concat());
        self.line()
    }

    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Sends all of `bytes` and finishes, reading meanwhile. Returns all that came.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let twin = self.twin();
        thread::scope(|scope| {
            scope.spawn(move || {
                twin.send(bytes);
                twin.half_close();
            });
            self.rest()
        })
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("linger can be set");
    }

    /// Sends and never reads, until the server takes no more for a while. Returns how much.
    pub(crate) fn stuff(&self, bytes: &[u8]) -> usize {
        self.socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let (mut sent, until) = (0, Instant::now() + PATIENCE);
        while Instant::now() < until {
            match (&self.socket).write(&bytes[sent % bytes.len()..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                    return sent;
                }
                Err(error) => panic!("after {sent} bytes: {error}"),
            }
        }
        panic!("the server took {sent} bytes from one who never reads, and would take more");
    }
}

/// The next thing the handler told, within a bound.
pub(crate) fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("the handler tells nothing: {error}"))
}

/// Waits for something the handler tells, whatever comes before it.
pub(crate) fn hear(told: &Receiver<String>, expected: &str) {
    let mut others = Vec::new();
    let until = Instant::now() + PATIENCE;
    while let Ok(next) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if next == expected {
            return;
        }
        others.push(next);
    }
    panic!("the handler did not tell {expected:?} but {others:?}");
}
