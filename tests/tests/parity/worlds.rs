//! The networks on which the table of states is played: simulated, or the kernel's.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use nonforker::sim::Client;
use socket2::{Domain, SockRef, Socket, Type};

/// A client that never reads.
pub(crate) trait Peer {
    fn send(&mut self, bytes: &[u8]);
    fn half_close(&mut self);
    fn reset(self);
}

impl Peer for Client {
    fn send(&mut self, bytes: &[u8]) {
        Self::send(self, bytes);
    }

    fn half_close(&mut self) {
        Self::half_close(self);
    }

    fn reset(self) {
        Self::reset(&self);
    }
}

impl Peer for TcpStream {
    fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).expect("the kernel takes a line");
    }

    fn half_close(&mut self) {
        self.shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn reset(self) {
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).expect("an option can be set");
    }
}

/// A server and its clients, on one network.
pub(crate) trait World {
    type Peer: Peer;

    fn connect(&self) -> Self::Peer;
    /// Lets time pass.
    fn pass(&self, time: Duration);
    /// How many connections the server has.
    fn open(&self) -> u64;

    /// Lets time pass until `is_so`, at most `most`. Returns whether it is.
    fn until(&self, most: Duration, is_so: impl Fn() -> bool) -> bool {
        let step = Duration::from_millis(5);
        (0..most.as_micros() / step.as_micros()).any(|_| {
            let is_so = is_so();
            if !is_so {
                self.pass(step);
            }
            is_so
        })
    }
}

impl World for nonforker::sim::Net {
    type Peer = Client;

    fn connect(&self) -> Client {
        let client = Self::connect(self);
        client.set_window(1000);
        client.stall();
        client
    }

    fn pass(&self, time: Duration) {
        self.wait(time);
    }

    fn open(&self) -> u64 {
        let stats = self.stats();
        stats.accepted - stats.closed
    }
}

pub(crate) struct Loopback {
    pub(crate) address: SocketAddr,
    pub(crate) handle: nonforker::Handle,
}

impl World for Loopback {
    type Peer = TcpStream;

    fn connect(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option can be set");
        socket.connect(&self.address.into()).expect("the server listens");
        socket.set_tcp_nodelay(true).expect("an option can be set");
        socket.into()
    }

    #[expect(clippy::disallowed_methods, reason = "the server has a thread of its own")]
    fn pass(&self, time: Duration) {
        thread::sleep(time);
    }

    fn open(&self) -> u64 {
        let stats = self.handle.stats();
        stats.accepted - stats.closed
    }
}
