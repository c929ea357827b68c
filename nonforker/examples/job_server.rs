//! Requests that block: `query MS TEXT` takes that long, as a database would, and is answered with
//! `done TEXT`; `ping` is answered with `pong` at once.

use std::{thread, time::Duration};

use nonforker::{Outcome, Server, codec::Lines};

/// What blocks. It stands for a database, a file, a computation.
#[expect(clippy::disallowed_methods, reason = "it is not called in the server's loop")]
fn query(millis: u64, text: String) -> String {
    thread::sleep(Duration::from_millis(millis));
    text
}

/// A server in which as many queries as there are threads run at a time.
#[must_use]
pub fn server(address: &str, threads: usize) -> Server {
    let server = Server::new().serve(address, Lines::new(), |conn, line| -> Outcome {
        let line = std::str::from_utf8(line)?;
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["ping"] => conn.send("pong"),
            ["query", millis, text] => match millis.parse() {
                Ok(millis) => {
                    let text = text.to_owned();
                    // This client's next request waits for the answer, and no other client does.
                    conn.offload(
                        move || query(millis, text),
                        |_, conn, text| conn.send(format!("done {text}")),
                    );
                }
                Err(error) => conn.send(format!("error: {error}")),
            },
            _ => conn.send("error: ping, or query MS TEXT"),
        }
        Ok(())
    });
    server.offload_threads(threads)
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    server(&address, 64).drain_on_signals().run()
}
