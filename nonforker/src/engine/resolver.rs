//! Names of hosts, resolved beside the loop, and remembered for a while.
//!
//! ```text
//!  look_up ──▶ known and fresh ────────────────────────▶ addresses, or that there are none
//!     └──────▶ unknown ──▶ a thread asks the system ──▶ mail ──▶ resolved: all who wait for it
//! ```
//!
//! The system does not say for how long an answer holds, so it counts for [`FRESH`], and that there is
//! no answer for [`FRESH_FAILURE`]. Several connections that ask for one name ask the system once.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::mail::{Letter, Mailbox};
use crate::{
    conn::deadlines::Tick,
    driver::Token,
    offload::{Job, Lookup, Threads},
};

/// How long the addresses of a name are taken as they are.
pub(super) const FRESH: Duration = Duration::from_secs(30);

/// How long a name is taken for one that cannot be resolved.
pub(super) const FRESH_FAILURE: Duration = Duration::from_secs(1);

/// The most names that are remembered.
const NAMES_MAX: usize = 1000;

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// The most names that are looked up at a time.
pub(crate) const LOOKUPS_MAX: usize = 4;

/// What a lookup has found: what cannot be resolved, a text says.
pub(crate) type Found = Result<Vec<IpAddr>, String>;

/// What is known of a name.
pub(super) enum LookedUp {
    Found(Found),
    /// It will be known, and those that wait be told.
    Asked,
}

/// See the [module](self).
pub(crate) struct Resolver {
    threads: Box<dyn Threads>,
    lookup: Lookup,
    /// What was found, and until when it counts.
    known: BTreeMap<String, (Found, Tick)>,
    /// The connections that wait for a name.
    asked: BTreeMap<String, Vec<Token>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("known", &self.known.len())
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// One name that is looked up.
struct Question {
    host: String,
    lookup: Lookup,
    mailbox: Arc<Mailbox>,
}

impl Job for Question {
    fn is_wanted(&self) -> bool {
        true
    }

    fn run(self: Box<Self>) {
        let Self { host, lookup, mailbox } = *self;
        let found = lookup(&host).map_err(|error| error.to_string());
        // If the server has ended, nobody waits for it.
        let _ = mailbox.post_answer(Letter::Resolved { host, found });
    }
}

impl Resolver {
    pub(crate) fn new(threads: impl Threads + 'static, lookup: Lookup) -> Self {
        let (known, asked) = (BTreeMap::new(), BTreeMap::new());
        Self { threads: Box::new(threads), lookup, known, asked }
    }

    /// The addresses of a name, as far as they are known. If not, they are asked for.
    pub(super) fn look_up(
        &mut self,
        host: &str,
        token: Token,
        now: Tick,
        mailbox: &Arc<Mailbox>,
    ) -> LookedUp {
        if let Some((found, _)) = self.known.get(host).filter(|&&(_, until)| until > now) {
            return LookedUp::Found(found.clone());
        }
        match self.asked.entry(host.to_owned()) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push(token),
            Entry::Vacant(asked) => {
                asked.insert(vec![token]);
                self.threads.submit(Box::new(Question {
                    host: host.to_owned(),
                    lookup: Arc::clone(&self.lookup),
                    mailbox: Arc::clone(mailbox),
                }));
            }
        }
        LookedUp::Asked
    }

    /// A name was looked up. Returns what was found, and who waits for it.
    pub(super) fn resolved(
        &mut self,
        host: String,
        found: Found,
        now: Tick,
        until: Tick,
    ) -> (Found, Vec<Token>) {
        let found = found.and_then(|found| match in_turns(&found) {
            addresses if addresses.is_empty() => Err("it has no address".to_owned()),
            addresses => Ok(addresses),
        });
        let waiting = self.asked.remove(&host).unwrap_or_default();
        if self.known.len() >= NAMES_MAX {
            self.known.retain(|_, &mut (_, until)| until > now);
        }
        if self.known.len() < NAMES_MAX {
            self.known.insert(host, (found.clone(), until));
        }
        (found, waiting)
    }
}

/// The addresses in the order in which they are tried: those of the two families in turns, beginning
/// with the first, and each once.
fn in_turns(found: &[IpAddr]) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in found {
        if !unique.contains(address) && unique.len() < ADDRESSES_MAX {
            unique.push(*address);
        }
    }
    let first_is_v6 = unique.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        unique.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|at| [first.get(at), second.get(at)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::in_turns;

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        for (found, order) in [
            ("", ""),
            ("1.0.0.1", "1.0.0.1"),
            ("::1 1.0.0.1", "::1 1.0.0.1"),
            ("::1 ::2 ::3 1.0.0.1", "::1 1.0.0.1 ::2 ::3"),
            ("1.0.0.1 ::1 1.0.0.2 1.0.0.1 ::1", "1.0.0.1 ::1 1.0.0.2"),
        ] {
            let parse = |text: &str| -> Vec<IpAddr> {
                text.split_whitespace().map(|ip| ip.parse().expect(ip)).collect()
            };
            assert_eq!(in_turns(&parse(found)), parse(order), "{found}");
        }
        let many: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([1, 0, 0, last])).collect();
        assert_eq!(in_turns(&many), many[..16]);
    }
}
