//! Newline echo, by hand over may: a coroutine per connection, one worker, a write per read.

#[path = "../../lines.rs"]
mod lines;

use std::io::{self, Read, Write};

use may::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    may::config().set_workers(1);
    let listener = TcpListener::bind(lines::address())?;
    loop {
        let (stream, _) = listener.accept()?;
        may::go!(move || {
            // A connection that fails ends alone.
            let _ = serve(stream);
        });
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut partial = lines::Partial::default();
    let mut input = vec![0; 16 * 1024];
    let mut output = Vec::new();
    loop {
        let count = stream.read(&mut input)?;
        if count == 0 || !partial.take(&input[..count], &mut output) {
            return Ok(());
        }
        if !output.is_empty() {
            stream.write_all(&output)?;
            output.clear();
        }
    }
}
