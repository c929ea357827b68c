//! Any bytes, from a proxy that may say who its client is: what the handler sees does not depend on
//! how they were cut up, and a header that names a client is believed.

use std::{cell::RefCell, net::IpAddr, rc::Rc, time::Duration};

use arbitrary::Arbitrary;
use nonforker::{
    Conn, Handler, Outcome, Server,
    codec::Raw,
    sim::{Faults, Net, Simulation},
};

/// What the stream begins with.
#[derive(Arbitrary, Debug)]
enum Beginning {
    /// Whatever the rest is.
    Nothing,
    /// What each header of version 1 begins with.
    Line,
    /// What each header of version 2 begins with, of this command and family.
    Block { command: u8, family: u8 },
    /// A correct header.
    Header { source: IpAddr, port: u16, binary: bool },
}

/// A stream, with the ways it is cut.
#[derive(Arbitrary, Debug)]
pub struct Input<'a> {
    beginning: Beginning,
    /// How long the pieces are, in turn.
    cuts: [u8; 4],
    rest: &'a [u8],
}

/// Sends the stream whole, and cut.
pub fn run(input: Input<'_>) {
    let mut stream = beginning(&input.beginning);
    stream.extend_from_slice(input.rest);
    let cuts = input.cuts.map(|cut| usize::from(cut).max(stream.len().div_ceil(100)).max(1));
    let (whole, cut) = (replies(&stream, &[usize::MAX]), replies(&stream, &cuts));
    assert_eq!(whole.escape_ascii().to_string(), cut.escape_ascii().to_string());
    if let Beginning::Header { source, port, .. } = input.beginning {
        let peer = std::net::SocketAddr::from((source, port)).to_string();
        assert_eq!(whole, [peer.as_bytes(), b"\n", input.rest].concat());
    }
    let rest = whole.split(|byte| *byte == b'\n').next().map_or(0, |peer| peer.len() + 1);
    // Of a header that is refused the handler knows nothing. What it gets is the end of the stream.
    assert!(whole.is_empty() || stream.ends_with(&whole[rest..]));
}

fn beginning(of: &Beginning) -> Vec<u8> {
    let block = |command: u8, family: u8| {
        let mut block = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        block.extend([command, family]);
        block
    };
    match *of {
        Beginning::Nothing => Vec::new(),
        Beginning::Line => b"PROXY ".to_vec(),
        Beginning::Block { command, family } => block(command, family),
        Beginning::Header { source, port, binary: false } => {
            let family = if source.is_ipv4() { 4 } else { 6 };
            format!("PROXY TCP{family} {source} {source} {port} {port}\r\n").into_bytes()
        }
        Beginning::Header { source, port, binary: true } => {
            let (family, address) = match source {
                IpAddr::V4(source) => (0x11, source.octets().to_vec()),
                IpAddr::V6(source) => (0x21, source.octets().to_vec()),
            };
            let mut header = block(0x21, family);
            header.extend([0, if source.is_ipv4() { 12 } else { 36 }]);
            header.extend([&address[..], &address, &port.to_be_bytes(), &[0, 0]].concat());
            header
        }
    }
}

/// Says who the client is, and echoes.
struct Named;

impl Handler for Named {
    type Codec = Raw;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let peer = conn.peer().to_string();
        conn.send(format!("{peer}\n").as_bytes());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, bytes: &[u8]) -> Outcome {
        conn.send(bytes);
        Ok(())
    }
}

/// All that comes back for a stream that is sent in these pieces, and ends.
fn replies(stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let all = Rc::new(RefCell::new(Vec::new()));
    let (seen, stream, cuts) = (Rc::clone(&all), stream.to_vec(), cuts.to_vec());
    let server =
        || Server::new().serve_with("127.0.0.1:1", Raw::new(), Named).proxy_protocol("10.0.0.0/8");
    Simulation::new(server).seeds(0..1).faults(|_| Faults::none()).run(|net| {
        *seen.borrow_mut() = exchange(net, &stream, &cuts);
    });
    all.take()
}

fn exchange(net: &Net, stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let client = net.connect_from([10, 1, 2, 3]);
    let mut rest = stream;
    for &cut in cuts.iter().cycle() {
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        client.send(piece);
        rest = behind;
        if rest.is_empty() {
            break;
        }
        net.wait(Duration::from_millis(1));
    }
    client.half_close();
    client.receive_to_end().0
}
