//! How many connections a second each network opens, over all shards.
//!
//! For each network one time is kept: when all that it was granted would have been granted evenly. A
//! network may be ahead of the present by what it may open at once. One that is not ahead is
//! forgotten, so the table has those that have come lately, and it is bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Group, Net};

/// How many networks are remembered.
const NETS_MAX: usize = 16_384;

/// What stands for the networks for which there is no room.
const OTHERS: Net = (std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

const SECOND: u64 = 1_000_000_000;

/// See the [module](self). Times are in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    granted: HashMap<Net, u64>,
    /// When those were last taken out that are not ahead.
    cleaned: u64,
}

impl Group {
    /// Whether a network may open another connection now, if it may open `rate` a second.
    pub(in crate::engine) fn grants(&self, net: Net, rate: usize, now: u64) -> bool {
        self.rates.0.lock().unwrap_or_else(PoisonError::into_inner).grants(net, rate, now)
    }
}

impl Table {
    fn grants(&mut self, net: Net, rate: usize, now: u64) -> bool {
        let net = if self.has_room_for(&net, now) { net } else { OTHERS };
        let each = SECOND / (rate as u64).max(1);
        let granted = self.granted.entry(net).or_default();
        let until = (*granted).max(now) + each;
        let may = until <= now + SECOND;
        if may {
            *granted = until;
        }
        may
    }

    fn has_room_for(&mut self, net: &Net, now: u64) -> bool {
        if self.granted.len() < NETS_MAX || self.granted.contains_key(net) {
            return true;
        }
        // To look through all of them for each connection would be what an attacker wants.
        if now.saturating_sub(self.cleaned) >= SECOND {
            self.cleaned = now;
            self.granted.retain(|_, until| *until > now);
        }
        self.granted.len() < NETS_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{NETS_MAX, SECOND, Table};

    fn net(number: usize) -> super::Net {
        let number = u32::try_from(number).expect("it is small");
        (IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (number << 8))), 24)
    }

    #[test]
    fn a_network_gets_its_rate_and_as_many_at_once_after_a_pause() {
        let mut table = Table::default();
        let mut grants = |net, now| table.grants(net, 4, now);
        let began = 5 * SECOND;
        assert_eq!((0..6).filter(|_| grants(net(1), began)).count(), 4);
        assert!(grants(net(2), began), "another network has its own");
        assert!(!grants(net(1), began + SECOND / 4 - 1));
        assert!(grants(net(1), began + SECOND / 4));
        assert!(!grants(net(1), began + SECOND / 4));
        assert_eq!((0..9).filter(|_| grants(net(1), began + 60 * SECOND)).count(), 4);
    }

    #[test]
    fn so_many_networks_are_remembered_and_others_share_a_rate() {
        let mut table = Table::default();
        for number in 0..NETS_MAX {
            assert!(table.grants(net(number), 1, SECOND));
        }
        assert!(table.grants(net(NETS_MAX), 1, SECOND));
        assert!(!table.grants(net(NETS_MAX + 1), 1, SECOND), "it shares a rate");
        assert!(table.granted.len() <= NETS_MAX + 1);
        assert!(table.grants(net(NETS_MAX + 1), 1, 3 * SECOND), "the others are forgotten");
        assert_eq!(table.granted.len(), 1);
    }
}
