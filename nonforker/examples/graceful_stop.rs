//! Stops in order: on the line `stop`, or on SIGTERM. What has arrived is answered first.

use std::time::Duration;

use nonforker::{Limits, Outcome, Server, codec::Lines};

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    let (stop, stopped) = std::sync::mpsc::channel();

    let server = Server::new()
        .limits(Limits::new().drain_timeout(Duration::from_secs(3)))
        .serve(address, Lines::new(), move |conn, line| -> Outcome {
            if line == b"stop" {
                stop.send(())?;
            }
            conn.send(line);
            Ok(())
        })
        .drain_on_signals()
        .bind()?;

    // The handle works from any thread.
    let handle = server.handle();
    std::thread::spawn(move || {
        if stopped.recv().is_ok() {
            handle.drain();
        }
    });
    server.run()
}
