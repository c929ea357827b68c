//! From what a server was given to an engine.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use super::{Secured, Server};
#[cfg(feature = "signals")]
use crate::signals::Watch;
use crate::{
    access::Entrance,
    address::Address,
    bound::Bound,
    bounds::{check_mode, check_threads},
    driver::{Driver, Options},
    engine::{
        Engine, Services,
        resolver::{LOOKUPS_MAX, Resolver},
        service::Service,
        slot::ServiceId,
    },
    error::{Error, Result},
    listening::{LISTEN_TRIES, Place, check, listen_error, patiently},
    offload::{OffloadThreads, Pool, system_lookup},
    shards::Part,
    tls::{Tls, TlsError},
};

impl Server {
    pub(super) fn bind_over<D: Driver + 'static>(self, driver: D) -> Result<Bound> {
        #[cfg(feature = "signals")]
        let drain_on_signals = self.drain_on_signals && self.part.group.is_alone();
        let handle = self.handle();
        let threads = self.part.group.pool(|| Pool::new(self.offload_threads));
        let (mut engine, addresses) = self.assemble(driver, LISTEN_TRIES)?;
        engine.offload_to(OffloadThreads(threads));
        let lookups = OffloadThreads(Arc::new(Pool::new(Some(LOOKUPS_MAX))));
        let seed = RandomState::new().build_hasher().finish();
        engine.resolve_with(Resolver::new(lookups, system_lookup()), seed);
        #[cfg(feature = "signals")]
        let watch = drain_on_signals.then(|| Watch::start(handle.clone()));
        Ok(Bound {
            engine: Box::new(engine),
            addresses,
            handle,
            #[cfg(feature = "signals")]
            _watch: watch.transpose().map_err(Error::Signals)?,
        })
    }

    /// Whether this can be served at all.
    pub(super) fn check(&self) -> Result<()> {
        self.limits.check()?;
        check_mode(self.unix_mode)?;
        check_threads(self.offload_threads)?;
        self.entrances.iter().try_for_each(Entrance::check)?;
        for (service, Secured { at_once, later }) in self.services.iter().zip(&self.tls) {
            let tls = at_once.iter().chain(later);
            tls.clone().for_each(Tls::warn);
            let wrong = match tls.count() {
                0 => continue,
                1 if service.wants_urgent() => {
                    "urgent bytes are not encrypted, and a handler wants them"
                }
                1 => continue,
                _ => "a service is encrypted from the start, or begins in clear, but not both",
            };
            return Err(TlsError::new(wrong).into());
        }
        if self.services.is_empty() { Err(Error::NothingToServe) } else { Ok(()) }
    }

    pub(super) fn options(&self) -> Options {
        Options {
            read_max: self.limits.server.read_per_turn,
            backlog: self.limits.server.backlog,
            unix_mode: self.unix_mode,
            probing: self.limits.server.probing(),
            shared: !self.part.group.is_alone(),
        }
    }

    /// Puts the engine together over any driver.
    pub(super) fn assemble<D: Driver>(
        mut self,
        driver: D,
        tries: u32,
    ) -> Result<(Engine<D>, Vec<Address>)> {
        let proxies = self.proxies.into_iter().map(Option::transpose);
        let proxies: Vec<_> = proxies.collect::<std::result::Result<_, _>>()?;
        let services = self.services.into_iter().map(|service| -> Box<dyn Service> { service });
        let services: Services = services.collect();
        let Part { group, shard, first } = self.part;
        let mut engine = Engine::new(driver, self.limits, services, group, shard);
        check(&self.places)?;
        let mut shares = None;
        if let Some((made, listeners)) = first {
            shares = Some(listeners.into_iter());
            // Clients come back to any shard with tickets of any other.
            self.tls = made.tls;
        }
        for (service, secured) in (0..).zip(&self.tls) {
            engine.set_start_tls(service, secured.later.clone());
        }
        let mut addresses = Vec::new();
        let of = |&(_, service): &(_, ServiceId)| self.entrances.get(service as usize).cloned();
        engine.open_doors(self.places.iter().map(|place| of(place).unwrap_or_default()));
        for (place, service) in self.places {
            let proxies = proxies.get(service as usize).cloned().flatten();
            let share = shares.as_mut().and_then(Iterator::next);
            addresses.push(match (place, share) {
                (_, Some(share)) => engine.share(share, service, proxies).map_err(Error::Driver)?,
                (Place::Address(address), None) => {
                    let address = address?;
                    let listen = || engine.listen(&address, service, proxies.clone());
                    let actual = patiently(&address, tries, listen);
                    actual.map_err(|source| listen_error(address, source, &addresses))?
                }
                (Place::Given(given), None) => {
                    let actual = engine.take_over(given, service, proxies);
                    actual.map_err(Error::GivenListener)?
                }
            });
            if let Some(Secured { at_once: Some(tls), .. }) = self.tls.get(service as usize) {
                engine.set_tls(addresses.len() - 1, tls.clone());
            }
        }
        engine.note_tls();
        Ok((engine, addresses))
    }
}
