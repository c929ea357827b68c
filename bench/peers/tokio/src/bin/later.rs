//! Each line back, by another thread, with tokio: `PORT blocking|oneshot`. With `blocking` each line is a
//! call of the pool for what blocks; with `oneshot` one thread answers all lines, each by a channel.

#[path = "../../../lines.rs"]
mod lines;

use std::{collections::VecDeque, io};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

type Lines = mpsc::UnboundedSender<(Vec<u8>, oneshot::Sender<Vec<u8>>)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(lines::address()).await?;
    let thread = (std::env::args().nth(2).as_deref() == Some("oneshot")).then(|| {
        let (sender, mut lines): (Lines, _) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while let Some((line, answer)) = lines.blocking_recv() {
                let _ = answer.send(line);
            }
        });
        sender
    });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, thread.clone()));
    }
}

async fn serve(mut stream: TcpStream, thread: Option<Lines>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    let mut seen = 0;
    let mut answers = VecDeque::new();
    while stream.read_buf(&mut input).await? > 0 {
        let mut used = 0;
        while let Some(length) = memchr::memchr(b'\n', &input[seen..]) {
            seen += length + 1;
            let line = input[used..seen].to_vec();
            used = seen;
            if let Some(thread) = &thread {
                let (answer, answered) = oneshot::channel();
                thread.send((line, answer)).map_err(io::Error::other)?;
                answers.push_back(answered);
            } else {
                output.extend_from_slice(&spawn_blocking(move || line).await?);
            }
        }
        for answered in answers.drain(..) {
            output.extend_from_slice(&answered.await.map_err(io::Error::other)?);
        }
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
