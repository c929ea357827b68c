//! Which certificate a client is shown, and the name that it asked for.

use std::{cell::Cell, sync::Arc};

use rustls::{
    client::verify_server_name,
    pki_types::ServerName,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};

thread_local! {
    /// The name in the hello that is taken in just now. The library tells it to the resolver and, without
    /// buffers of its own, to nobody else.
    static ASKED_FOR: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name that a client asked for in the hello that was taken in just now, if it did.
pub(super) fn take_asked_for() -> Option<Box<str>> {
    ASKED_FOR.take()
}

/// Notes the name, and leaves the choice to another.
#[derive(Debug)]
pub(super) struct Noting(pub(super) Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED_FOR.set(hello.server_name().map(Into::into));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// Certificates, of which the first that is for the name is taken, and the first of all for a client
/// without a name or with another.
#[derive(Debug)]
pub(super) struct Pairs(pub(super) Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pairs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |pair: &&Arc<CertifiedKey>| {
            let certificate = pair.end_entity_cert().ok();
            let parsed = certificate.and_then(|it| ParsedCertificate::try_from(it).ok());
            match (&name, parsed) {
                (Some(name), Some(parsed)) => verify_server_name(&parsed, name).is_ok(),
                _ => false,
            }
        };
        let can_sign =
            |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(hello.signature_schemes()).is_some();
        // Two pairs of different kinds may be for one name.
        let named = || self.0.iter().filter(is_for);
        let found = named().find(can_sign).or_else(|| named().next());
        found.or_else(|| self.0.iter().find(can_sign)).or_else(|| self.0.first()).cloned()
    }
}
