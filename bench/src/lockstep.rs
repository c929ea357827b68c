//! A load that is the same each time: all requests of a batch go out, all replies are read, then the
//! next batch. A server under it does the same work in each run, however slow it is.
//!
//! What is counted is the difference between a long run and a short one. So starting, connecting and
//! ending do not count.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    prepare::Ready,
    process::{Result, Stop},
    server::Server,
};

/// Bytes of a line, its end counted.
const LINE: usize = 64;

/// How long a reply may take; servers are slow under valgrind.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to end.
const END_MAX: Duration = Duration::from_secs(30);

/// A shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// Batches of the short run.
    pub(crate) few: usize,
    /// Batches of the long run.
    pub(crate) many: usize,
}

impl Shape {
    /// By how many messages the long run is longer.
    pub(crate) fn difference(self) -> f64 {
        (self.connections * self.in_flight * (self.many - self.few)) as f64
    }

    /// Runs `ready` under `wrapper`, loads it with this many batches, and has it end.
    pub(crate) fn run(
        self,
        ready: &Ready,
        wrapper: &[String],
        batches: usize,
        stop: &Stop,
    ) -> Result<()> {
        let server = Server::start(ready, None, wrapper, stop)?;
        let exchanged = self.exchange(server.address, batches, stop);
        exchanged.map_err(|why| format!("{}: {why}", ready.peer.name))?;
        server.end(END_MAX, stop)
    }

    fn exchange(self, address: SocketAddr, batches: usize, stop: &Stop) -> Result<()> {
        let text = |error: std::io::Error| error.to_string();
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            let connection = TcpStream::connect(address).map_err(text)?;
            connection.set_nodelay(true).map_err(text)?;
            connection.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
            connections.push(connection);
        }
        let request = lines(self.in_flight);
        let mut reply = vec![0; request.len()];
        for _ in 0..batches {
            stop.check()?;
            for connection in &mut connections {
                connection.write_all(&request).map_err(text)?;
            }
            for connection in &mut connections {
                connection.read_exact(&mut reply).map_err(text)?;
                if reply != request {
                    return Err("a reply is not the request".into());
                }
            }
        }
        Ok(())
    }
}

/// So many lines, no two of them the same.
fn lines(count: usize) -> Vec<u8> {
    let line = |nth| format!("{nth:0>width$}\n", width = LINE - 1);
    (0..count).map(line).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn lines_are_as_long_as_they_should_be() {
        let text = lines(16);
        assert_eq!(text.len(), 16 * LINE);
        assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 16);
        assert_eq!(text[LINE - 1], b'\n');
    }

    #[test]
    fn the_difference_is_counted_in_messages() {
        let shape = Shape { connections: 64, in_flight: 16, few: 2, many: 12 };
        assert_eq!(shape.difference(), 10240.0);
    }

    #[test]
    fn a_wrong_reply_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; LINE];
            for wrong in [false, true] {
                connection.read_exact(&mut request).unwrap();
                request[5] ^= u8::from(wrong);
                connection.write_all(&request).unwrap();
            }
        });
        let shape = Shape { connections: 1, in_flight: 1, few: 1, many: 2 };
        let stop = Stop::on_signals().unwrap();
        let error = shape.exchange(address, 2, &stop).unwrap_err();
        assert_eq!(error, "a reply is not the request");
        server.join().unwrap();
    }
}
