//! Newline echo, by hand over monoio with io_uring: a task per connection, a write per read.

#[path = "../../lines.rs"]
mod lines;

use std::io;

use monoio::{
    IoUringDriver, RuntimeBuilder,
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::{TcpListener, TcpStream},
};

fn main() -> io::Result<()> {
    // One thread enters the ring, and only when it wants completions: without this it costs more.
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(4096);
    runtime = runtime.uring_builder(ring);
    runtime.build()?.block_on(async {
        let listener = TcpListener::bind(lines::address())?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut partial = lines::Partial::default();
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    loop {
        let count;
        (count, input) = stream.read(input).await;
        let count = count?;
        if count == 0 || !partial.take(&input[..count], &mut output) {
            return Ok(());
        }
        if !output.is_empty() {
            let written;
            (written, output) = stream.write_all(output).await;
            written?;
            output.clear();
        }
    }
}
