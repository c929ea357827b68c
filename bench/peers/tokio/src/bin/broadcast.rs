//! Each line to every connection, with tokio's broadcast channel.

#[path = "../../../lines.rs"]
mod lines;

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::broadcast::{Sender, channel, error::TryRecvError},
};

/// What all are told: the lines of one read.
type Said = std::sync::Arc<[u8]>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(lines::address()).await?;
    let (all, _) = channel(1024);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, all.clone()));
    }
}

async fn serve(stream: TcpStream, all: Sender<Said>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut heard = all.subscribe();
    let (reader, mut writer) = stream.into_split();
    tokio::spawn(listen(reader, all));
    while let Ok(said) = heard.recv().await {
        let mut output = said.to_vec();
        loop {
            match heard.try_recv() {
                Ok(said) => output.extend_from_slice(&said),
                Err(TryRecvError::Empty) => break,
                Err(_) => return Ok(()),
            }
        }
        writer.write_all(&output).await?;
    }
    Ok(())
}

async fn listen(mut reader: OwnedReadHalf, all: Sender<Said>) -> io::Result<()> {
    let mut input = Vec::with_capacity(1024);
    let (mut output, mut seen) = (Vec::new(), 0);
    while reader.read_buf(&mut input).await? > 0 && input.len() <= lines::LINE_MAX {
        let used = lines::echo(&input, seen, &mut output);
        input.drain(..used);
        seen = input.len();
        if used > 0 {
            let _ = all.send(output.as_slice().into());
            output.clear();
        }
    }
    Ok(())
}
