//! What connections are counted by: an address, or the network that it is in.

use std::net::IpAddr;

use crate::engine::slot::ServiceId;

/// A network: an address and how many of its bits count, or [`u8::MAX`] for an address alone.
pub(in crate::engine) type Net = (IpAddr, u8);

/// Where connections of one address or network are counted: for all services, or for one alone.
pub(in crate::engine) type AddressKey = (Option<ServiceId>, Net);

/// The network of an address, of which so many bits count.
pub(in crate::engine) fn net_of(ip: IpAddr, (v4, v6): (u8, u8)) -> Net {
    // A proxy may write an IPv4 address as an IPv6 one.
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or(0);
            (IpAddr::V4((u32::from(ip) & mask).into()), v4)
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or(0);
            (IpAddr::V6((u128::from(ip) & mask).into()), v6)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::net_of;

    #[test]
    fn a_network_is_the_first_bits_of_an_address() {
        for (ip, prefix, net, bits) in [
            ("10.1.2.3", (24, 64), "10.1.2.0", 24),
            ("10.1.2.3", (32, 64), "10.1.2.3", 32),
            ("10.1.2.3", (1, 64), "0.0.0.0", 1),
            ("::ffff:10.1.2.3", (24, 64), "10.1.2.0", 24),
            ("2001:db8:1:2:3:4:5:6", (24, 64), "2001:db8:1:2::", 64),
            ("2001:db8:1:2:3:4:5:6", (24, 128), "2001:db8:1:2:3:4:5:6", 128),
        ] {
            let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(net_of(parse(ip), prefix), (parse(net), bits), "{ip}");
        }
    }
}
