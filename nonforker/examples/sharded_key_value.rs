//! A key-value store on every core, for `redis-cli -p 1685`: each shard owns a part of the keys. A
//! command for another shard's key travels there, and the reply comes back in its place by a ticket.

use std::collections::{HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};

use nonforker::codec::{Resp, resp::Command, resp::Reply};
use nonforker::{Conn, Connections, Handler, Outcome, Remote, Server, Shards};

/// The keys that a shard owns, and how to reach each shard.
#[derive(Debug, Default)]
pub struct Store(HashMap<Vec<u8>, Vec<u8>>, Vec<Remote<Self>>);

fn carry_out(store: &mut Store, args: &[Vec<u8>]) -> Option<Vec<u8>> {
    let [_set, key, value] = args else { return store.0.get(&args[1]).cloned() };
    store.0.insert(key.clone(), value.clone());
    Some(b"OK".to_vec())
}

fn tell(conn: &mut Conn<'_, Store>, answer: Option<Vec<u8>>) {
    conn.send(answer.as_ref().map_or(Reply::Null, |value| Reply::Bulk(value)));
}

impl Handler for Store {
    type Codec = Resp;
    type Session = ();

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        let here = all.remote();
        self.1 = (0..).map_while(|shard| here.shard(shard)).collect();
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, command: Command<'_>) -> Outcome {
        let args: Vec<_> = command.iter().map(<[u8]>::to_vec).collect();
        if !(command.is("GET") && args.len() == 2 || command.is("SET") && args.len() == 3) {
            conn.send(Reply::Error("ERR it is GET key, or SET key value"));
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        args[1].hash(&mut hasher);
        let owner = usize::try_from(hasher.finish() % self.1.len() as u64)?;
        if owner == conn.others().shard() {
            tell(conn, carry_out(self, &args));
            return Ok(());
        }
        // This client's next command waits for it. If the owner is far behind, the client goes.
        let ticket = conn.defer();
        Ok(self.1[owner].post(move |store, _| {
            let answer = carry_out(store, &args);
            let _ = ticket.then(|_, conn| tell(conn, answer));
        })?)
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    let store = move || Server::new().serve_with(&*address, Resp::new(), Store::default());
    Shards::per_core(move || store().drain_on_signals()).run()
}
