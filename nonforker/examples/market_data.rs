//! Quotes: a line with a symbol subscribes to it, with `-` before it leaves it. A thread makes the
//! quotes. A client that is too slow misses the oldest, and gets a line that says how many.

use std::{error::Error, thread, time::Duration};

use nonforker::{
    Conn, Connections, Handler, Outcome, Overflow, PostError, Remote, Server, codec::Lines,
};

/// Each symbol is a topic.
#[derive(Debug)]
#[non_exhaustive]
pub struct Market;

impl Handler for Market {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        match line {
            [b'-', symbol @ ..] => _ = conn.unsubscribe(symbol),
            symbol => conn.subscribe(symbol, Overflow::DropOldest)?,
        }
        Ok(())
    }

    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send(format!("* {} missed so far", conn.dropped()));
        Ok(())
    }
}

/// From any thread: all who have subscribed to the symbol get its price.
/// # Errors
/// Those of [`Remote::post`]: if it is full, this quote is left out.
pub fn quote(remote: &Remote<Market>, symbol: &'static str, price: u64) -> Result<(), PostError> {
    remote.post(move |_, all: &mut Connections<'_, Market>| -> Outcome {
        all.publish(symbol, format!("{symbol} {price}"))?;
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
fn watch(remote: &Remote<Market>) {
    for price in 100.. {
        for symbol in ["ABC", "XYZ"] {
            let Err(PostError::Ended) = quote(remote, symbol, price) else { continue };
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    let server = Server::new().serve_with(address, Lines::new(), Market).bind()?;
    let remote = server.remote::<Market>()?;
    thread::spawn(move || watch(&remote));
    Ok(server.run()?)
}
