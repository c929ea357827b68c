//! Opening connections: one after the other, before anything is measured.
//!
//! Towards loopback they are spread over source addresses, since one address has only some 28000
//! ports to offer.
//!
//! A connection whose two addresses are equal is refused. Where nobody listens at a port from which
//! the kernel also takes its source ports, TCP connects a socket to itself now and then, and such a
//! socket echoes whatever is sent.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use nonforker::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{error::Error, load::Load, stream::Stream};

/// Connections from one source address; the kernel has 28232 ports for it, if nobody changed that.
const PER_SOURCE: usize = 20_000;

/// Descriptors that are not connections: standard streams, the poll, files of `/proc`.
pub(crate) const DESCRIPTORS_SPARE: u64 = 32;

/// Raises the limit of descriptors to what these connections need.
pub(crate) fn reserve(connections: usize) -> Result<(), Error> {
    let limit = nonforker::raise_descriptor_limit().unwrap_or(u64::MAX);
    if connections as u64 > limit.saturating_sub(DESCRIPTORS_SPARE) {
        return Err(Error::Descriptors { needed: connections, limit });
    }
    Ok(())
}

/// How to open the connections of a load.
#[derive(Debug)]
pub(crate) struct Opener<'l> {
    load: &'l Load,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Tls>,
}

impl<'l> Opener<'l> {
    pub(crate) fn new(load: &'l Load) -> io::Result<Self> {
        Ok(Self {
            load,
            #[cfg(feature = "tls")]
            tls: load.tls.then(crate::tls::Tls::new).transpose()?,
        })
    }

    /// Opens the `nth` connection. With TLS its handshake is done.
    pub(crate) fn open(&self, nth: usize) -> io::Result<Stream> {
        let socket = open(&self.load.address, nth, self.load.timeout)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(Stream::Tls(Box::new(tls.begin(socket, self.load.timeout)?)));
        }
        socket.set_nonblocking(true)?;
        Ok(Stream::Plain(socket))
    }
}

/// Opens the `nth` connection to a server.
fn open(to: &Address, nth: usize, timeout: Duration) -> io::Result<Socket> {
    Ok(match to {
        Address::Tcp(to) => {
            let from = source(to.ip(), nth).map(|source| SocketAddr::from((source, 0)));
            tcp(*to, from, timeout)?
        }
        Address::Unix(path) => unix(&SockAddr::unix(path)?, timeout)?,
        Address::Abstract(name) => unix(&SockAddr::unix(format!("\0{name}"))?, timeout)?,
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    })
}

fn tcp(to: SocketAddr, from: Option<SocketAddr>, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    // A batch is one write; waiting for more to send would only distort what is measured.
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&to.into(), timeout)?;
    let (local, peer) = (socket.local_addr()?.as_socket(), socket.peer_addr()?.as_socket());
    if local == peer {
        return Err(io::Error::other("the connection is to itself: no server listens there"));
    }
    Ok(socket)
}

/// Waits while the backlog is full, since the kernel has no other way to say so; but not for ever.
fn unix(to: &SockAddr, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(to).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "the server does not accept it in time")
        }
        _ => error,
    })?;
    Ok(socket)
}

/// Where the `nth` connection comes from, if not from where the kernel chooses.
fn source(to: IpAddr, nth: usize) -> Option<Ipv4Addr> {
    let IpAddr::V4(to) = to else { return None };
    let further = u16::try_from(nth / PER_SOURCE).ok().filter(|&nth| nth > 0)?;
    let [high, low] = further.to_be_bytes();
    to.is_loopback().then_some(Ipv4Addr::new(127, 1, high, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_on_loopback_only() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(source(loopback, 0), None);
        assert_eq!(source(loopback, PER_SOURCE - 1), None);
        assert_eq!(source(loopback, PER_SOURCE), Some(Ipv4Addr::new(127, 1, 0, 1)));
        assert_eq!(source(loopback, 300 * PER_SOURCE), Some(Ipv4Addr::new(127, 1, 1, 44)));
        assert_eq!(source(IpAddr::from([10, 0, 0, 1]), 90_000), None);
        assert_eq!(source("::1".parse().unwrap(), 90_000), None);
    }

    #[test]
    fn a_connection_to_itself_is_refused() {
        for to in ["127.0.0.1:0", "[::1]:0"] {
            // A port that is free, and from which nobody else connects.
            let Ok(listener) = std::net::TcpListener::bind(to) else { continue };
            let to = listener.local_addr().unwrap();
            drop(listener);
            let error = tcp(to, Some(to), Duration::from_secs(9)).expect_err("nobody listens");
            assert!(error.to_string().contains("connection is to itself"), "{to}: {error}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_unix_socket_that_accepts_nobody_is_given_up_on() {
        let path = std::env::temp_dir().join(format!("nonforker-bench-{}", std::process::id()));
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let to = Address::Unix(path.clone());
        let opened: Vec<_> = (0..3).map(|nth| open(&to, nth, Duration::from_millis(50))).collect();
        let _ = std::fs::remove_file(&path);
        let error = opened.into_iter().find_map(Result::err).expect("the backlog is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn connections_beyond_the_ports_of_one_address_come_from_another() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        for (nth, source) in [(0, [127, 0, 0, 1]), (PER_SOURCE, [127, 1, 0, 1])] {
            let _socket = open(&address, nth, Duration::from_secs(9)).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::from(source));
        }
    }
}
