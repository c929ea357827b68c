//! The example `key_value` with a choice of the driver: `PORT poll|uring`.

#[path = "../../../../../nonforker/examples/key_value.rs"]
#[allow(dead_code, reason = "it has a main of its own")]
mod example;

use nonforker::codec::Resp;

fn main() -> nonforker::Result<()> {
    let (server, address, _) = peer_nonforker::asked_for();
    let resp = Resp::with_max(1024 * 1024);
    server.serve_with(address, resp, example::Store::default()).run()
}
