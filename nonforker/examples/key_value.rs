//! A key-value store for the clients of Redis: `redis-cli -p 1685`, or
//! `redis-benchmark -p 1685 -t ping,set,get -P 16`.

use std::collections::HashMap;

use nonforker::codec::{
    FrameError, Resp,
    resp::{Command, Reply},
};
use nonforker::{Conn, Handler, Outcome, Server};

/// What is stored. One command is handled at a time, so it needs no lock.
#[derive(Debug, Default)]
pub struct Store(HashMap<Vec<u8>, Vec<u8>>);

impl Handler for Store {
    type Codec = Resp;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, command: Command<'_>) -> Outcome {
        let reply = match command.len() {
            2 if command.is("GET") => {
                self.0.get(&command[1]).map_or(Reply::Null, |value| Reply::Bulk(value))
            }
            3 if command.is("SET") => {
                match self.0.get_mut(&command[1]) {
                    Some(value) => command[2].clone_into(value), // In the memory it has.
                    None => drop(self.0.insert(command[1].into(), command[2].into())),
                }
                Reply::OK
            }
            2.. if command.is("DEL") => {
                let gone = command.iter().skip(1).filter_map(|key| self.0.remove(key)).count();
                Reply::Integer(gone as i64)
            }
            1 if command.is("PING") => Reply::Simple("PONG"),
            2 if command.is("PING") || command.is("ECHO") => Reply::Bulk(&command[1]),
            // Asked by redis-benchmark: the name of a setting, and its value. There are none.
            3 if command.is("CONFIG") => {
                conn.send(Reply::ArrayHead(2));
                conn.send(Reply::Bulk(&command[2]));
                Reply::Bulk(b"")
            }
            _ if command.is("COMMAND") => Reply::Array(&[]), // Asked by redis-cli.
            _ => Reply::Error("ERR unknown command, or wrong number of arguments"),
        };
        conn.send(reply);
        Ok(())
    }

    fn rejected(&mut self, conn: &mut Conn<'_, Self>, error: &FrameError) {
        conn.send(error);
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    let resp = Resp::with_max(1024 * 1024);
    Server::new().serve_with(address, resp, Store::default()).drain_on_signals().run()
}
