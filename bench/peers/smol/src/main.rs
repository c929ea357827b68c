//! Newline echo, by hand over smol: a task per connection, one thread, a write per read.

#[path = "../../lines.rs"]
mod lines;

use std::{io, rc::Rc};

use smol::{
    LocalExecutor,
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn main() -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind(lines::address()).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(serve(stream)).detach();
        }
    }))
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut partial = lines::Partial::default();
    let mut input = vec![0; 16 * 1024];
    let mut output = Vec::new();
    loop {
        let count = stream.read(&mut input).await?;
        if count == 0 || !partial.take(&input[..count], &mut output) {
            return Ok(());
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
}
