//! The flags that say who may come in, how long for, and how all leave: the same for each command that
//! accepts connections.

use std::num::NonZeroUsize;

use clap::Args;
use nonforker::{Access, Limits, Networks, Server};

use crate::values::{self, Timeout};

/// See the [module](self).
#[derive(Clone, Debug, Args)]
pub(crate) struct AccessArgs {
    /// Networks that may connect, and no others: 10.0.0.0/8,::1 [default: all]
    ///
    /// May be given several times. Behind --proxy-protocol it is about the real clients. Not for
    /// Unix sockets, whose files have permissions.
    #[arg(long, value_name = "NET")]
    allow: Vec<Networks>,

    /// Networks that may not connect, also if they are allowed [default: none]
    #[arg(long, value_name = "NET")]
    deny: Vec<Networks>,

    /// Connections at a time from one network; more are refused [default: no such limit]
    #[arg(long, value_name = "N", value_parser = values::count)]
    max_connections_per_net: Option<NonZeroUsize>,

    /// How many bits of an address say which network it is in, for IPv4 and for IPv6
    #[arg(long, value_name = "V4,V6", default_value = "24,64", value_parser = net_prefix)]
    net_prefix: NetPrefix,

    /// Connections a second that one network may open, N or N/s; more are refused [default: no
    /// such limit]
    #[arg(long, value_name = "N", value_parser = rate)]
    accept_rate: Option<NonZeroUsize>,

    /// What a client is sent that one of these limits or --max-connections-per-ip refuses
    ///
    /// \r, \n, \t, \0, \\ and \xHH are one byte each. Without it such a client is closed silently,
    /// as one of a denied network always is.
    #[arg(long, value_name = "TEXT", value_parser = busy, verbatim_doc_comment)]
    refuse_with: Option<BusyWord>,

    /// How long a client may be connected, and up to a tenth longer, or off
    ///
    /// It ends as when the server ends: what has arrived is answered first.
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::timeout)]
    max_age: Timeout,

    /// Over how long the end is spread, one client after the other, or off
    ///
    /// So thousands of clients do not come back in the same second. --drain-timeout counts from
    /// the end of it.
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = values::patience)]
    drain_spread: Timeout,
}

#[derive(Clone, Copy, Debug)]
struct NetPrefix(u8, u8);

#[derive(Clone, Debug)]
struct BusyWord(Vec<u8>);

impl AccessArgs {
    /// These limits, with those that are asked for here.
    pub(crate) fn limit(&self, limits: Limits) -> Limits {
        limits
            .max_connections_per_net(self.max_connections_per_net.map(NonZeroUsize::get))
            .net_prefix(self.net_prefix.0, self.net_prefix.1)
            .accept_rate(self.accept_rate.map(NonZeroUsize::get))
            .max_age(self.max_age.0)
            .drain_spread(self.drain_spread.0.unwrap_or_default())
    }

    /// Who may connect.
    pub(crate) fn access(&self) -> Access {
        let all = |lists: &[Networks]| lists.iter().cloned().collect();
        Access::new().allow(all(&self.allow)).deny(all(&self.deny))
    }

    /// A server whose last service lets in who may connect.
    pub(crate) fn guard(&self, server: Server) -> Server {
        let server = server.access(self.access());
        match &self.refuse_with {
            Some(BusyWord(word)) => server.refuse_with(word),
            None => server,
        }
    }
}

/// Two numbers of bits: `24,64`.
fn net_prefix(text: &str) -> Result<NetPrefix, String> {
    let numbers = text
        .split_once(',')
        .and_then(|(v4, v6)| Some(NetPrefix(v4.trim().parse().ok()?, v6.trim().parse().ok()?)));
    match numbers {
        Some(prefix @ NetPrefix(1..=32, 1..=128)) => Ok(prefix),
        _ => Err(format!(
            "bad prefixes {text:?}: write bits for IPv4, from 1 to 32, and for IPv6, from 1 to 128, as in 24,64"
        )),
    }
}

/// A number of connections a second: `20`, `20/s`.
fn rate(text: &str) -> Result<NonZeroUsize, String> {
    values::count(text.strip_suffix("/s").unwrap_or(text))
}

/// A text with escapes.
fn busy(text: &str) -> Result<BusyWord, String> {
    values::unescape(text).map(BusyWord).map_err(|what| format!("bad text {text:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::{busy, net_prefix, rate};

    #[test]
    fn values_of_these_flags_say_what_to_write() {
        for text in ["", "24", "0,64", "33,64", "24,129", "24,0", "x,y", "24,64,1", "-1,64"] {
            let error = net_prefix(text).expect_err(text);
            assert!(error.contains("24,64"), "{error}");
        }
        assert!(net_prefix("32, 128").is_ok());
        for (text, number) in [("20", 20), ("20/s", 20), ("1/s", 1)] {
            assert_eq!(rate(text).map(usize::from), Ok(number));
        }
        for text in ["", "0", "/s", "20/m", "20 /s", "-1", "1.5"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(busy(r"busy\r\n").map(|word| word.0), Ok(b"busy\r\n".to_vec()));
        assert!(busy(r"busy\q").is_err());
    }
}
