//! Newline echo, by hand over tokio: a task per connection, one thread, a write per read.

#[path = "../../../lines.rs"]
mod lines;

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(lines::address()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    let mut seen = 0;
    while stream.read_buf(&mut input).await? > 0 {
        let used = lines::echo(&input, seen, &mut output);
        input.drain(..used);
        seen = input.len();
        if seen > lines::LINE_MAX {
            break;
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
    Ok(())
}
