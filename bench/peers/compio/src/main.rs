//! Newline echo, by hand over compio with io_uring: a task per connection, a write per read.

#[path = "../../lines.rs"]
mod lines;

use std::io;

use compio::{
    BufResult,
    driver::ProactorBuilder,
    io::{AsyncRead, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::RuntimeBuilder,
};

fn main() -> io::Result<()> {
    // One thread enters the ring, and only when it wants completions: without this it costs more.
    let mut ring = ProactorBuilder::new();
    ring.capacity(4096).single_issuer(true).defer_taskrun(true);
    RuntimeBuilder::new().with_proactor(ring).build()?.block_on(async {
        let listener = TcpListener::bind(lines::address()).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(serve(stream)).detach();
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut partial = lines::Partial::default();
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    loop {
        input.clear();
        let BufResult(count, buffer) = stream.read(input).await;
        input = buffer;
        let count = count?;
        if count == 0 || !partial.take(&input[..count], &mut output) {
            return Ok(());
        }
        if !output.is_empty() {
            let BufResult(written, buffer) = stream.write_all(output).await;
            output = buffer;
            written?;
            output.clear();
        }
    }
}
