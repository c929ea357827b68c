//! Which peers something is taken from: networks, as text.

use std::{convert::Infallible, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use thiserror::Error;

use crate::address::Peer;

/// A set of IP networks, of proxies or of clients: text such as `10.0.0.0/8,::1`.
///
/// Networks stand between commas; spaces around them do not matter. An address without a prefix is
/// that address alone. Networks are literal: no name is ever resolved. By default the set is empty.
///
/// # Examples
///
/// ```
/// use nonforker::{Networks, Peer};
///
/// let networks: Networks = "10.0.0.0/8, ::1".parse()?;
/// assert!(networks.contains(&Peer::Tcp("10.1.2.3:1685".parse()?)));
/// assert!(!networks.contains(&Peer::Tcp("192.0.2.7:1685".parse()?)));
/// assert!(networks.contains(&Peer::Unix), "a path has permissions of its own");
///
/// let error = "10.1.2.3/8".parse::<Networks>().unwrap_err();
/// assert!(error.to_string().contains("10.0.0.0/8"), "it tells what to write: {error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains_ip(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Whether `peer` is in one of the networks. Every peer of a Unix socket counts as listed.
    #[must_use]
    pub fn contains(&self, peer: &Peer) -> bool {
        peer.ip().is_none_or(|ip| self.contains_ip(ip))
    }
}

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        text.split(',').map(|part| network(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn network(text: &str) -> Result<IpNet, NetworksError> {
    let wrong = |hint: String| Err(NetworksError { text: text.to_owned(), hint });
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = parsed else { return wrong(hint(text).to_owned()) };
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        // No peer has such an address: a listener for IPv6 takes no IPv4.
        let prefix = v6.prefix_len().saturating_sub(96);
        return wrong(format!("this is IPv4 within IPv6; write {v4}/{prefix}"));
    }
    if network.trunc() != network {
        return wrong(format!("the address has bits beyond the prefix; write {}", network.trunc()));
    }
    Ok(network)
}

/// What is wrong with `text`.
fn hint(text: &str) -> &'static str {
    if text.is_empty() {
        "it is empty; write 10.0.0.0/8 or ::1"
    } else if text.contains('%') {
        "a network has no zone; write fe80::/10"
    } else if text.starts_with("unix") {
        "peers of Unix sockets always count as listed; leave it out"
    } else if text.split_once('/').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        "the prefix is a number of bits: up to 32 for IPv4, up to 128 for IPv6"
    } else {
        "write an IP address or a network such as 10.0.0.0/8, and no name or port"
    }
}

impl FromIterator<Self> for Networks {
    /// All networks of several sets.
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        Self(sets.into_iter().flat_map(|set| set.0).collect())
    }
}

impl TryFrom<&str> for Networks {
    type Error = NetworksError;

    fn try_from(text: &str) -> Result<Self, NetworksError> {
        text.parse()
    }
}

impl From<Infallible> for NetworksError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

/// Why a text is not a set of [`Networks`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad network {text:?}: {hint}")]
pub struct NetworksError {
    text: String,
    hint: String,
}

#[cfg(test)]
mod tests {
    use super::{Networks, Peer};

    fn networks(text: &str) -> Networks {
        text.parse().expect(text)
    }

    #[test]
    fn a_peer_is_in_a_network_or_not() {
        for (listed, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::1", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "::1", "127.0.0.1"),
            ("192.0.2.7,fd00::/8 , 10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
        ] {
            let listed = networks(listed);
            let peer = |ip: &str| Peer::Tcp((ip.parse::<std::net::IpAddr>().expect(ip), 1).into());
            assert!(listed.contains(&peer(inside)), "{inside} in {listed}");
            assert!(!listed.contains(&peer(outside)), "{outside} in {listed}");
            assert!(listed.contains(&Peer::Unix));
            assert!(!Networks::default().contains(&peer(inside)), "nobody is listed");
            assert_eq!(networks(&listed.to_string()), listed);
        }
    }

    #[test]
    fn a_bad_network_says_what_to_write() {
        for (text, hint) in [
            ("", "it is empty"),
            ("10.0.0.0/8,", "it is empty"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("fd00::1/8", "write fd00::/8"),
            ("10.0.0.0/33", "up to 32"),
            ("::/129", "up to 128"),
            ("10.0.0.0/", "a number of bits"),
            ("10.0.0.0/-1", "a number of bits"),
            ("10.0.0.0/255.0.0.0", "a number of bits"),
            ("10.0.0.0/8/8", "a number of bits"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
            ("::ffff:10.0.0.1", "write 10.0.0.1/32"),
            ("fe80::1%2", "no zone"),
            ("unix", "leave it out"),
            ("localhost", "no name or port"),
            ("10.0.0.1:80", "no name or port"),
            ("010.0.0.1", "no name or port"),
            ("10.0.0", "no name or port"),
            ("10.0.0.0/8 ::1", "a number of bits"),
        ] {
            let error = text.parse::<Networks>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text:?} says {error:?}");
        }
    }

    #[test]
    fn several_sets_are_one() {
        let all: Networks = ["10.0.0.0/8,::1", "192.0.2.7"].map(networks).into_iter().collect();
        assert_eq!(all.to_string(), "10.0.0.0/8,::1/128,192.0.2.7/32");
    }
}
