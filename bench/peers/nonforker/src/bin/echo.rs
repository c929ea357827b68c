//! Echo, with nonforker: `PORT poll|uring`. Instructions are counted with it, beside peers that are as
//! small. It is built in a third of the time that the release program takes.

use nonforker::codec::Lines;

fn main() -> nonforker::Result<()> {
    let (server, address, _) = peer_nonforker::asked_for();
    server.serve(address, Lines::new(), |conn, line| conn.send(line)).run()
}
