//! The header with which a relay tells its targets who the client is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::address::Peer;

/// Which version of the PROXY protocol a [`Relay`](crate::Relay) speaks to its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two versions")]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The header that says who the client is.
pub(crate) fn header(version: ProxyHeader, peer: &Peer, at: Option<SocketAddr>) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let both = match *peer {
        Peer::Tcp(source) => {
            let unknown: IpAddr = match source {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let known = at.filter(|at| at.is_ipv4() == source.is_ipv4());
            let port = at.map_or(0, |at| at.port());
            Some((source, known.unwrap_or_else(|| SocketAddr::new(unknown, port))))
        }
        _ => None,
    };
    match (version, both) {
        (ProxyHeader::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyHeader::V1, Some((from, to))) => {
            let family = if from.is_ipv4() { 4 } else { 6 };
            let (from_ip, from_port) = (from.ip(), from.port());
            let (to_ip, to_port) = (to.ip(), to.port());
            format!("PROXY TCP{family} {from_ip} {to_ip} {from_port} {to_port}\r\n").into_bytes()
        }
        // A command of version 2: PROXY, of no family that is known.
        (ProxyHeader::V2, None) => [SIGNATURE, &[0x21, 0, 0, 0]].concat(),
        (ProxyHeader::V2, Some((from, to))) => {
            let mut block = Vec::new();
            for address in [from, to] {
                match address.ip() {
                    IpAddr::V4(ip) => block.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => block.extend_from_slice(&ip.octets()),
                }
            }
            for address in [from, to] {
                block.extend_from_slice(&address.port().to_be_bytes());
            }
            let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            [SIGNATURE, &[0x21, family, 0, length], &block].concat()
        }
    }
}
