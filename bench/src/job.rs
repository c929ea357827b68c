//! Whether a server does the job: whatever is compared has to be correct first.
//!
//! Each line comes back, however it was cut up on the way; all of it comes back although the one who
//! asked reads late; and it comes back although nothing more will be asked.

use std::{
    io::{Error, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    process::{Result, pause},
    server::connect,
};

/// How long a server may take for a reply.
const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });

/// More than a socket takes while nobody reads.
const LATE: usize = 12 * 1024 * 1024;

/// An error if the echo server at `address` does not do it.
pub(crate) fn check(address: SocketAddr) -> Result<()> {
    let fault = |what: &'static str| move |error: Error| format!("{what}: {error}");
    cut(address).map_err(fault("lines that come in pieces"))?;
    late(address).map_err(fault("a client that reads late"))?;
    half_closed(address).map_err(fault("a client that has finished sending"))
}

fn expect(stream: &mut TcpStream, expected: &[u8]) -> Result<(), Error> {
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply)?;
    match reply == expected {
        true => Ok(()),
        false => Err(Error::other("the reply is not the request")),
    }
}

fn cut(address: SocketAddr) -> Result<(), Error> {
    let mut stream = connect(address, TIMEOUT)?;
    for piece in ["a", "b\nc", "d\n\n", "e\nf\ng", "\n"] {
        stream.write_all(piece.as_bytes())?;
        pause(Duration::from_millis(10));
    }
    expect(&mut stream, b"ab\ncd\n\ne\nf\ng\n")
}

/// Lines of many lengths, up to the longest that has to be taken.
fn many_lines(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 70_000);
    for nth in 0_usize.. {
        if text.len() >= bytes {
            break;
        }
        // No two neighbours are alike.
        let length = if nth % 50 == 49 { 60_000 } else { nth * 37 % 3000 };
        text.resize(text.len() + length, b'a' + u8::try_from(nth % 26).unwrap_or(0));
        text.push(b'\n');
    }
    text
}

fn late(address: SocketAddr) -> Result<(), Error> {
    let mut stream = connect(address, TIMEOUT)?;
    let request = many_lines(LATE);
    let (mut writer, expected) = (stream.try_clone()?, request.clone());
    let writing = thread::spawn(move || writer.write_all(&request));
    pause(Duration::from_millis(150));
    let read = expect(&mut stream, &expected);
    if read.is_err() {
        // So that the other half ends, too. It may have done so already.
        let _ = stream.shutdown(Shutdown::Both);
    }
    let written = writing.join().unwrap_or_else(|_| Err(Error::other("a thread panicked")));
    read.and(written)
}

fn half_closed(address: SocketAddr) -> Result<(), Error> {
    let mut stream = connect(address, TIMEOUT)?;
    stream.write_all(b"x\ny\n")?;
    stream.shutdown(Shutdown::Write)?;
    expect(&mut stream, b"x\ny\n")?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(Error::other("more comes than was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, net::TcpListener};

    use super::*;

    type Serve = fn(TcpStream) -> Result<(), Error>;

    /// Lines back, one by one, as slowly as it likes.
    fn right(stream: TcpStream) -> Result<(), Error> {
        let mut writer = stream.try_clone()?;
        for line in std::io::BufReader::new(stream).split(b'\n') {
            writer.write_all(&[&line?[..], b"\n"].concat())?;
        }
        Ok(())
    }

    /// Bytes back, lines or not: the replies are right, but an unfinished line gets one, too.
    fn eager(mut stream: TcpStream) -> Result<(), Error> {
        let mut bytes = [0; 4096];
        loop {
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return stream.write_all(b"bye\n");
            }
            stream.write_all(&bytes[..count])?;
        }
    }

    /// Loses what does not fit.
    fn forgetful(mut stream: TcpStream) -> Result<(), Error> {
        stream.set_nonblocking(true)?;
        let mut bytes = [0; 65536];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => drop(stream.write(&bytes[..count])),
                Err(_) => pause(Duration::from_micros(100)),
            }
        }
    }

    fn checked(serve: Serve) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        check(address)
    }

    #[test]
    fn a_server_that_does_the_job_passes_and_others_do_not() {
        assert_eq!(checked(right), Ok(()));
        let error = checked(eager).unwrap_err();
        assert!(error.contains("finished sending"), "{error}");
        let error = checked(forgetful).unwrap_err();
        assert!(error.contains("reads late"), "{error}");
    }
}
