//! Newline echo with tokio's `Framed` and `LinesCodec`. `forward` writes when no line is at hand any
//! more, not after each.

#[path = "../../../lines.rs"]
mod lines;

use std::io;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(lines::address()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(stream: TcpStream) -> Result<(), LinesCodecError> {
    stream.set_nodelay(true)?;
    let codec = LinesCodec::new_with_max_length(lines::LINE_MAX);
    let (replies, requests) = Framed::new(stream, codec).split();
    requests.forward(replies).await
}
